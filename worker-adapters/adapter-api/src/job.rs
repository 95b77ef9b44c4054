//! What an adapter is asked to run.

use std::sync::Arc;

use api_types::TaskRequest;

/// A task as an engine gets it: the client's request, and what the orchestrator decided about it.
#[derive(Clone, Debug)]
pub struct Job {
    /// The client's request.
    pub request: Arc<TaskRequest>,
    /// Seed in force, given by the client or drawn at admission.
    pub seed: u32,
    /// Equal jobs must give equal bytes, so the engine must not use its prompt cache.
    pub repeatable: bool,
    /// The id under which log lines are found; sent to engines that take one.
    pub correlation_id: Arc<str>,
}
