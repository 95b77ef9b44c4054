//! Starts the command.

use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

use crate::server::{Reply, Request};

/// The command with a server, in an environment that holds nothing of the caller's.
pub(crate) fn command(server: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llama-orch"));
    command.env_clear().env("LLAMA_ORCH_SERVER", server).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it exited by itself"),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }
}

/// Waits for a started command without blocking the server beside it.
pub(crate) async fn ended(child: Child) -> Ended {
    let waiting = tokio::task::spawn_blocking(move || child.wait_with_output());
    waiting.await.expect("no panic").expect("an exit status").into()
}

/// Runs a command with `stdin`.
pub(crate) async fn finish(mut command: Command, stdin: &str) -> Ended {
    let mut child = command.spawn().expect("the command starts");
    child.stdin.take().expect("piped").write_all(stdin.as_bytes()).expect("the command reads or has exited");
    ended(child).await
}

/// Runs a command.
pub(crate) async fn cli(server: &str, arguments: &[&str]) -> Ended {
    finish(command(server, arguments), "").await
}

/// One ready pool.
pub(crate) fn capabilities() -> Value {
    json!({"api_version": "1.0.0", "engines": [{
        "engine": "mock", "engine_version": "1.2", "sampler_profile_version": "v1", "ctx_max": 300,
        "max_tokens_out": 299, "concurrency": 1, "supported_workloads": ["completion"], "pool_id": "gpu0",
        "model_ref": "tiny", "slots_total": 2, "ready": true, "rate_limits": {}, "features": {}}]})
}

/// Answers capabilities, and everything else by `answer`.
pub(crate) fn with_a_pool(
    answer: impl Fn(&Request) -> Reply + Send + Sync,
) -> impl Fn(&Request) -> Reply + Send + Sync {
    move |request| match request.path.as_str() {
        "/v1/capabilities" => Reply::json(200, capabilities()),
        _ => answer(request),
    }
}
