//! A machine of its own: a folder with a configuration, models and simulated GPUs. What was started on it ends with it.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use fake_nvml::FakeNvml;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::command::{Ended, command, finish};

pub(super) struct Host {
    folder: TempDir,
    gpus: FakeNvml,
    server: String,
}

impl Host {
    /// One managed pool, `gpu0`, on the larger GPU, and more lines of configuration.
    pub(super) fn new(more: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let gpus = FakeNvml::new(folder.path()).expect("simulated GPUs");
        let host = Self { folder, gpus, server: String::new() };
        let whole = gguf();
        for (name, bytes) in [("model.gguf", &whole[..]), ("other.gguf", &whole), ("broken.gguf", &whole[..200])] {
            std::fs::write(host.path(name), bytes).expect("a model");
        }
        let host = host.with_faults(r#"{"faults": []}"#);
        std::fs::write(host.path("llama-orch.toml"), host.config() + more).expect("a configuration");
        host
    }

    /// Whether orchestratord was built beside the command.
    pub(super) fn has_daemon() -> bool {
        Path::new(env!("CARGO_BIN_EXE_llama-orch")).with_file_name("orchestratord").is_file()
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.folder.path().join(name).exists()
    }

    /// The commands that want a server get the one that `up` has started.
    pub(super) fn with_server(mut self) -> Self {
        let address = std::fs::read_to_string(self.path("data/run/orchestratord.addr")).expect("it listens");
        self.server = format!("http://{}", address.trim());
        self
    }

    /// Engines that are started from now on have these faults.
    pub(super) fn with_faults(self, faults: &str) -> Self {
        std::fs::write(self.path("faults.json"), faults).expect("a file");
        self
    }

    /// Runs a command here.
    pub(super) async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[]).await
    }

    pub(super) async fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        finish(self.command(arguments, environment), "").await
    }

    fn command(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
        let mut command = command(&self.server, arguments);
        if self.server.is_empty() {
            command.env_remove("LLAMA_ORCH_SERVER");
        }
        command.current_dir(&self.folder).env("HOME", self.folder.path()).envs(self.gpus.env());
        command.envs(environment.iter().copied());
        command
    }

    /// The pool as the server tells it.
    pub(super) async fn pool(&self) -> Value {
        let shown = self.run(&["pools", "show", "gpu0", "--json"]).await;
        serde_json::from_str(&shown.out).unwrap_or_else(|error| panic!("{error}: {shown:?}"))
    }

    /// Programs that run from this folder.
    pub(super) fn engines(&self) -> Vec<String> {
        let programs = std::fs::read_dir("/proc").expect("Linux").flatten();
        let programs = programs.filter_map(|entry| std::fs::read_link(entry.path().join("exe")).ok());
        let ours = programs.filter(|program| program.starts_with(self.folder.path()));
        ours.map(|program| program.display().to_string()).collect()
    }

    fn config(&self) -> String {
        let program = mock::process::binary().expect("mock-engine is built");
        let digest = Sha256::digest(std::fs::read(&program).expect("it can be read"));
        let checksum = digest.iter().fold(String::new(), |mut text, byte| {
            write!(text, "{byte:02x}").expect("a text takes more");
            text
        });
        format!(
            "[server]\nbind = \"127.0.0.1:0\"\ndata_dir = {:?}\n[engines]\ncache_dir = {:?}\n[catalog]\nmodels_dir = {:?}\n\
             [policy.outbound]\nallow_binary_downloads = true\n[[pools]]\nid = \"gpu0\"\nengine = \"llamacpp\"\n\
             model = \"file:{}\"\nctx = 1024\nslots = 2\ndevices = [0]\n[pools.supervision]\nrestart_backoff_ms = 10\n\
             circuit_restarts = 1\n[pools.provisioning]\nmode = \"binary\"\n\
             env = {{ MOCK_ENGINE_FAULTS_FILE = {:?}, FAKE_NVML = {:?} }}\n[pools.provisioning.binary]\n\
             url = \"file://{}\"\nchecksum = \"sha256:{checksum}\"\n",
            self.path("data"),
            self.path("cache"),
            self.folder.path(),
            self.path("model.gguf"),
            self.path("faults.json"),
            self.gpus.state_path(),
            program.display(),
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Also after a test that failed half-way.
        if self.exists("data/run/orchestratord.pid") {
            let _ended = self.command(&["down"], &[]).output();
        }
    }
}

/// A small GGUF file of version 3 with the header of a llama.
fn gguf() -> Vec<u8> {
    let texts = [("general.architecture", "llama"), ("general.name", "tiny")];
    let numbers = [
        ("llama.context_length", 8192_u32),
        ("llama.block_count", 2),
        ("llama.embedding_length", 64),
        ("llama.feed_forward_length", 128),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 4),
        ("llama.vocab_size", 256),
    ];
    let text = |text: &str| [&u64::try_from(text.len()).expect("short").to_le_bytes(), text.as_bytes()].concat();
    let count = u64::try_from(texts.len() + numbers.len()).expect("a few");
    let mut file = [b"GGUF".as_slice(), &3_u32.to_le_bytes(), &0_u64.to_le_bytes(), &count.to_le_bytes()].concat();
    for (key, value) in texts {
        file.extend([text(key), 8_u32.to_le_bytes().to_vec(), text(value)].concat());
    }
    for (key, value) in numbers {
        file.extend([text(key), 4_u32.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat());
    }
    file.resize(file.len() + 4096, 0);
    file
}
