//! What somebody wants of a pool.

use super::{Action, Machine, State, Then, Why};

impl Machine {
    pub(super) fn start(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        self.on_call = self.lazy;
        match self.state {
            State::Stopped | State::BackingOff { .. } | State::Failed { .. } => {
                self.restarts.forget();
                self.prepare(todo);
            }
            State::Draining { then: Then::Stay | Then::Stop | Then::Unload, .. } | State::Idle => {
                self.state = State::Serving { misses: 0 };
                todo.push(Action::Open { model: self.model.clone() });
            }
            State::Parking { .. } => {
                todo.push(Action::Abandon);
                self.failure = None;
                self.restarts.forget();
                self.terminate(Then::Recover, now_ms, todo);
            }
            State::Stopping { then: ref mut then @ (Then::Stay | Then::Stop | Then::Unload), .. } => {
                *then = Then::Recover;
                self.failure = None;
                self.restarts.forget();
            }
            _ => {}
        }
    }

    pub(super) fn drain(&mut self, then: Then, for_ms: Option<u64>, now_ms: u64, todo: &mut Vec<Action>) {
        let until_ms = for_ms.map(|for_ms| now_ms.saturating_add(for_ms));
        match &mut self.state {
            State::Serving { .. } | State::Idle => {
                self.state = State::Draining { until_ms, then };
                todo.push(Action::Close(match then {
                    Then::Stop => Why::Stop,
                    Then::Unload => Why::Unload,
                    Then::Stay | Then::Recover | Then::Switch => Why::Drain,
                }));
            }
            // The newest wish counts.
            State::Draining { until_ms: until, then: next } => (*until, *next) = (until_ms, then),
            _ => {}
        }
    }

    /// Has the engine end, for `Then::Stop` or `Then::Unload`. What runs has `for_ms`, or as long as it needs.
    pub(super) fn stop(&mut self, then: Then, for_ms: Option<u64>, now_ms: u64, todo: &mut Vec<Action>) {
        self.on_call = then == Then::Unload;
        match &mut self.state {
            State::Serving { .. } | State::Draining { .. } | State::Idle => {
                self.drain(then, for_ms, now_ms, todo);
            }
            State::Preparing(_) => {
                todo.push(Action::Abandon);
                self.rest();
            }
            State::Spawning | State::Loading { .. } | State::Testing { .. } => {
                todo.push(Action::Abandon);
                self.terminate(then, now_ms, todo);
            }
            State::Parking { .. } if then == Then::Unload => {}
            State::Parking { .. } => {
                todo.push(Action::Abandon);
                self.terminate(then, now_ms, todo);
            }
            State::Stopping { then: next, .. } => *next = then,
            State::BackingOff { .. } | State::Failed { .. } => self.rest(),
            State::Stopped => {}
        }
    }

    pub(super) fn shut_down(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
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
}
