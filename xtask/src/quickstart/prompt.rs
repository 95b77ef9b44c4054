//! Sends the prompt through the client and shows the tokens as they come.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, bail};
use api_types::sse::{ErrorFrame, StartedFrame, TokenFrame};
use serde::Deserialize;
use serde_json::Value;

use super::folder::RunFolder;
use crate::cmd::Cmd;
use crate::repo;

/// A few seconds' worth on any machine.
const MAX_TOKENS: &str = "64";

/// One line of `llama-orch run --json`: an event of the stream.
#[derive(Deserialize)]
struct Line {
    event: String,
    data: Value,
}

/// Runs the prompt; what the stream said at its start.
pub(super) fn submit(client: &Path, server: &str, folder: &RunFolder, prompt: &str) -> anyhow::Result<StartedFrame> {
    let path = folder.transcript();
    let mut transcript = File::create(&path).with_context(|| format!("could not write {}", repo::shown(&path)))?;
    let mut answer = std::io::stdout();
    let mut started = None;
    let run = Cmd::new(client)
        .env("LLAMA_ORCH_SERVER", server)
        .args(["run", "--json", "--max-tokens", MAX_TOKENS, prompt])
        .run_lines(|text| {
            writeln!(transcript, "{text}")?;
            let Line { event, data } =
                serde_json::from_str(text).with_context(|| format!("the client printed {text:?}"))?;
            match event.as_str() {
                "started" => {
                    started = Some(serde_json::from_value(data)?);
                    write!(answer, "\n{prompt}")?;
                    answer.flush()?;
                }
                "token" => {
                    let token: TokenFrame = serde_json::from_value(data)?;
                    answer.write_all(token.t.as_bytes())?;
                    answer.flush()?;
                }
                "error" => {
                    let error: ErrorFrame = serde_json::from_value(data)?;
                    bail!("the task failed with {}: {}", error.code, error.message);
                }
                _ => {}
            }
            Ok(())
        });
    println!("\n");
    run?;
    started.context("the stream had no beginning")
}
