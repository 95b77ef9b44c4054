//! The trait every engine is reached through.

use api_types::{Engine, TaskId, Workload};
use async_trait::async_trait;

use crate::{Job, TokenStream, WorkerError};

/// Whether an engine can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerHealth {
    /// Its process answers.
    pub live: bool,
    /// A task submitted now would be taken.
    pub ready: bool,
}

/// What an engine tells about itself. What it does not tell is `None` or empty; nothing is guessed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WorkerProps {
    /// Tasks it runs at the same time.
    pub slots_total: Option<u32>,
    /// Slots not running anything, whoever started it.
    pub slots_free: Option<u32>,
    /// Context of one slot, in tokens.
    pub ctx_max: Option<u32>,
    /// The model, by the engine's own name for it.
    pub model: Option<String>,
    /// Digest of the model's file, when the engine tells it.
    pub model_digest: Option<String>,
    /// Name of the tokenizer.
    pub tokenizer: Option<String>,
    /// What it can be asked; empty when it does not tell.
    pub workloads: Vec<Workload>,
    /// Additional abilities, by name.
    pub features: Vec<String>,
}

/// A slot of an engine, and how much of a prompt it remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Its number.
    pub slot: u32,
    /// Whether it works on something.
    pub busy: bool,
    /// Tokens whose KV it holds; `None` when the engine does not tell.
    pub tokens: Option<u64>,
}

/// What an engine says of a slot whose KV it has written to a file, or read from one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotFile {
    /// Tokens whose KV it is; 0 for a slot that held nothing.
    pub tokens: u64,
    /// Size of what was written or read, in bytes.
    pub bytes: u64,
}

/// One engine (ADAPT-3000). Every call is bounded in time by the adapter's own configuration, and every future may be
/// dropped at any time.
#[async_trait]
pub trait WorkerAdapter: Send + Sync {
    /// The kind of engine.
    fn engine(&self) -> Engine;

    /// Asks whether the engine can work. An engine that cannot be reached is `Ok` with `live: false`; an answer that makes
    /// no sense is an error.
    async fn health(&self) -> Result<WorkerHealth, WorkerError>;

    /// Asks the engine about itself.
    async fn props(&self) -> Result<WorkerProps, WorkerError>;

    /// The engine's version, with whatever makes a build of it unlike another.
    async fn engine_version(&self) -> Result<String, WorkerError>;

    /// Starts a task and returns once the engine has taken it. Dropping the future or the stream cancels it.
    async fn submit(&self, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError>;

    /// Tells the engine to stop a task, for engines that do not notice a dropped stream. Best effort; unknown tasks are
    /// fine.
    async fn cancel(&self, _task_id: TaskId) -> Result<(), WorkerError> {
        Ok(())
    }

    /// Number of tokens the engine's own tokenizer makes of a job's input, template included; `None` when the engine has
    /// no way to tell.
    async fn count_tokens(&self, _job: &Job) -> Result<Option<u32>, WorkerError> {
        Ok(None)
    }

    /// Number of slots that the engine works in now, whoever gave it the work; `None` when it has no way to tell. An engine
    /// may notice a dropped stream late, and its slot is not free before.
    async fn busy_slots(&self) -> Result<Option<u32>, WorkerError> {
        Ok(None)
    }

    /// Every slot of the engine and how much each remembers; `None` when it has no way to tell.
    async fn slots(&self) -> Result<Option<Vec<SlotView>>, WorkerError> {
        Ok(None)
    }

    /// Has the engine write what a slot remembers to a file, which then is whole. `file` is a plain name in the folder that the
    /// engine was started with for that; a file of that name is replaced. `None` when the engine has no way to do it. The caller
    /// sets the time limit; an engine goes on writing after a dropped future.
    async fn save_slot(&self, _slot: u32, _file: &str) -> Result<Option<SlotFile>, WorkerError> {
        Ok(None)
    }

    /// Has the engine take up from such a file what a slot is to remember, in place of what it remembered. After an error the
    /// slot remembers nothing. Only a file that the same build wrote for the same model and context is to be given: an engine
    /// need not notice. `None` when the engine has no way to do it.
    async fn restore_slot(&self, _slot: u32, _file: &str) -> Result<Option<SlotFile>, WorkerError> {
        Ok(None)
    }
}
