//! The whole file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AdmissionPolicy, Artifacts, Catalog, Engines, History, Log, Policy, Pool, Server, Sessions, Stream, Swap, Worker,
};

/// Every setting. The default has no pools.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `[server]`: how the daemon itself runs.
    pub server: Server,
    /// `[stream]`: what clients get while a task runs.
    pub stream: Stream,
    /// `[admission]`: what clients may ask for.
    pub admission: AdmissionPolicy,
    /// `[sessions]`: what one session may use up.
    pub sessions: Sessions,
    /// `[policy]`: where the daemon may connect to.
    pub policy: Policy,
    /// `[catalog]`: models.
    pub catalog: Catalog,
    /// `[artifacts]`: transcripts and records of tasks.
    pub artifacts: Artifacts,
    /// `[history]`: records of ended tasks.
    pub history: History,
    /// `[log]`: log lines.
    pub log: Log,
    /// `[engines]`: what the engines that are run here have in common.
    pub engines: Engines,
    /// `[swap]`: how models that are loaded on demand share the memory of GPUs.
    pub swap: Swap,
    /// `[worker]`: for `pool-managerd`, which orchestrator this host works for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
    /// `[[pools]]`: engines.
    pub pools: Vec<Pool>,
}

impl Config {
    /// Whether this pool's engine may be installed through the package manager.
    #[must_use]
    pub fn allows_package_installs(&self, pool: &Pool) -> bool {
        pool.provisioning.allow_package_installs.unwrap_or(self.policy.outbound.allow_package_installs)
    }

    /// Whether this pool's engine may be downloaded as a ready-made program.
    #[must_use]
    pub fn allows_binary_downloads(&self, pool: &Pool) -> bool {
        pool.provisioning.allow_binary_downloads.unwrap_or(self.policy.outbound.allow_binary_downloads)
    }
}
