//! What `state.db` keeps of a task: enough to run it again, and enough to answer its client a second time.

use std::sync::Arc;

use api_types::{AdmissionResponse, ErrorEnvelope, ErrorKind, InputTokens, PlacementRecord, PoolId, TaskRequest};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use state_db::{AcceptedTask, EndedTask, StateDb, StoredTask};

use crate::clock::Clock;
use crate::task::Task;

/// An accepted task that has not ended: everything it was born with that a later life of the daemon needs.
#[derive(Serialize, Deserialize)]
pub struct Entry {
    /// The client's request.
    pub request: Arc<TaskRequest>,
    /// The id under which its log lines are found.
    pub correlation_id: Arc<str>,
    /// Seed in force.
    pub seed: u32,
    /// The answer to its admission.
    pub admission: AdmissionResponse,
    /// Why its pool was chosen.
    pub placement: PlacementRecord,
    /// The pool.
    pub pool_id: PoolId,
    /// Probability, as estimated at its admission, that it ends before its deadline.
    pub on_time_probability: f64,
    /// Length of its input.
    pub input_tokens: Option<InputTokens>,
}

impl Entry {
    /// The entry of a task that was just admitted.
    pub fn of(task: &Task) -> Self {
        let born = task.born();
        Self {
            request: Arc::clone(&born.request),
            correlation_id: Arc::clone(&born.caller.correlation_id),
            seed: born.seed,
            admission: born.admission.clone(),
            placement: born.placement.clone(),
            pool_id: born.pool_id.clone(),
            on_time_probability: born.on_time_probability,
            input_tokens: born.input_tokens,
        }
    }
}

/// What is kept of an ended batch task beside its summary, so that the same request again gets the same answer.
#[derive(Serialize, Deserialize)]
struct Record {
    /// SHA-256 of the request as JSON.
    request: String,
    admission: AdmissionResponse,
}

/// Queues a task for the journal.
pub fn accept(db: &StateDb, task: &Task) -> state_db::Receipt {
    db.accept(AcceptedTask {
        task_id: task.id(),
        admitted_at_ms: task.born().admitted_at_ms,
        entry: serde_json::to_string(&Entry::of(task)).expect("an entry has only what JSON can hold"),
    })
}

/// Queues an ended task for the history; it leaves the journal in the same transaction.
pub fn finish(db: &StateDb, task: &Task, clock: &Clock) -> state_db::Receipt {
    let summary = task.summary(clock, None);
    if !task.is_journaled() {
        return db.finish(EndedTask { summary, record: String::new() });
    }
    let record = Record { request: digest(task.request()), admission: task.born().admission.clone() };
    let record = serde_json::to_string(&record).expect("a record has only what JSON can hold");
    db.finish(EndedTask { summary, record })
}

/// The answer for a request whose id belongs to a task of the history.
///
/// # Errors
/// `CONFLICT` when that task had another body.
pub fn answer_again(stored: &StoredTask, request: &TaskRequest) -> Result<AdmissionResponse, ErrorEnvelope> {
    match serde_json::from_str::<Record>(&stored.record) {
        Ok(record) if record.request == digest(request) => Ok(record.admission),
        _ => Err(conflict(request)),
    }
}

/// The same id with another body.
pub fn conflict(request: &TaskRequest) -> ErrorEnvelope {
    ErrorEnvelope::new(
        ErrorKind::Conflict,
        format!("task {} exists with another body; choose a new task_id, or repeat the same body", request.task_id),
    )
}

fn digest(request: &TaskRequest) -> String {
    let json = serde_json::to_vec(request).expect("a request came from JSON");
    let digest = Sha256::digest(json);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
