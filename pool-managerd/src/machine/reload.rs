//! Another model for a pool that serves (ORCH-3031.2, ORCH-3038.1, LO-POOL-01): all or nothing.
//!
//! The new model is staged while the old one serves. Then the running tasks come to their end, which their own limits bound;
//! nothing is cut. Only when none runs is the engine exchanged, and if the new one does not come to serve, the old one is brought back.

use api_types::ReloadState;

use super::{Action, Machine, State, Then, Ticket, Why};
use crate::failure::Failure;

/// The last reload of a pool, or the one that is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    /// The model that was asked for.
    pub new: String,
    /// The model before.
    pub old: String,
    /// How it stands.
    pub state: ReloadState,
    /// Why it failed.
    pub error: Option<String>,
    /// The work that stages the new model, where the old one served meanwhile.
    pub(super) ticket: Option<Ticket>,
    /// Size of the new model, once staged, and of the old one.
    new_bytes: u64,
    old_bytes: u64,
}

impl Reload {
    /// Whether it has not come to its end.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        matches!(self.state, ReloadState::Staging | ReloadState::Draining | ReloadState::Starting)
    }
}

impl Machine {
    pub(super) fn begin_reload(&mut self, model: String, now_ms: u64, todo: &mut Vec<Action>) {
        let serving = matches!(self.state, State::Serving { .. });
        // The ticket of the engine that serves stays valid: its probes and its end are still wanted.
        let ticket = serving.then(|| self.issue());
        self.reload = Some(Reload {
            old: self.model.clone(),
            new: model.clone(),
            state: if serving { ReloadState::Staging } else { ReloadState::Starting },
            error: None,
            ticket,
            new_bytes: 0,
            old_bytes: self.model_bytes,
        });
        match ticket {
            Some(ticket) => todo.push(Action::Stage { ticket, model }),
            None => {
                self.model = model;
                self.start(now_ms, todo);
            }
        }
    }

    /// Whether a staged model is that of the reload under way.
    pub(super) fn stages_reload(&self, ticket: Ticket) -> bool {
        self.reload.as_ref().is_some_and(|reload| reload.state == ReloadState::Staging && reload.ticket == Some(ticket))
    }

    pub(super) fn reload_staged(&mut self, staged: Result<u64, Failure>, todo: &mut Vec<Action>) {
        match (staged, &self.state) {
            (Ok(bytes), State::Serving { .. }) => {
                if let Some(reload) = &mut self.reload {
                    reload.new_bytes = bytes;
                    reload.state = ReloadState::Draining;
                }
                self.state = State::Draining { until_ms: None, then: Then::Switch };
                todo.push(Action::Close(Why::Reload));
            }
            (Ok(_), _) => self.end_reload(Err("the pool stopped serving while the new model was staged")),
            (Err(failure), _) => self.end_reload(Err(&failure.to_string())),
        }
    }

    /// The old engine is gone; the new one is started.
    pub(super) fn switch(&mut self, todo: &mut Vec<Action>) {
        if let Some(reload) = &mut self.reload {
            reload.state = ReloadState::Starting;
            self.model.clone_from(&reload.new);
            self.model_bytes = reload.new_bytes;
        }
        self.renew();
        self.reserve(todo);
    }

    /// If a reload is under way, it has failed: the old model it is again. Whether there was one to go back to.
    pub(super) fn roll_back(&mut self, failure: &Failure) -> bool {
        let Some(reload) = self.reload.as_mut().filter(|reload| reload.is_under_way()) else { return false };
        let switched = self.model == reload.new;
        self.model.clone_from(&reload.old);
        self.model_bytes = reload.old_bytes;
        // A pool that did not serve before has nothing that worked a moment ago.
        let served_before = reload.ticket.is_some();
        self.end_reload(Err(&failure.to_string()));
        switched && served_before
    }

    pub(super) fn end_reload(&mut self, outcome: Result<(), &str>) {
        let Some(reload) = self.reload.as_mut().filter(|reload| reload.is_under_way()) else { return };
        match outcome {
            Ok(()) => reload.state = ReloadState::Done,
            Err(why) => {
                reload.state = ReloadState::RolledBack;
                reload.error = Some(why.to_owned());
            }
        }
    }
}
