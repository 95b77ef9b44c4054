//! A pool as a state machine: what has happened goes in, what is to be done comes out.
//!
//! It is pure: it does no I/O, reads no clock and draws no random number, so that every story of a pool can be told in a test.
//! Times are milliseconds on the caller's clock. The driver ([`crate::pool`]) carries out the actions, in order, and feeds back
//! what came of them.
//!
//! Work that takes time (looking at devices, staging a model, preparing an engine, starting it, testing it) belongs to a ticket. What
//! comes back with an old ticket is about something that is no longer wanted, and changes nothing.

mod ending;
mod reload;
mod restarts;
mod starting;
mod wishes;
mod words;

use api_types::PoolState;

pub use self::reload::Reload;
use self::restarts::Restarts;
pub use self::words::{Action, Conflict, Event, Limits, Probe, Probing, Ticket, Why};
use crate::failure::Failure;

#[derive(Clone, Debug, PartialEq)]
enum State {
    Stopped,
    /// Devices, model, engine and memory, in this order (ORCH-3504).
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
    /// Drained; its sessions are put away before it is unloaded.
    Parking {
        until_ms: u64,
    },
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
    Memory,
}

/// What comes after the engine has ended or its tasks have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Nothing; the engine stays up, where it is up.
    Stay,
    /// The engine is stopped.
    Stop,
    /// The engine is unloaded; it comes back when it is asked for.
    Unload,
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
    /// It is loaded when it is asked for.
    lazy: bool,
    /// Without an engine it waits to be asked for, rather than for somebody to start it.
    on_call: bool,
    shutting_down: bool,
}

impl Machine {
    /// A pool that has never been started. One that is `lazy` waits to be asked for, unless somebody stops it.
    #[must_use]
    pub fn new(model: String, lazy: bool, limits: Limits) -> Self {
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
            lazy,
            on_call: lazy,
            shutting_down: false,
        }
    }

    /// The state for the outside.
    #[must_use]
    pub const fn state(&self) -> PoolState {
        match self.state {
            State::Stopped if self.on_call && self.failure.is_none() => PoolState::Cold,
            State::Stopped => PoolState::Stopped,
            State::Preparing(_) => PoolState::Preparing,
            State::Spawning | State::Loading { .. } | State::Testing { .. } => PoolState::Starting,
            State::Serving { .. } => PoolState::Ready,
            State::Draining { .. } | State::Idle => PoolState::Draining,
            State::Parking { .. } | State::Stopping { .. } => PoolState::Stopping,
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
                | State::Parking { .. }
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
            | State::Parking { until_ms }
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
            (Event::Drain { .. } | Event::Stop { .. } | Event::Unload | Event::Reload { .. }, _) if reloading => {
                Err(Conflict::Reloading)
            }
            (
                Event::Reload { .. },
                State::Draining { .. } | State::Idle | State::Parking { .. } | State::Stopping { .. },
            ) => Err(Conflict::Draining),
            (
                Event::Reload { .. } | Event::Drain { .. },
                State::Preparing(_) | State::Spawning | State::Loading { .. } | State::Testing { .. },
            ) => Err(Conflict::Starting),
            (Event::Drain { .. }, State::Parking { .. } | State::Stopping { .. }) => Err(Conflict::Draining),
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
            Event::Start => self.start(now_ms, &mut todo),
            Event::Drain { for_ms } => self.drain(Then::Stay, Some(for_ms), now_ms, &mut todo),
            Event::Stop { for_ms } => self.stop(Then::Stop, Some(for_ms), now_ms, &mut todo),
            Event::Unload => self.stop(Then::Unload, None, now_ms, &mut todo),
            Event::Reload { model } => self.begin_reload(model, now_ms, &mut todo),
            Event::ShutDown => self.shut_down(now_ms, &mut todo),
            Event::Staged(ticket, staged) if self.stages_reload(ticket) => self.reload_staged(staged, &mut todo),
            Event::Devices(ticket, _)
            | Event::Staged(ticket, _)
            | Event::Prepared(ticket, _)
            | Event::Reserved(ticket, _)
            | Event::Parked(ticket)
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
            Event::Reserved(_, reserved) => self.passed(Gate::Memory, reserved, now_ms, &mut todo),
            Event::Parked(_) => self.parked(now_ms, &mut todo),
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
}

#[cfg(test)]
mod tests;
