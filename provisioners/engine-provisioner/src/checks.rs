//! What is looked at before anything is done: the same for a doctor's report and for a start.

use std::path::Path;

use api_types::{DoctorCheck, DoctorOutcome, PoolId};

use crate::error::EngineError;
use crate::host::Host;
use crate::tools::{Tool, install_command};

enum Outcome {
    Pass(String),
    Warn(String, String),
    Fail(EngineError),
}

/// Findings about one pool, in the order in which a start would meet them.
pub(crate) struct Checks<'a> {
    pool: &'a PoolId,
    host: &'a Host,
    found: Vec<(&'static str, Outcome)>,
}

impl<'a> Checks<'a> {
    pub(crate) fn new(pool: &'a PoolId, host: &'a Host) -> Self {
        Self { pool, host, found: Vec::new() }
    }

    pub(crate) fn pass(&mut self, name: &'static str, detail: impl Into<String>) {
        self.found.push((name, Outcome::Pass(detail.into())));
    }

    pub(crate) fn warn(&mut self, name: &'static str, detail: impl Into<String>, fix: impl Into<String>) {
        self.found.push((name, Outcome::Warn(detail.into(), fix.into())));
    }

    pub(crate) fn fail(&mut self, name: &'static str, error: EngineError) {
        self.found.push((name, Outcome::Fail(error)));
    }

    pub(crate) fn result(&mut self, name: &'static str, result: Result<String, EngineError>) {
        match result {
            Ok(detail) => self.pass(name, detail),
            Err(error) => self.fail(name, error),
        }
    }

    /// Whether one of some tools is there.
    pub(crate) fn tool(&mut self, any_of: &[Tool], needed_for: &str) {
        let Some(first) = any_of.first().copied() else { return };
        match any_of.iter().find_map(|tool| self.host.tool(*tool)) {
            Some(path) => self.pass(first.as_str(), path.display().to_string()),
            None => {
                let fix = first.fix(&self.host.distro);
                self.fail(
                    first.as_str(),
                    EngineError::MissingTools {
                        tools: vec![first],
                        needed_for: needed_for.to_owned(),
                        looked_at: Vec::new(),
                        fix,
                    },
                );
            }
        }
    }

    /// Whether a folder can be written to, and has so much room.
    pub(crate) fn room(&mut self, folder: &Path, bytes: u64) {
        let result = writable(folder).and_then(|()| {
            let free = free_bytes(folder).map_err(EngineError::io("look at", folder))?;
            if free < bytes {
                let path = folder.to_owned();
                return Err(EngineError::NoSpace { path, needed_bytes: bytes, free_bytes: free });
            }
            Ok(format!("{} has {} GiB free", folder.display(), free >> 30))
        });
        self.result("disk", result);
    }

    /// LO-ENG-14: the Hub's client is not needed, and its absence is no trouble.
    pub(crate) fn hub_client(&mut self, wants_hub: bool) {
        if wants_hub && self.host.tool(Tool::HuggingFaceCli).is_none() {
            let fix = Tool::HuggingFaceCli.fix(&self.host.distro);
            self.pass(
                "huggingface-cli",
                format!("not installed and not needed: llama-orch fetches hf: models itself; to have it: {fix}"),
            );
        }
    }

    pub(crate) fn report(self) -> Vec<DoctorCheck> {
        let pool_id = Some(self.pool.to_string());
        let check = |(name, outcome): (&'static str, Outcome)| {
            let (outcome, detail, fault, fix) = match outcome {
                Outcome::Pass(detail) => (DoctorOutcome::Pass, detail, None, None),
                Outcome::Warn(detail, fix) => (DoctorOutcome::Warn, detail, None, Some(fix)),
                Outcome::Fail(error) => (DoctorOutcome::Fail, error.to_string(), Some(error.fault()), error.fix()),
            };
            DoctorCheck { name: name.to_owned(), pool_id: pool_id.clone(), outcome, detail, fault, fix }
        };
        self.found.into_iter().map(check).collect()
    }

    /// The tools that are missing.
    pub(crate) fn missing(&self) -> Vec<Tool> {
        let tools = self.found.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Fail(EngineError::MissingTools { tools, .. }) => Some(tools.iter().copied()),
            _ => None,
        });
        tools.flatten().collect()
    }

    /// The first failure; tools that are missing are told all at once.
    pub(crate) fn verdict(self) -> Result<(), EngineError> {
        let missing = self.missing();
        let (host, failures) = (self.host, self.found.into_iter());
        for (name, outcome) in failures {
            match outcome {
                Outcome::Pass(_) => {}
                Outcome::Warn(detail, fix) => tracing::warn!(pool_id = %self.pool, check = name, fix, "{detail}"),
                Outcome::Fail(EngineError::MissingTools { needed_for, looked_at, .. }) if missing.len() > 1 => {
                    let fix = fix_for(host, &missing);
                    return Err(EngineError::MissingTools { tools: missing, needed_for, looked_at, fix });
                }
                Outcome::Fail(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// One command for several tools, then what has to be known about single ones.
fn fix_for(host: &Host, tools: &[Tool]) -> String {
    let family = host.distro.family;
    let packages: Option<Vec<_>> = tools.iter().map(|tool| tool.package(family)).collect();
    let names: Vec<_> = tools.iter().map(|tool| tool.as_str()).collect();
    let mut fix = install_command(family, packages.as_deref().unwrap_or(&names));
    for hint in tools.iter().filter_map(|tool| tool.hint()) {
        fix = format!("{fix} ({hint})");
    }
    fix
}

fn writable(folder: &Path) -> Result<(), EngineError> {
    let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let access = rustix::fs::access(there, rustix::fs::Access::WRITE_OK);
    access.map_err(|error| EngineError::io("write to", there)(error.into()))
}

fn free_bytes(folder: &Path) -> std::io::Result<u64> {
    use model_provisioner::Disk as _;
    model_provisioner::LocalDisk.free_bytes(folder)
}
