//! Builds what the quickstart runs, in the profile that the tests use, which then find most of it built.

use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

use crate::cmd::Cmd;

const DAEMON: &str = "orchestratord";
const CLIENT: &str = "llama-orch";

/// The built programs.
pub(super) struct Binaries {
    pub(super) daemon: PathBuf,
    pub(super) client: PathBuf,
}

pub(super) fn build() -> anyhow::Result<Binaries> {
    let (mut daemon, mut client) = (None, None);
    Cmd::cargo()
        .args(["build", "--package", DAEMON, "--package", "llama-orch-cli", "--bins"])
        .args(["--message-format", "json-render-diagnostics"])
        .run_lines(|line| {
            if let Some((name, path)) = executable(line) {
                match name.as_str() {
                    DAEMON => daemon = Some(path),
                    CLIENT => client = Some(path),
                    _ => {}
                }
            }
            Ok(())
        })?;
    Ok(Binaries {
        daemon: daemon.context("cargo built no orchestratord")?,
        client: client.context("cargo built no llama-orch")?,
    })
}

/// The program that a line of cargo's JSON output announces. Cargo knows where it lies; the target folder may be anywhere.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    #[derive(Deserialize)]
    struct Artifact {
        executable: Option<PathBuf>,
        target: Target,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    Some((artifact.target.name, artifact.executable?))
}
