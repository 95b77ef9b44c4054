//! What a machine is told, and what it says.

use api_types::words;

use crate::failure::Failure;

/// The number of a piece of work.
pub type Ticket = u64;

/// Times and counts that a pool is run by. From `[pools.supervision]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Time to become ready for a model of no size.
    pub start_ms: u64,
    /// Further time for each GiB.
    pub start_ms_per_gib: u64,
    /// Time an engine has to end when asked to.
    pub stop_grace_ms: u64,
    /// Probes that must fail in a row before an engine counts as hung.
    pub probe_failures: u32,
    /// Pause before the first restart.
    pub backoff_ms: u64,
    /// Longest pause before a restart.
    pub backoff_max_ms: u64,
    /// Restarts within `circuit_window_ms` after which the pool rests.
    pub circuit_restarts: usize,
    /// Time within which restarts count, and for which a pool rests.
    pub circuit_window_ms: u64,
    /// Whether an engine must pass a self-test.
    pub self_test: bool,
    /// Time an engine has to put its sessions away before it is unloaded.
    pub park_ms: u64,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Somebody wants the pool to serve.
    Start,
    /// Somebody wants it to take no new tasks; those that run have so long.
    Drain {
        /// Time from now, in milliseconds.
        for_ms: u64,
    },
    /// Somebody wants its engine gone; what runs has so long.
    Stop {
        /// Time from now, in milliseconds.
        for_ms: u64,
    },
    /// Its memory is wanted back, or its load is not wanted any more. Running tasks have as long as they need; it is started again when
    /// somebody asks for it.
    Unload,
    /// Somebody wants another model.
    Reload {
        /// Its reference.
        model: String,
    },
    /// The daemon ends: the engine, too, and at once.
    ShutDown,
    /// The devices were looked at.
    Devices(Ticket, Result<(), Failure>),
    /// A model was staged; its size in bytes.
    Staged(Ticket, Result<u64, Failure>),
    /// The engine was prepared.
    Prepared(Ticket, Result<(), Failure>),
    /// There is memory for the engine, or there is none.
    Reserved(Ticket, Result<(), Failure>),
    /// The engine's process was started, or could not be.
    Spawned(Ticket, Result<(), Failure>),
    /// A start goes on: lines of its log, memory that fills.
    Progress(Ticket),
    /// The engine was asked how it is.
    Probed(Ticket, Probe),
    /// The self-test ended.
    Tested(Ticket, Result<(), Failure>),
    /// The engine has put its sessions away, as far as it can.
    Parked(Ticket),
    /// A live engine has said that it is lost, or its device has.
    Faulted(Ticket, Failure),
    /// The engine's process has ended; of itself, as far as the driver knows.
    Exited(Ticket, Failure),
    /// No task runs on it.
    Idle,
    /// The driver of the devices does not answer any more.
    DevicesLost(Failure),
    /// It does again.
    DevicesBack,
    /// Time has passed.
    Tick,
}

/// What an engine says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It takes tasks.
    Ready,
    /// It answers, and does not take any yet.
    Loading,
    /// It does not answer.
    Silent,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look at the devices, then tell [`Event::Devices`].
    CheckDevices(Ticket),
    /// Make a model present, then tell [`Event::Staged`].
    Stage {
        /// What it belongs to.
        ticket: Ticket,
        /// Its reference.
        model: String,
    },
    /// Make the engine present, then tell [`Event::Prepared`].
    Prepare(Ticket),
    /// Wait until the devices have memory for this model, then tell [`Event::Reserved`].
    Reserve {
        /// What it belongs to.
        ticket: Ticket,
        /// Its reference.
        model: String,
    },
    /// Start the engine with this model, then tell [`Event::Spawned`] before anything else, and from then on probes, progress,
    /// faults and the end.
    Spawn {
        /// What it belongs to.
        ticket: Ticket,
        /// Its reference.
        model: String,
    },
    /// Have the engine put its sessions away, then tell [`Event::Parked`].
    Park(Ticket),
    /// Run the self-test, then tell [`Event::Tested`].
    Test(Ticket),
    /// Give up work that is under way.
    Abandon,
    /// Take no new tasks. Tell [`Event::Idle`] when none runs.
    Close(Why),
    /// Tasks for this model may be taken.
    Open {
        /// Its reference.
        model: String,
    },
    /// End what still runs: the deadline of a drain has passed.
    Cut,
    /// Ask the engine to end.
    Terminate,
    /// Kill it and everything it has started.
    Kill,
}

words! {
    /// Why a pool takes no new tasks; the `reason` label of `drain_events_total`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
    Why {
        /// Somebody wants it drained.
        Drain = "drain",
        /// Its engine is to be stopped.
        Stop = "stop",
        /// Another model is to be loaded.
        Reload = "reload",
        /// Its memory is wanted, or it was idle for long.
        Unload = "unload",
    }
}

/// Why something that was asked for is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// Another reload is under way.
    #[error("the pool is being reloaded; wait for it, `llama-orch pools` shows how it stands")]
    Reloading,
    /// It drains or stops.
    #[error("the pool is draining or stopping; wait for it, or start it again first")]
    Draining,
    /// It is being started.
    #[error("the pool is being started; wait until it is ready or has failed, or stop it first")]
    Starting,
    /// It does not serve.
    #[error("the pool does not serve just now, so there is nothing to drain; `stop` keeps it from starting")]
    NotServing,
    /// The daemon ends.
    #[error("the orchestrator is stopping")]
    ShuttingDown,
    /// Another host runs it, which has not been heard from.
    #[error("the host that runs the pool has not been heard from; `llama-orch workers` shows how it stands")]
    Away,
    /// Another host runs it, which does not know it.
    #[error("the host that runs the pool has not taken it on; `llama-orch workers` shows how it stands")]
    NotTakenOn,
}

/// How often an engine is to be asked how it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probing {
    /// Not at all.
    Not,
    /// Somebody waits for the answer.
    Often,
    /// It is well.
    Seldom,
}

impl Event {
    /// Whether somebody asks for it, so that it may be refused.
    pub(super) const fn is_wish(&self) -> bool {
        matches!(self, Self::Start | Self::Drain { .. } | Self::Stop { .. } | Self::Unload | Self::Reload { .. })
    }
}
