//! `[worker]`: a host that runs pools for an orchestrator elsewhere.

use std::net::{Ipv4Addr, SocketAddr};

use api_types::WorkerId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::checked::OrchestratorUrl;

/// `[worker]`. The token is the orchestrator's own, from AUTH_TOKEN or AUTH_TOKEN_FILE.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// This host's name, as the orchestrator's pools have it in `worker`. Unset: its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1))]
    pub id: Option<WorkerId>,
    /// Where the orchestrator listens, such as `http://192.168.1.10:8080`.
    pub orchestrator: OrchestratorUrl,
    /// Address and port of the relay through which the orchestrator reaches this host's engines; port 0 takes a free one.
    #[serde(default = "all_addresses", deserialize_with = "crate::checked::socket_addr")]
    #[schemars(with = "String")]
    pub bind: SocketAddr,
    /// `host` or `host:port` under which the orchestrator reaches the relay. Unset: the address that this host's registration
    /// comes from, and the relay's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
}

impl Worker {
    /// This host's name: as the file says, else its host name.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.id.clone().unwrap_or_else(|| {
            let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            WorkerId::from(name.trim())
        })
    }
}

fn all_addresses() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8085))
}
