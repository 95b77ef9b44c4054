//! What is simulated: a closed set of scenarios, each with a sentence of what it shows.

mod catalog;
mod memory;
mod swapped;

use api_types::Priority;
use orchestrator_core::queue::FullPolicy;

pub use catalog::SCENARIOS;
pub use memory::{Device, OnDemand, Others, Swap};

/// Pools, clients and mishaps.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it shows.
    pub shows: &'static str,
    /// The pools.
    pub pools: &'static [Pool],
    /// The clients.
    pub sources: &'static [Source],
    /// The mishaps.
    pub faults: &'static [Fault],
    /// Tasks submitted, unless told otherwise.
    pub tasks: usize,
    /// Whether there is always more work than all pools can do, so that throughput can be held against the ideal.
    pub saturated: bool,
    /// The memory that its models share, where they are swapped; then every pool is loaded on demand.
    pub swap: Option<Swap>,
}

impl Scenario {
    /// The one with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        SCENARIOS.iter().find(|scenario| scenario.name == name)
    }
}

/// A pool, with the speeds that the scheduler does not know.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// Its name.
    pub id: &'static str,
    /// The model that it serves.
    pub model: &'static str,
    /// How its model is loaded, where models are swapped.
    pub on_demand: Option<OnDemand>,
    /// Its engines.
    pub replicas: &'static [Replica],
    /// Prompt tokens read per second by a task that is alone.
    pub prefill_tokens_per_s: f64,
    /// Tokens generated per second by a task that is alone.
    pub decode_tokens_per_s: f64,
    /// Time before an engine begins to read, in milliseconds.
    pub overhead_ms: f64,
    /// By how much each further task on the same engine slows all of them, as a share of the time one alone takes.
    pub crowding: f64,
    /// How unlike the speeds of two equal tasks are: the standard deviation of the logarithm.
    pub noise: f64,
    /// Most waiting tasks.
    pub capacity: usize,
    /// Most waiting batch tasks, where they have a limit of their own.
    pub batch_capacity: Option<usize>,
    /// What a full queue does.
    pub full_policy: FullPolicy,
    /// Shares of interactive and batch starts while both wait.
    pub weights: Option<(u16, u16)>,
    /// Most batch tasks per second, and most at once.
    pub batch_rate: Option<(f64, u32)>,
    /// Context of a slot, in tokens.
    pub ctx: i32,
    /// The devices it may use.
    pub device_mask: Option<&'static str>,
}

/// One engine of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Replica {
    /// Tasks it runs at the same time.
    pub slots: u32,
    /// Its speed as a multiple of the pool's.
    pub speed: f64,
    /// Video memory, in GiB.
    pub vram_gib: i64,
}

/// Clients of one kind.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// The class of their tasks.
    pub class: Priority,
    /// The model that they ask for.
    pub model: &'static str,
    /// When they submit.
    pub arrivals: Arrivals,
    /// Length of a prompt, in tokens.
    pub prompt: Size,
    /// Most tokens to generate.
    pub limit: Size,
    /// How much of that limit an output reaches, which nobody knows before.
    pub output: Share,
    /// Share of tasks whose client announces the length of the output, and is right within a quarter.
    pub announced: f64,
    /// Time a task has, in milliseconds.
    pub deadline_ms: Size,
    /// Which pools it may use.
    pub placement: Placement,
    /// Share of tasks that are canceled if they still live then.
    pub canceled: f64,
    /// When those are canceled, in milliseconds after they were taken, on average.
    pub cancel_after_ms: f64,
    /// How often a refused client comes back, as late as it was told to.
    pub patience: u32,
}

/// When tasks are submitted.
#[derive(Clone, Copy, Debug)]
pub enum Arrivals {
    /// Independently of each other, so many per second, by so many clients in no order.
    Poisson {
        /// Tasks per second.
        per_s: f64,
        /// Clients.
        clients: usize,
    },
    /// One per client, all at once, again and again.
    Bursts {
        /// Milliseconds from one burst to the next.
        every_ms: u64,
        /// Clients.
        clients: usize,
    },
    /// Each client waits for the end of its task, thinks, and submits the next one.
    Closed {
        /// Clients.
        clients: usize,
        /// Time to think, in milliseconds on average.
        think_ms: f64,
    },
    /// Each client works for a while and rests: in sessions that begin independently of each other, it submits some tasks one
    /// after the other without waiting for their ends.
    Sessions {
        /// Clients.
        clients: usize,
        /// Time from the end of a client's session to the beginning of its next, in milliseconds on average.
        pause_ms: f64,
        /// Tasks of a session.
        tasks: usize,
        /// Time from one task of a session to the next, in milliseconds on average.
        gap_ms: f64,
    },
    /// At these times, again and again.
    Trace {
        /// Milliseconds from the beginning of the trace, ascending.
        at_ms: &'static [u64],
        /// Length of the trace in milliseconds.
        every_ms: u64,
        /// Clients, in turn.
        clients: usize,
    },
}

impl Arrivals {
    /// How many clients there are.
    #[must_use]
    pub const fn clients(&self) -> usize {
        match *self {
            Self::Poisson { clients, .. }
            | Self::Bursts { clients, .. }
            | Self::Closed { clients, .. }
            | Self::Sessions { clients, .. }
            | Self::Trace { clients, .. } => clients,
        }
    }
}

/// A number that differs from task to task.
#[derive(Clone, Copy, Debug)]
pub enum Size {
    /// Always this.
    Fixed(u32),
    /// One of these, all alike.
    OneOf(&'static [u32]),
    /// From the first to the second, every factor alike.
    Within(u32, u32),
}

/// Which share of its limit an output reaches.
#[derive(Clone, Copy, Debug)]
pub enum Share {
    /// Always the same.
    Fixed(f64),
    /// Between 0 and 1, by a beta distribution.
    Beta(f64, f64),
    /// A share of all tasks run into the limit, the others end by themselves as by a beta distribution.
    Capped {
        /// Share of tasks that run into the limit.
        full: f64,
        /// The beta distribution of the others.
        beta: (f64, f64),
    },
}

/// Which pools a task may use.
#[derive(Clone, Copy, Debug)]
pub enum Placement {
    /// All.
    Auto,
    /// This one.
    Pin(&'static str),
    /// This one, and no other.
    PreferOnly(&'static str),
    /// This one, or another if it cannot.
    Prefer(&'static str),
    /// All but this one.
    Avoid(&'static str),
    /// Those with this device mask.
    Mask(&'static str),
}

/// A mishap that happens again and again.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The pool.
    pub pool: &'static str,
    /// The replica, by its place in the pool.
    pub replica: usize,
    /// What happens.
    pub kind: FaultKind,
    /// Milliseconds from the end of one to the beginning of the next, on average.
    pub every_ms: f64,
    /// How long it lasts, in milliseconds on average.
    pub lasts_ms: f64,
}

/// What can happen to a replica, or to its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Its process dies with everything that runs on it, and is started again.
    Crash,
    /// The connection of one running task breaks.
    Reset,
    /// It says that it takes no new tasks; those that run go on.
    Unready,
    /// Its probes are not answered; tasks run as ever.
    Silent,
    /// The operator drains the pool, and takes that back.
    Drain,
}
