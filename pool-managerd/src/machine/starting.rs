//! The way to readiness: devices, weights, engine, memory, process, probe, self-test.

use api_types::PoolFault;

use super::{Action, Gate, Machine, Probe, State};
use crate::failure::Failure;

/// Start deadlines move on progress, but not for ever: no start takes longer than so many times its own limit.
const LONGEST_START: u64 = 8;

impl Machine {
    pub(super) fn prepare(&mut self, todo: &mut Vec<Action>) {
        self.renew();
        self.state = State::Preparing(Gate::Devices);
        todo.push(Action::CheckDevices(self.ticket));
    }

    pub(super) fn passed(&mut self, gate: Gate, result: Result<(), Failure>, now_ms: u64, todo: &mut Vec<Action>) {
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
            Gate::Engine => self.reserve(todo),
            Gate::Memory => self.spawn(todo),
        }
    }

    pub(super) fn reserve(&mut self, todo: &mut Vec<Action>) {
        self.state = State::Preparing(Gate::Memory);
        todo.push(Action::Reserve { ticket: self.ticket, model: self.model.clone() });
    }

    pub(super) fn spawn(&mut self, todo: &mut Vec<Action>) {
        self.state = State::Spawning;
        todo.push(Action::Spawn { ticket: self.ticket, model: self.model.clone() });
    }

    pub(super) fn spawned(&mut self, spawned: Result<(), Failure>, now_ms: u64, todo: &mut Vec<Action>) {
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
    pub(super) fn start_limit_ms(&self) -> u64 {
        let size = u128::from(self.model_bytes) * u128::from(self.limits.start_ms_per_gib) / (1 << 30);
        self.limits.start_ms.saturating_add(u64::try_from(size).unwrap_or(u64::MAX))
    }

    pub(super) fn progressed(&mut self, now_ms: u64) {
        if let State::Loading { until_ms, window_ms, latest_ms } = &mut self.state {
            *until_ms = now_ms.saturating_add(*window_ms).min(*latest_ms).max(*until_ms);
        }
    }

    pub(super) fn probed(&mut self, probe: Probe, now_ms: u64, todo: &mut Vec<Action>) {
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

    pub(super) fn tested(&mut self, tested: Result<(), Failure>, now_ms: u64, todo: &mut Vec<Action>) {
        if !matches!(self.state, State::Testing { .. }) {
            return;
        }
        match tested {
            Ok(()) => self.serve(now_ms, todo),
            Err(failure) => self.lose(failure, now_ms, todo),
        }
    }

    pub(super) fn serve(&mut self, now_ms: u64, todo: &mut Vec<Action>) {
        self.state = State::Serving { misses: 0 };
        self.restarts.serves(now_ms);
        self.failure = None;
        self.end_reload(Ok(()));
        todo.push(Action::Open { model: self.model.clone() });
    }
}
