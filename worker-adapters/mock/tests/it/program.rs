//! `mock-engine` in llama-server's place: its command line, its environment, its way to start and to end.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::client::{call, get, post};

/// An engine whose standard error is read when it has ended.
pub(crate) struct Engine {
    child: Child,
    pub(crate) url: String,
}

pub(crate) fn command<K: AsRef<OsStr>, V: AsRef<OsStr>>(args: &[&str], env: &[(K, V)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mock-engine"));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (name, value) in env {
        command.env(name, value);
    }
    command
}

/// What an engine says that ends of its own accord.
pub(crate) fn ended<K: AsRef<OsStr>, V: AsRef<OsStr>>(args: &[&str], env: &[(K, V)]) -> Output {
    command(args, env).output().expect("it runs")
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

impl Engine {
    pub(crate) fn start<K: AsRef<OsStr>, V: AsRef<OsStr>>(args: &[&str], env: &[(K, V)]) -> Self {
        let mut child = command(args, env).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening ").expect("it listens").to_owned();
        Self { child, url }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process");
        kill_process(pid, signal).expect("it is there");
    }

    /// Waits for a line on standard error that holds this, and gives everything up to it.
    pub(crate) fn until_said(&mut self, wanted: &str) -> String {
        let stderr = self.child.stderr.as_mut().expect("piped");
        let mut text = Vec::new();
        let mut byte = [0];
        while !String::from_utf8_lossy(&text).contains(wanted) {
            assert_eq!(stderr.read(&mut byte).expect("it is read"), 1, "{}", text.escape_ascii());
            text.push(byte[0]);
        }
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut text).expect("text");
        (self.child.wait().expect("it ends"), text)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A file that passes for a model, of this size.
pub(crate) fn model(folder: &Path, bytes: u64) -> PathBuf {
    let path = folder.join("tiny-q4.gguf");
    std::fs::write(&path, b"GGUF\x03\0\0\0").expect("written");
    std::fs::File::options().write(true).open(&path).and_then(|file| file.set_len(bytes)).expect("sized");
    path
}

const NO_ENV: [(&str, &str); 0] = [];

/// The command line of a pool that is made for llama-server.
#[tokio::test]
async fn llama_servers_command_line_is_taken() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = model(folder.path(), 100);
    let file = file.to_str().expect("text");
    let line = "--host 127.0.0.1 --port 0 -c 8192 -np 4 -ngl 99 -ts 3,1 -sm layer -mg 0 -cb --no-cont-batching --metrics \
                --slots --no-webui --flash-attn on --jinja -t 2 -b 512 -ub 256 --seed 7 --no-warmup --props --timeout 600";
    let args: Vec<&str> = ["--model", file].into_iter().chain(line.split_whitespace()).collect();
    let mut engine = Engine::start(&args, &NO_ENV);
    let log = engine.until_said("server is listening");
    for line in ["build: 6891 (abcdef12)", "srv    load_model: loading model '", "n_slots = 4", "n_ctx_per_seq = 2048"]
    {
        assert!(log.contains(line), "{line}: {log}");
    }
    let props = get(&engine.url, "/props").await.json();
    assert_eq!((&props["model_alias"], &props["total_slots"]), (&"tiny-q4.gguf".into(), &4.into()));
    assert_eq!(props["default_generation_settings"]["n_ctx"], 2048);
    assert_eq!((&props["model_path"], &props["build_info"]), (&file.into(), &"b6891-abcdef12".into()));
    engine.signal(Signal::TERM);
    let (status, log) = engine.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    let aliased = Engine::start(&["-m", file, "-a", "ours", "--port", "0"], &NO_ENV);
    assert_eq!(get(&aliased.url, "/props").await.json()["model_alias"], "ours");
}

#[test]
fn what_llama_server_refuses_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let unknown = ended(&["--bogus", "1"], &NO_ENV);
    assert_eq!((unknown.status.code(), said(&unknown).as_str()), (Some(1), "error: invalid argument: --bogus\n"));
    let version = ended(&["--version"], &NO_ENV);
    assert!(version.status.success() && said(&version).starts_with("version: 6891 (abcdef12)\n"), "{}", said(&version));
    let text = folder.path().join("text.gguf");
    std::fs::write(&text, "hello").expect("written");
    let text = text.to_str().expect("text");
    let invalid = ended(&["--model", text], &NO_ENV);
    assert_eq!(invalid.status.code(), Some(1));
    assert!(said(&invalid).contains("invalid magic characters: 'hell', expected 'GGUF'"), "{}", said(&invalid));
    assert!(said(&invalid).ends_with("main: exiting due to model loading error\n"), "{}", said(&invalid));
    let absent = ended(&["--model", "/nowhere/model.gguf"], &NO_ENV);
    assert!(said(&absent).contains("(No such file or directory)"), "{}", said(&absent));
    let mut any = Engine::start(&["--model", text], &[("MOCK_ENGINE_ANY_MODEL", "1")]);
    any.until_said("model loaded");
    let port = any.url.rsplit(':').next().expect("a port");
    let taken = ended(&["--port", port], &NO_ENV);
    assert_eq!(taken.status.code(), Some(1));
    assert!(said(&taken).contains(&format!("couldn't bind HTTP server socket, hostname: 127.0.0.1, port: {port}")));
}

#[tokio::test]
async fn a_key_may_be_wanted() {
    let engine = Engine::start(&["--api-key", "sesame"], &NO_ENV);
    assert_eq!(get(&engine.url, "/health").await.status, 200);
    assert_eq!(get(&engine.url, "/slots").await.status, 401);
    let refused = call(&engine.url, "POST", "/completion", r#"{"prompt":"x","n_predict":1}"#).await;
    assert_eq!((refused.status, &refused.json()["error"]["type"]), (401, &"authentication_error".into()));
}

/// ORCH-3058: a pool sets faults by the environment.
#[tokio::test]
async fn the_environment_sets_what_options_set() {
    let faults = r#"{"faults":[{"fault":{"refuse":{"status":429}},"times":1}]}"#;
    let engine = Engine::start(&[], &[("MOCK_ENGINE_FAULTS", faults), ("MOCK_ENGINE_EOS_AFTER", "3..3")]);
    let request = r#"{"prompt":"x","n_predict":9,"stream":true}"#;
    assert_eq!(post(&engine.url, "/completion", request).await.status, 429);
    let last = post(&engine.url, "/completion", request).await.events().pop().expect("a last event");
    assert_eq!(last["tokens_predicted"], 3);
}

/// ORCH-3058: ways to die that need no request, each with the exit or the signal that a real engine leaves behind.
#[tokio::test]
async fn a_process_may_die_at_any_time() {
    for (end, code, signal, line) in [
        (r#"{"exit":7}"#, Some(7), None, "as it was told\n"),
        (r#""bad_alloc""#, None, Some(6), "'std::bad_alloc'"),
        (r#""killed""#, None, Some(9), "as it was told\n"),
        (r#""cuda_error""#, None, Some(6), "CUDA error: an illegal memory access"),
        (r#""cuda_out_of_memory""#, None, Some(6), "CUDA error: out of memory"),
    ] {
        let engine = Engine::start(&[], &NO_ENV);
        assert_eq!(get(&engine.url, "/health").await.status, 200);
        let faults = format!(r#"{{"faults":[{{"fault":{{"in_life":{{"stderr":"as it was told","end":{end}}}}}}}]}}"#);
        // It may die before it has answered.
        let _answer = crate::client::send(&engine.url, "POST", "/mock/faults", &faults).await.response().await;
        let (status, said) = engine.ended();
        assert_eq!((status.code(), status.signal()), (code, signal), "{end}");
        assert!(said.contains("as it was told\n") && said.contains(line), "{said}");
    }
}

#[tokio::test]
async fn sigterm_may_be_ignored() {
    let engine = Engine::start(&["--faults", r#"{"faults":[{"fault":"ignore_sigterm"}]}"#], &NO_ENV);
    engine.signal(Signal::TERM);
    assert_eq!(get(&engine.url, "/health").await.status, 200);
    assert_eq!(post(&engine.url, "/mock/faults", r#"{"faults":[]}"#).await.status, 200);
    engine.signal(Signal::TERM);
    assert_eq!(engine.ended().0.code(), Some(0));
}

/// The environment of fake GPUs and a mask.
pub(crate) fn masked(fake: &fake_nvml::FakeNvml, mask: &str) -> Vec<(&'static str, OsString)> {
    let mask = ("CUDA_VISIBLE_DEVICES", OsString::from(mask));
    fake.env().into_iter().chain([mask]).collect()
}
