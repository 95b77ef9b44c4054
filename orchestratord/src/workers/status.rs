//! Workers for the outside.

use api_types::{WorkerList, WorkerState, WorkerStatus};

use super::{Worker, Workers};
use crate::wire::long;

const VERSION: &str = env!("CARGO_PKG_VERSION");

impl Workers {
    /// All of them.
    pub fn list(&self) -> WorkerList {
        WorkerList { workers: self.iter().map(Worker::status).collect() }
    }
}

impl Worker {
    /// Its name.
    pub const fn id(&self) -> &api_types::WorkerId {
        &self.id
    }

    /// How it stands.
    pub fn status(&self) -> WorkerStatus {
        let complaint = self.complaint();
        let is_up = self.is_up();
        let last = self.link().last.clone();
        let state = match (is_up, &last) {
            (true, _) => WorkerState::Up,
            (false, Some(_)) => WorkerState::Away,
            (false, None) => WorkerState::Unknown,
        };
        WorkerStatus {
            id: self.id.clone(),
            state,
            relay: last.as_ref().map(|last| last.relay.authority.clone()),
            complaint: complaint.or_else(|| other_version(&last.as_ref()?.version)),
            version: last.as_ref().map(|last| last.version.clone()),
            heard_ms_ago: last.as_ref().map(|last| long(last.heard.elapsed().as_millis())),
            pools: self.pools.keys().cloned().collect(),
            devices: last.map(|last| last.devices).unwrap_or_default(),
        }
    }

    /// That it is not there, with what to do; `None` when it is.
    pub(super) fn complaint(&self) -> Option<String> {
        let link = self.link();
        match (&link.session, &link.last) {
            (Some(_), _) => None,
            (None, Some(last)) => Some(format!(
                "worker {} has not been heard from for {} s; is pool-managerd running there, and can it reach this host?",
                self.id,
                last.heard.elapsed().as_secs()
            )),
            (None, None) => Some(format!(
                "worker {} has not registered since this orchestrator's start; is pool-managerd running there, with this host as \
                 worker.orchestrator and this host's token?",
                self.id
            )),
        }
    }

    /// 1 while it is heard from.
    pub fn up(&self) -> bool {
        self.is_up()
    }
}

fn other_version(theirs: &str) -> Option<String> {
    (theirs != VERSION).then(|| {
        format!("pool-managerd there is version {theirs} and this orchestrator {VERSION}; the same on both is safer")
    })
}
