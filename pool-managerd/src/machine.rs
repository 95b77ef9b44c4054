//! A pool as a state machine: what has happened goes in, what is to be done comes out.
//!
//! It is pure: it does no I/O, reads no clock and draws no random number, so that every story of a pool can be told in a test.
//! Times are milliseconds on the caller's clock. The driver ([`crate::pool`]) carries out the actions, in order, and feeds back
//! what came of them.
//!
//! Work that takes time (looking at devices, staging a model, preparing an engine, starting it, testing it) belongs to a ticket. What
//! comes back with an old ticket is about something that is no longer wanted, and changes nothing.

mod reload;
mod restarts;

use api_types::{PoolFault, PoolState, words};

pub use self::reload::Reload;
use self::restarts::Restarts;
use crate::failure::{Failure, Remedy};

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
}

/// Start deadlines move on progress, but not for ever: no start takes longer than so many times its own limit.
const LONGEST_START: u64 = 8;

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
    /// The engine's process was started, or could not be.
    Spawned(Ticket, Result<(), Failure>),
    /// A start goes on: lines of its log, memory that fills.
    Progress(Ticket),
    /// The engine was asked how it is.
    Probed(Ticket, Probe),
    /// The self-test ended.
    Tested(Ticket, Result<(), Failure>),
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
    /// Start the engine with this model, then tell [`Event::Spawned`] before anything else, and from then on probes, progress,
    /// faults and the end.
    Spawn {
        /// What it belongs to.
        ticket: Ticket,
        /// Its reference.
        model: String,
    },
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
}

#[derive(Clone, Debug, PartialEq)]
enum State {
    Stopped,
    /// Devices, model and engine, in this order (ORCH-3504).
    Preparing(Gate),
    /// The process is being started.
    Spawning,
    /// It is up; `until_ms` moves on progress and never beyond `latest_ms`.
    Loading {
        until_ms: u64,
        window_ms: u64,
        latest_ms: u64,
    },
    Testing {
        until_ms: u64,
    },
    /// It serves; probes that failed since the last good one.
    Serving {
        misses: u32,
    },
    /// Running tasks come to their end. Without a time they have as long as they need, which their own limits bound.
    Draining {
        until_ms: Option<u64>,
        then: Then,
    },
    /// Drained, and up.
    Idle,
    /// The engine has been asked to end.
    Stopping {
        kill_at_ms: u64,
        killed: bool,
        then: Then,
    },
    BackingOff {
        until_ms: u64,
    },
    /// `until_ms`: when it is tried again, if it is.
    Failed {
        until_ms: Option<u64>,
        awaits_devices: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Devices,
    Model,
    Engine,
}

/// What comes after the engine has ended or its tasks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing; the engine stays up, where it is up.
    Stay,
    /// The engine is stopped.
    Stop,
    /// Another start, as the last failure asks for.
    Recover,
    /// The reload goes on: the engine is started with the other model.
    Switch,
}

/// The machine of one pool.
#[derive(Clone, Debug)]
pub struct Machine {
    limits: Limits,
    /// The model that is served, or is to be.
    model: String,
    model_bytes: u64,
    state: State,
    /// The work that is under way, and the last ticket that was given out.
    ticket: Ticket,
    issued: Ticket,
    failure: Option<Failure>,
    restarts: Restarts,
    reload: Option<Reload>,
    shutting_down: bool,
}

impl Machine {
    /// A pool that has never been started.
    #[must_use]
    pub fn new(model: String, limits: Limits) -> Self {
        Self {
            limits,
            model,
            model_bytes: 0,
            state: State::Stopped,
            ticket: 0,
            issued: 0,
            failure: None,
            restarts: Restarts::default(),
            reload: None,
            shutting_down: false,
        }
    }

    /// The state for the outside.
    #[must_use]
    pub const fn state(&self) -> PoolState {
        match self.state {
            State::Stopped => PoolState::Stopped,
            State::Preparing(_) => PoolState::Preparing,
            State::Spawning | State::Loading { .. } | State::Testing { .. } => PoolState::Starting,
            State::Serving { .. } => PoolState::Ready,
            State::Draining { .. } | State::Idle => PoolState::Draining,
            State::Stopping { .. } => PoolState::Stopping,
            State::BackingOff { .. } => PoolState::BackingOff,
            State::Failed { .. } => PoolState::Failed,
        }
    }

    /// Whether tasks may be given to the engine.
    #[must_use]
    pub const fn takes_tasks(&self) -> bool {
        matches!(self.state, State::Serving { misses: 0 })
    }

    /// Whether there is, or may be, a process.
    #[must_use]
    pub const fn has_engine(&self) -> bool {
        matches!(
            self.state,
            State::Spawning
                | State::Loading { .. }
                | State::Testing { .. }
                | State::Serving { .. }
                | State::Draining { .. }
                | State::Idle
                | State::Stopping { .. }
        )
    }

    /// Whether the engine is to be asked how it is, and whether somebody waits for the answer.
    #[must_use]
    pub const fn probing(&self) -> Probing {
        match self.state {
            State::Loading { .. } => Probing::Often,
            State::Serving { misses: 0 } | State::Draining { .. } | State::Idle => Probing::Seldom,
            State::Serving { .. } => Probing::Often,
            _ => Probing::Not,
        }
    }

    /// Whether [`Event::Idle`] is waited for.
    #[must_use]
    pub const fn awaits_idle(&self) -> bool {
        matches!(self.state, State::Draining { .. })
    }

    /// Whether the daemon ends, and the pool with it.
    #[must_use]
    pub const fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    /// The model that is served, or is to be.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The work that is under way.
    #[must_use]
    pub const fn ticket(&self) -> Ticket {
        self.ticket
    }

    /// What went wrong last, until it serves again.
    #[must_use]
    pub const fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Times it was started again after a failure.
    #[must_use]
    pub const fn restarts(&self) -> u32 {
        self.restarts.total()
    }

    /// The last reload, or the one under way.
    #[must_use]
    pub const fn reload(&self) -> Option<&Reload> {
        self.reload.as_ref()
    }

    /// When it is tried again after a failure.
    #[must_use]
    pub const fn next_attempt_ms(&self) -> Option<u64> {
        match self.state {
            State::BackingOff { until_ms } | State::Failed { until_ms: Some(until_ms), .. } => Some(until_ms),
            _ => None,
        }
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub const fn wakes_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Loading { until_ms, .. }
            | State::Testing { until_ms }
            | State::Draining { until_ms: Some(until_ms), .. }
            | State::BackingOff { until_ms }
            | State::Failed { until_ms: Some(until_ms), .. } => Some(until_ms),
            State::Stopping { kill_at_ms, killed: false, .. } => Some(kill_at_ms),
            _ => None,
        }
    }

    /// Whether something that somebody asks for may be done now.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub fn check(&self, event: &Event) -> Result<(), Conflict> {
        if self.shutting_down {
            return Err(Conflict::ShuttingDown);
        }
        let reloading = self.reload.as_ref().is_some_and(Reload::is_under_way);
        match (event, &self.state) {
            (Event::Drain { .. } | Event::Stop { .. } | Event::Reload { .. }, _) if reloading => {
                Err(Conflict::Reloading)
            }
            (Event::Reload { .. }, State::Draining { .. } | State::Idle | State::Stopping { .. }) => {
                Err(Conflict::Draining)
            }
            (
                Event::Reload { .. } | Event::Drain { .. },
                State::Preparing(_) | State::Spawning | State::Loading { .. } | State::Testing { .. },
            ) => Err(Conflict::Starting),
            (Event::Drain { .. }, State::Stopping { .. }) => Err(Conflict::Draining),
            (Event::Drain { .. }, State::Stopped | State::BackingOff { .. } | State::Failed { .. }) => {
                Err(Conflict::NotServing)
            }
            _ => Ok(()),
        }
    }

    /// Takes in an event; what is to be done comes out, in order. What [`check`](Self::check) refuses changes nothing.
    pub fn on(&mut self, event: Event, now_ms: u64) -> Vec<Action> {
        let mut todo = Vec::new();
        match event {
            _ if self.check(&event).is_err() && event.is_wish() => {}
            Event::Start => self.start(&mut todo),
            Event::Drain { for_ms } => self.drain(Then::Stay, for_ms, now_ms, &mut todo),
            Event::Stop { for_ms } => self.stop(for_ms, now_ms, &mut todo),
            Event::Reload { model } => self.begin_reload(model, &mut todo),
            Event::ShutDown => self.shut_down(now_ms, &mut todo),
            Event::Staged(ticket, staged) if self.stages_reload(ticket) => self.reload_staged(staged, &mut todo),
            Event::Devices(ticket, _)
            | Event::Staged(ticket, _)
            | Event::Prepared(ticket, _)
            | Event::Spawned(ticket, _)
            | Event::Progress(ticket)
            | Event::Probed(ticket, _)
            | Event::Tested(ticket, _)
            | Event::Faulted(ticket, _)
            | Event::Exited(ticket, _)
                if ticket != self.ticket => {}
            Event::Devices(_, looked) => self.passed(Gate::Devices, looked, now_ms, &mut todo),
            Event::Staged(_, staged) => {
                let staged = staged.map(|bytes| self.model_bytes = bytes);
                self.passed(Gate::Model, staged, now_ms, &mut todo);
            }
            Event::Prepared(_, prepared) => self.passed(Gate::Engine, prepared, now_ms, &mut todo),
            Event::Spawned(_, spawned) => self.spawned(spawned, now_ms, &mut todo),
            Event::Progress(_) => self.progressed(now_ms),
            Event::Probed(_, probe) => self.probed(probe, now_ms, &mut todo),
            Event::Tested(_, tested) => self.tested(tested, now_ms, &mut todo),
            Event::Faulted(_, failure) => self.faulted(failure, now_ms, &mut todo),
            Event::Exited(_, failure) => self.exited(failure, now_ms, &mut todo),
            Event::Idle => self.idle(now_ms, &mut todo),
            Event::DevicesLost(failure) => self.faulted(failure, now_ms, &mut todo),
            Event::DevicesBack => self.devices_back(now_ms, &mut todo),
            Event::Tick => self.tick(now_ms, &mut todo),
        }
        todo
    }

    // Wishes.

    pub(super) fn start(&mut self, todo: &mut Vec<Action>) {
        match self.state {
            State::Stopped | State::BackingOff { .. } | State::Failed { .. } => {
                self.restarts.forget();
                self.prepare(todo);
            }
            State::Draining { then: Then::Stay | Then::Stop, .. } | State::Idle => {
                self.state = State::Serving { misses: 0 };
                todo.push(Action::Open { model: self.model.clone() });
            }
            State::Stopping { then: ref mut then @ (Then::Stay | Then::Stop), .. } => {
                *then = Then::Recover;
                self.failure = None;
                self.restarts.forget();
            }
            _ => {}
        }
    }

    fn drain(&mut self, then: Then, for_ms: u64, now_ms: u64, todo: &mut Vec<Action>) {
        let until_ms = Some(now_ms.saturating_add(for_ms));
        match &mut self.state {
            State::Serving { .. } | State::Idle => {
                self.state = State::Draining { until_ms, then };
                todo.push(Action::Close(if then == Then::Stop { Why::Stop } else { Why::Drain }));
            }
            // The newest wish counts.
            State::Draining { until_ms: until, then: next } => (*until, *next) = (until_ms, then),
            _ => {}
        }
    }

    fn stop(&mut self, for_ms: u64, now_ms: u64, todo: &mut Vec<Action>) {
        match &mut self.state {
            State::Serving { .. } | State::Draining { .. } | State::Idle => {
                self.drain(Then::Stop, for_ms, now_ms, todo);
            }
            State::Preparing(_) => {
                todo.push(Action::Abandon);
                self.rest();
            }
            State::Spawning | State::Loading { .. } | State::Testing { .. } => {
                todo.push(Action::Abandon);
                self.terminate(Then::Stop, now_ms, todo);
            }
            State::Stopping { then, .. } => *then = Then::Stop,
            State::BackingOff { .. } | State::Failed { .. } => self.rest(),
            State::Stopped => {}
        }
    }

    fn shut_down(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        self.shutting_down = true;
        self.end_reload(Err("the orchestrator was stopped"));
        if self.has_engine() {
            todo.push(Action::Abandon);
            match &mut self.state {
                State::Stopping { then, .. } => *then = Then::Stop,
                _ => self.terminate(Then::Stop, now_ms, todo),
            }
        } else {
            todo.push(Action::Abandon);
            self.rest();
        }
    }

    // The way to readiness.

    fn prepare(&mut self, todo: &mut Vec<Action>) {
        self.renew();
        self.state = State::Preparing(Gate::Devices);
        todo.push(Action::CheckDevices(self.ticket));
    }

    fn passed(&mut self, gate: Gate, result: Result<(), Failure>, now_ms: u64, todo: &mut Vec<Action>) {
        if self.state != State::Preparing(gate) {
            return;
        }
        if let Err(failure) = result {
            return self.fail(failure, now_ms, todo);
        }
        match gate {
            Gate::Devices => {
                self.state = State::Preparing(Gate::Model);
                todo.push(Action::Stage { ticket: self.ticket, model: self.model.clone() });
            }
            Gate::Model => {
                self.state = State::Preparing(Gate::Engine);
                todo.push(Action::Prepare(self.ticket));
            }
            Gate::Engine => self.spawn(todo),
        }
    }

    fn spawn(&mut self, todo: &mut Vec<Action>) {
        self.state = State::Spawning;
        todo.push(Action::Spawn { ticket: self.ticket, model: self.model.clone() });
    }

    fn spawned(&mut self, spawned: Result<(), Failure>, now_ms: u64, todo: &mut Vec<Action>) {
        match (&self.state, spawned) {
            (State::Spawning, Ok(())) => {
                let window_ms = self.start_limit_ms();
                let latest_ms = now_ms.saturating_add(window_ms.saturating_mul(LONGEST_START));
                self.state = State::Loading { until_ms: now_ms.saturating_add(window_ms), window_ms, latest_ms };
            }
            (State::Spawning, Err(failure)) => self.fail(failure, now_ms, todo),
            _ => {}
        }
    }

    /// Time it has to become ready: the larger the model, the more.
    fn start_limit_ms(&self) -> u64 {
        let size = u128::from(self.model_bytes) * u128::from(self.limits.start_ms_per_gib) / (1 << 30);
        self.limits.start_ms.saturating_add(u64::try_from(size).unwrap_or(u64::MAX))
    }

    fn progressed(&mut self, now_ms: u64) {
        if let State::Loading { until_ms, window_ms, latest_ms } = &mut self.state {
            *until_ms = now_ms.saturating_add(*window_ms).min(*latest_ms).max(*until_ms);
        }
    }

    fn probed(&mut self, probe: Probe, now_ms: u64, todo: &mut Vec<Action>) {
        match (&mut self.state, probe) {
            (State::Loading { .. }, Probe::Ready) if self.limits.self_test => {
                self.state = State::Testing { until_ms: now_ms.saturating_add(self.start_limit_ms()) };
                todo.push(Action::Test(self.ticket));
            }
            (State::Loading { .. }, Probe::Ready) => self.serve(now_ms, todo),
            (State::Serving { misses }, Probe::Ready) => *misses = 0,
            // An engine that served and now says that it loads has been replaced behind our back, or is confused.
            (State::Serving { misses }, Probe::Loading | Probe::Silent) => {
                *misses += 1;
                if *misses >= self.limits.probe_failures {
                    let failure = Failure::new(
                        PoolFault::Hung,
                        format!(
                            "the engine did not answer {misses} health checks in a row, although its process is alive"
                        ),
                    )
                    .with_fix("it is killed and started again; its log may say more: `llama-orch logs POOL`");
                    self.lose(failure, now_ms, todo);
                }
            }
            _ => {}
        }
    }

    fn tested(&mut self, tested: Result<(), Failure>, now_ms: u64, todo: &mut Vec<Action>) {
        if !matches!(self.state, State::Testing { .. }) {
            return;
        }
        match tested {
            Ok(()) => self.serve(now_ms, todo),
            Err(failure) => self.lose(failure, now_ms, todo),
        }
    }

    fn serve(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        self.state = State::Serving { misses: 0 };
        self.restarts.serves(now_ms);
        self.failure = None;
        self.end_reload(Ok(()));
        todo.push(Action::Open { model: self.model.clone() });
    }

    // Ends, wished for and not.

    /// The engine works no more although its process is there.
    fn faulted(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        match self.state {
            State::Preparing(_) => {
                todo.push(Action::Abandon);
                self.fail(failure, now_ms, todo);
            }
            State::Spawning
            | State::Loading { .. }
            | State::Testing { .. }
            | State::Serving { .. }
            | State::Draining { .. }
            | State::Idle => self.lose(failure, now_ms, todo),
            // What it says while it ends by our wish means nothing; the next start looks at the devices first.
            State::Stopping { .. } | State::Stopped | State::BackingOff { .. } | State::Failed { .. } => {}
        }
    }

    /// Gives up an engine whose process is there.
    fn lose(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        let then = match self.state {
            State::Draining { then: Then::Stop | Then::Stay, .. } | State::Idle => Then::Stop,
            _ => Then::Recover,
        };
        let hung = failure.fault == PoolFault::Hung;
        self.failure = Some(failure);
        todo.push(Action::Abandon);
        self.terminate(then, now_ms, todo);
        // One that does not answer will not end politely either; what it holds is needed.
        if hung && let State::Stopping { killed, .. } = &mut self.state {
            *killed = true;
            todo.push(Action::Kill);
        }
    }

    fn terminate(&mut self, then: Then, now_ms: u64, todo: &mut Vec<Action>) {
        let kill_at_ms = now_ms.saturating_add(self.limits.stop_grace_ms);
        self.state = State::Stopping { kill_at_ms, killed: false, then };
        todo.push(Action::Terminate);
    }

    fn exited(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        match self.state {
            State::Stopping { then, .. } => self.ended(then, now_ms, todo),
            State::Draining { then: Then::Switch, .. } => self.fail(failure, now_ms, todo),
            State::Draining { .. } | State::Idle => {
                self.failure = Some(failure);
                self.rest_with_failure();
            }
            State::Serving { .. } | State::Spawning | State::Loading { .. } | State::Testing { .. } => {
                todo.push(Action::Abandon);
                self.fail(failure, now_ms, todo);
            }
            State::Stopped | State::Preparing(_) | State::BackingOff { .. } | State::Failed { .. } => {}
        }
    }

    /// The engine that was asked to end has ended.
    fn ended(&mut self, then: Then, now_ms: u64, todo: &mut Vec<Action>) {
        if self.shutting_down {
            return self.rest();
        }
        match then {
            Then::Stay | Then::Stop if self.failure.is_some() => self.rest_with_failure(),
            Then::Stay | Then::Stop => self.rest(),
            Then::Switch => self.switch(todo),
            Then::Recover => match self.failure.clone() {
                Some(failure) => self.recover(&failure, now_ms, todo),
                None => self.prepare(todo),
            },
        }
    }

    /// No task runs on the engine.
    fn idle(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        match self.state {
            State::Draining { then: Then::Stay, .. } => self.state = State::Idle,
            State::Draining { then, .. } => self.terminate(then, now_ms, todo),
            _ => {}
        }
    }

    fn devices_back(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        if matches!(self.state, State::Failed { awaits_devices: true, .. }) {
            self.restarts.count(now_ms);
            self.prepare(todo);
        }
    }

    fn tick(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        if self.wakes_at_ms().is_none_or(|due_ms| now_ms < due_ms) {
            return;
        }
        match &mut self.state {
            State::Loading { .. } => {
                let limit = self.start_limit_ms();
                let failure = Failure::new(
                    PoolFault::StartTimeout,
                    format!("the engine did not become ready, and made no progress for {limit} ms"),
                )
                .with_fix(
                    "see what it waits for: `llama-orch logs POOL`; allow more time with supervision.start_timeout_ms",
                );
                self.lose(failure, now_ms, todo);
            }
            State::Testing { .. } => {
                let failure = Failure::new(PoolFault::SelfTestFailed, "the engine's self-test did not come to an end")
                    .with_fix("see its log: `llama-orch logs POOL`");
                self.lose(failure, now_ms, todo);
            }
            State::Draining { until_ms, then } => {
                todo.push(Action::Cut);
                match *then {
                    // What is cut lets go of its slots in a moment, or the engine ends anyway.
                    Then::Stay => *until_ms = None,
                    then => self.terminate(then, now_ms, todo),
                }
            }
            State::Stopping { killed, .. } => {
                *killed = true;
                todo.push(Action::Kill);
            }
            State::BackingOff { .. } | State::Failed { .. } => self.prepare(todo),
            State::Stopped | State::Preparing(_) | State::Spawning | State::Serving { .. } | State::Idle => {}
        }
    }

    // Failures.

    /// Something failed and no process is there.
    fn fail(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        self.recover(&failure, now_ms, todo);
        self.failure = Some(failure);
    }

    fn recover(&mut self, failure: &Failure, now_ms: u64, todo: &mut Vec<Action>) {
        if self.shutting_down {
            return self.rest_with_failure();
        }
        if self.roll_back(failure) {
            // The old model worked a moment ago: nobody has to wait for it.
            return self.prepare(todo);
        }
        self.renew();
        self.state = match failure.remedy() {
            Remedy::Never => State::Failed { until_ms: None, awaits_devices: false },
            // Nobody may be there to tell that they are back.
            Remedy::AwaitDevices => State::Failed {
                until_ms: Some(now_ms.saturating_add(self.limits.backoff_max_ms)),
                awaits_devices: true,
            },
            Remedy::Retry => match self.restarts.next(&self.limits, now_ms) {
                Some(pause_ms) => State::BackingOff { until_ms: now_ms.saturating_add(pause_ms) },
                None => State::Failed {
                    until_ms: Some(now_ms.saturating_add(self.limits.circuit_window_ms)),
                    awaits_devices: false,
                },
            },
        };
    }

    /// Stopped, with nothing to complain about.
    fn rest(&mut self) {
        self.failure = None;
        self.rest_with_failure();
    }

    fn rest_with_failure(&mut self) {
        self.renew();
        self.state = State::Stopped;
    }

    /// What is under way belongs to the past.
    fn renew(&mut self) {
        self.ticket = self.issue();
    }

    fn issue(&mut self) -> Ticket {
        self.issued += 1;
        self.issued
    }
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
    const fn is_wish(&self) -> bool {
        matches!(self, Self::Start | Self::Drain { .. } | Self::Stop { .. } | Self::Reload { .. })
    }
}

#[cfg(test)]
mod tests;
