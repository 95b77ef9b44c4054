//! Ends of engines, wished for and not, and what comes after them.

use api_types::PoolFault;

use super::{Action, Machine, State, Then, Ticket};
use crate::failure::{Failure, Remedy};

impl Machine {
    /// The engine works no more although its process is there.
    pub(super) fn faulted(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
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
            | State::Idle
            | State::Parking { .. } => self.lose(failure, now_ms, todo),
            // What it says while it ends by our wish means nothing; the next start looks at the devices first.
            State::Stopping { .. } | State::Stopped | State::BackingOff { .. } | State::Failed { .. } => {}
        }
    }

    /// Gives up an engine whose process is there.
    pub(super) fn lose(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        let then = match self.state {
            State::Draining { then: Then::Stop | Then::Stay, .. } | State::Idle => Then::Stop,
            State::Draining { then: Then::Unload, .. } | State::Parking { .. } => Then::Unload,
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

    pub(super) fn terminate(&mut self, then: Then, now_ms: u64, todo: &mut Vec<Action>) {
        let kill_at_ms = now_ms.saturating_add(self.limits.stop_grace_ms);
        self.state = State::Stopping { kill_at_ms, killed: false, then };
        todo.push(Action::Terminate);
    }

    pub(super) fn exited(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        match self.state {
            State::Stopping { then, .. } => self.ended(then, now_ms, todo),
            State::Draining { then: Then::Switch, .. } => self.fail(failure, now_ms, todo),
            // It was to end anyway.
            State::Draining { then: Then::Unload, .. } | State::Parking { .. } => {
                todo.push(Action::Abandon);
                self.rest();
            }
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
    pub(super) fn ended(&mut self, then: Then, now_ms: u64, todo: &mut Vec<Action>) {
        if self.shutting_down {
            return self.rest();
        }
        match then {
            Then::Unload => self.rest(),
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
    pub(super) fn idle(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        match self.state {
            State::Draining { then: Then::Stay, .. } => self.state = State::Idle,
            State::Draining { then: Then::Unload, .. } => {
                self.state = State::Parking { until_ms: now_ms.saturating_add(self.limits.park_ms) };
                todo.push(Action::Park(self.ticket));
            }
            State::Draining { then, .. } => self.terminate(then, now_ms, todo),
            _ => {}
        }
    }

    /// What the engine can keep of its sessions is kept.
    pub(super) fn parked(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        if matches!(self.state, State::Parking { .. }) {
            self.terminate(Then::Unload, now_ms, todo);
        }
    }

    pub(super) fn devices_back(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        if matches!(self.state, State::Failed { awaits_devices: true, .. }) {
            self.restarts.count(now_ms);
            self.prepare(todo);
        }
    }

    pub(super) fn tick(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
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
            State::Parking { .. } => {
                todo.push(Action::Abandon);
                self.terminate(Then::Unload, now_ms, todo);
            }
            State::Stopping { killed, .. } => {
                *killed = true;
                todo.push(Action::Kill);
            }
            State::BackingOff { .. } | State::Failed { .. } => self.prepare(todo),
            State::Stopped | State::Preparing(_) | State::Spawning | State::Serving { .. } | State::Idle => {}
        }
    }

    /// Something failed and no process is there.
    pub(super) fn fail(&mut self, failure: Failure, now_ms: u64, todo: &mut Vec<Action>) {
        self.recover(&failure, now_ms, todo);
        self.failure = Some(failure);
    }

    pub(super) fn recover(&mut self, failure: &Failure, now_ms: u64, todo: &mut Vec<Action>) {
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
    pub(super) fn rest(&mut self) {
        self.failure = None;
        self.rest_with_failure();
    }

    pub(super) fn rest_with_failure(&mut self) {
        self.renew();
        self.state = State::Stopped;
    }

    /// What is under way belongs to the past.
    pub(super) fn renew(&mut self) {
        self.ticket = self.issue();
    }

    pub(super) fn issue(&mut self) -> Ticket {
        self.issued += 1;
        self.issued
    }
}
