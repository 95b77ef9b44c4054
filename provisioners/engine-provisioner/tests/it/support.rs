//! What the tests share: a host with a make-believe CUDA compiler, projects that build in a second, progress that is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use catalog_core::{Digest, FsEngineCatalog};
use config_schema::{Config, Outbound, OutboundMode, Pool};
use engine_provisioner::{
    EngineError, EngineProgress, EngineProvisioner, Gpu, Gpus, Host, PreparedEngine, Setup, StepKind, provider_for,
};
use model_provisioner::{OutboundPolicy, Web, WebSettings};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// A place with a cache, a catalog and a host of its own.
pub(crate) struct Place {
    folder: TempDir,
    pub(crate) setup: Setup,
}

impl Place {
    /// One whose host has CUDA 12.4, as far as anybody can tell without compiling for it.
    pub(crate) fn new() -> Self {
        let place = Self::without_cuda();
        place.program("bin/nvcc", "echo 'Cuda compilation tools, release 12.4, V12.4.131'");
        place
    }

    pub(crate) fn without_cuda() -> Self {
        Self::with_outbound(&Outbound { allow_binary_downloads: true, ..Outbound::default() })
    }

    pub(crate) fn with_outbound(outbound: &Outbound) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        let settings =
            WebSettings { ca_pem: Some(Arc::new([])), ..WebSettings::new(std::time::Duration::from_secs(20)) };
        let web = Arc::new(Web::new(OutboundPolicy::new(outbound), &settings).expect("usable certificates"));
        let catalog = Arc::new(FsEngineCatalog::open(at("catalog")).expect("a catalog"));
        let mut config = Config::default();
        config.engines.cache_dir = at("cache");
        config.policy.outbound = outbound.clone();
        let mut host = Host::of_process();
        host.path.retain(|path| !path.join("nvcc").exists());
        host.path.insert(0, at("bin"));
        host.cuda_places = vec![at("opt/cuda")];
        host.environment.retain(|name, _| !name.starts_with("CUDA"));
        let mut setup = Setup::new(&config, web, catalog, host);
        setup.build_bytes = 0;
        Self { folder, setup }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.at(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("created");
        fs::write(&path, content).expect("written");
        path
    }

    /// Writes a program for the shell.
    pub(crate) fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.write(name, &format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a program");
        path
    }

    pub(crate) fn git(&self, folder: &Path, args: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(folder)
            .output()
            .expect("git");
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Makes a repository of a folder, and says what its commit is.
    pub(crate) fn commit(&self, folder: &Path, message: &str) -> String {
        if !folder.join(".git").exists() {
            self.git(folder, &["init", "--quiet", "--initial-branch=main"]);
        }
        self.git(folder, &["add", "--all"]);
        self.git(folder, &["commit", "--quiet", "--message", message]);
        self.git(folder, &["rev-parse", "HEAD"])
    }

    /// A project whose server is built of two files, with further lines for CMake.
    pub(crate) fn project(&self, more: &str) -> PathBuf {
        let lines = "cmake_minimum_required(VERSION 3.14)\n\
                     project(\"llama.cpp\" CXX)\n\
                     if (NOT LLAMA_BUILD_SERVER OR NOT GGML_CUDA)\n  message(FATAL_ERROR \"not as wanted\")\nendif()\n\
                     set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)\n\
                     add_executable(llama-server server.cpp)\n";
        self.write("repo/CMakeLists.txt", &format!("{lines}{more}\n"));
        self.write("repo/server.cpp", "#include <cstdio>\nint main() { std::puts(\"version: 6891 (1a2b3c4d)\"); }\n");
        self.at("repo")
    }

    pub(crate) fn provisioner(&self, pool: &Pool) -> Box<dyn EngineProvisioner> {
        provider_for(pool, &self.setup).expect("a provisioner")
    }

    pub(crate) async fn ensure(&self, pool: &Pool) -> (Result<PreparedEngine, EngineError>, Arc<Kept>) {
        self.ensure_for(pool, &gpus(&[(8, 6)])).await
    }

    pub(crate) async fn ensure_for(
        &self,
        pool: &Pool,
        gpus: &Gpus,
    ) -> (Result<PreparedEngine, EngineError>, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        let progress: Arc<dyn EngineProgress> = kept.clone();
        let result = self.provisioner(pool).ensure(gpus, &progress, &CancellationToken::new()).await;
        (result, kept)
    }

    pub(crate) fn entries(&self) -> Vec<catalog_core::EngineEntry> {
        self.setup.catalog.list().expect("a catalog")
    }

    /// Names in a folder of the cache, but for those that begin with a dot.
    pub(crate) fn cached(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.at("cache").join(folder)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        names
    }
}

/// A pool of the configuration's own words, with the provisioning given.
pub(crate) fn pool(engine: &str, provisioning: &str) -> Pool {
    let text = format!(
        "id = \"p\"\nengine = \"{engine}\"\nmodel = \"file:/m.gguf\"\ndevices = [0]\n[provisioning]\n{provisioning}"
    );
    toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub(crate) fn source_pool(repo: &str, reference: &str, more: &str) -> Pool {
    pool(
        "llamacpp",
        &format!("mode = \"source\"\n[provisioning.source]\nrepo = \"{repo}\"\nref = \"{reference}\"\n{more}"),
    )
}

pub(crate) fn gpus(capabilities: &[(u32, u32)]) -> Gpus {
    let gpu = |(index, capability): (u32, &(u32, u32))| Gpu {
        index,
        uuid: format!("GPU-{index}"),
        compute_capability: *capability,
    };
    Gpus::new((0..).zip(capabilities).map(gpu).collect(), Some((12, 4))).expect("there are some")
}

pub(crate) fn file_url(path: &Path) -> String {
    format!("file://{}", path.display())
}

pub(crate) fn digest(path: &Path) -> Digest {
    Digest::of(&fs::read(path).expect("a file"))
}

pub(crate) fn denied() -> Outbound {
    Outbound { mode: OutboundMode::Deny, ..Outbound::default() }
}

type OnLine = Box<dyn Fn(&str) + Send>;

/// Keeps what it is told.
#[derive(Default)]
pub(crate) struct Kept {
    steps: Mutex<Vec<StepKind>>,
    shares: Mutex<Vec<f64>>,
    lines: Mutex<Vec<String>>,
    on_line: Mutex<Option<OnLine>>,
}

impl Kept {
    /// One that acts on each line of output.
    pub(crate) fn acting(on_line: impl Fn(&str) + Send + 'static) -> Arc<Self> {
        Arc::new(Self { on_line: Mutex::new(Some(Box::new(on_line))), ..Self::default() })
    }

    pub(crate) fn steps(&self) -> Vec<StepKind> {
        self.steps.lock().expect("nobody panicked").clone()
    }

    pub(crate) fn shares(&self) -> Vec<f64> {
        self.shares.lock().expect("nobody panicked").clone()
    }

    pub(crate) fn has_line(&self, part: &str) -> bool {
        self.lines.lock().expect("nobody panicked").iter().any(|line| line.contains(part))
    }
}

impl EngineProgress for Kept {
    fn step(&self, kind: StepKind, _: &str) {
        self.steps.lock().expect("nobody panicked").push(kind);
    }
    fn share(&self, share: f64) {
        self.shares.lock().expect("nobody panicked").push(share);
    }
    fn output(&self, line: &str) {
        self.lines.lock().expect("nobody panicked").push(line.to_owned());
        if let Some(act) = &*self.on_line.lock().expect("nobody panicked") {
            act(line);
        }
    }
}
