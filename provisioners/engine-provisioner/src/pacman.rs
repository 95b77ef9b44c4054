//! Packages, installed with pacman where that is allowed (ORCH-3204). Nothing here becomes root.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::distro::Family;
use crate::error::EngineError;
use crate::host::Host;
use crate::process::{Run, RunError};
use crate::tools::{Tool, install_command};

/// Longest that an installation may take.
const LONGEST: Duration = Duration::from_secs(3600);

/// Whether packages can be installed from here, and if not what to do instead.
pub(crate) fn may(host: &Host, allowed: bool, packages: &[&str]) -> Result<(), EngineError> {
    let names = packages.join(" ");
    let by_hand = install_command(host.distro.family, packages);
    let refuse = |what: String, fix: String| Err(EngineError::NotAllowed { what, fix });
    if !allowed {
        let fix =
            format!("install it yourself: {by_hand}; or set `allow_package_installs = true` on an Arch-like host");
        return refuse(format!("{names} may not be installed: allow_package_installs is false"), fix);
    }
    if host.distro.family != Family::Arch {
        let what = format!("packages are installed only on Arch-like hosts, and this is {}", host.distro.name);
        return Err(EngineError::Unsupported { what, fix: by_hand });
    }
    if host.find("pacman").is_none() {
        return Err(EngineError::Unsupported { what: "pacman is not on the path".to_owned(), fix: by_hand });
    }
    if !host.is_root {
        return refuse(
            format!("{names} cannot be installed: llama-orch does not run as root, and does not become it"),
            by_hand,
        );
    }
    Ok(())
}

/// The tools to install: those that are missing, and the Hub's client when something is installed anyway and the model is from
/// there (LO-ENG-14).
pub(crate) fn install_set(missing: &[Tool], wants_hub: bool, host: &Host) -> Vec<&'static str> {
    let hub = (wants_hub && host.tool(Tool::HuggingFaceCli).is_none()).then_some(Tool::HuggingFaceCli);
    missing.iter().copied().chain(hub).filter_map(|tool| tool.package(Family::Arch)).collect()
}

/// Installs packages without asking anything.
pub(crate) async fn install(host: &Host, packages: &[&str], cancel: &CancellationToken) -> Result<(), EngineError> {
    pacman(host, &[&["-S", "--noconfirm", "--needed", "--"], packages].concat(), cancel).await.map(drop)
}

/// The version of a package that is installed; `None` when it is not.
pub(crate) async fn installed(
    host: &Host,
    package: &str,
    cancel: &CancellationToken,
) -> Result<Option<String>, EngineError> {
    match pacman(host, &["-Q", "--", package], cancel).await {
        Ok(lines) => {
            Ok(lines.first().and_then(|line| line.split_once(' ')).map(|(_, version)| version.trim().to_owned()))
        }
        Err(EngineError::Package { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a repository has a package.
pub(crate) async fn is_known(host: &Host, package: &str, cancel: &CancellationToken) -> Result<bool, EngineError> {
    match pacman(host, &["-Si", "--", package], cancel).await {
        Ok(_) => Ok(true),
        Err(EngineError::Package { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn pacman(host: &Host, args: &[&str], cancel: &CancellationToken) -> Result<Vec<String>, EngineError> {
    let program = host.find("pacman").ok_or_else(|| EngineError::Unsupported {
        what: "pacman is not on the path".to_owned(),
        fix: "choose another mode, or install the engine yourself and attach to it".to_owned(),
    })?;
    let command = format!("pacman {}", args.join(" "));
    let run = Run::new(&program, host.child_environment()).args(args.iter().copied()).at_most(LONGEST);
    match run.finish(cancel, |_| ()).await {
        Ok(ended) if ended.status.success() => Ok(ended.lines),
        Ok(ended) => {
            let detail = ended.lines.last().cloned().unwrap_or_else(|| ended.status.to_string());
            Err(EngineError::Package { command, detail })
        }
        Err(RunError::Canceled) => Err(EngineError::Canceled),
        Err(error) => Err(EngineError::Package { command, detail: error.to_string() }),
    }
}
