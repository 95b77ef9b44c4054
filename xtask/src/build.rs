//! Builds the workspace's programs and says where they lie.

use std::collections::HashMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde::Deserialize;

use crate::cmd::Cmd;

/// A program of the workspace.
#[derive(Clone, Copy)]
pub(crate) struct Program {
    pub(crate) name: &'static str,
    package: &'static str,
}

pub(crate) const DAEMON: Program = Program { name: "orchestratord", package: "orchestratord" };
pub(crate) const CLIENT: Program = Program { name: "llama-orch", package: "llama-orch-cli" };
pub(crate) const ENGINE: Program = Program { name: "mock-engine", package: "mock" };

/// How they are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// As the tests are, which then find most of it built.
    Dev,
    /// As they are measured.
    Release,
}

/// Builds programs; their paths are in the order of their names.
pub(crate) fn build<const COUNT: usize>(
    programs: [Program; COUNT],
    profile: Profile,
) -> anyhow::Result<[PathBuf; COUNT]> {
    let mut built = HashMap::new();
    let packages = programs.iter().flat_map(|program| ["--package", program.package]);
    let release = (profile == Profile::Release).then_some("--release");
    Cmd::cargo()
        .arg("build")
        .args(release)
        .args(packages)
        .args(["--bins", "--message-format", "json-render-diagnostics"])
        .run_lines(|line| {
            built.extend(executable(line));
            Ok(())
        })?;
    let mut paths = programs.map(|_| PathBuf::new());
    for (path, program) in paths.iter_mut().zip(programs) {
        *path = built.remove(program.name).with_context(|| format!("cargo built no {}", program.name))?;
    }
    Ok(paths)
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
