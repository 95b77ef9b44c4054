//! One round: the plan, and what it means.

use std::sync::Arc;

use api_types::{PoolFault, PoolId, PoolState};
use orchestrator_core::Scheduler;
use orchestrator_core::policy::Trouble;
use orchestrator_core::residency::{Limits, Part, Plan, Stage, Step, plan};
use orchestrator_core::scheduler::Action;
use pool_managerd::failure::Failure;

use super::memory::Seen;
use super::state::State;
use crate::app::App;
use crate::narrate;
use crate::pools::Pool;

/// Longest that tasks wait for memory which nothing of ours can free, before the load counts as failed, in milliseconds.
const PATIENCE_MS: u64 = 30_000;
/// A prediction that moves by less, in percent, is not told anew.
const STEADY_PERCENT: u64 = 5;

/// What a driver is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Start,
    Unload,
}

/// Why an engine is unloaded; the `reason` label of `pool_unloads_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unloaded<'a> {
    /// Another pool needs the memory.
    For(&'a PoolId),
    /// It was idle for as long as it may be.
    Idle,
    /// Nobody waits for its load any more.
    Unwanted,
}

impl Unloaded<'_> {
    /// As a label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::For(_) => "evicted",
            Self::Idle => "idle",
            Self::Unwanted => "unwanted",
        }
    }
}

impl App {
    /// Makes a plan and carries it out. Whether memory is on the move, so that readings are wanted soon.
    pub(super) fn plan_residency(self: &Arc<Self>) -> bool {
        let now_ms = self.clock.now_ms();
        let limits = Limits { age_limit_ms: self.config.swap.age_limit_ms };
        let mut state = self.residency.lock();
        state.read_devices(self);
        state.learn(&self.residency.learned);
        state.drop_called_off();
        for index in 0..state.tenants.len() {
            if !state.ledger.has_claim(index) {
                state.find_need(index, self, &self.residency.learned);
                state.adopt(index, now_ms);
            }
        }
        state.take_over(now_ms);
        let mut scheduler = self.scheduler();
        let tenants: Vec<_> = state
            .tenants
            .iter()
            .map(|tenant| {
                let demand = scheduler.demand_on(&tenant.pool.id, now_ms);
                tenant.tenant(&demand.expect("the scheduler knows every configured pool"))
            })
            .collect();
        let plan = plan(&mut state.ledger, &tenants, limits, now_ms);
        let mut round = Round { app: self, now_ms, wishes: Vec::new(), actions: Vec::new() };
        round.tell_cold(&mut state, &mut scheduler, &plan);
        round.carry_out(&mut state, &mut scheduler, &plan);
        let moves = |tenant: &super::state::PoolTenant| {
            matches!(tenant.stage(), Stage::Asking | Stage::Loading { .. } | Stage::Leaving)
                || tenant.unlearned_ms.is_some()
        };
        let busy = state.tenants.iter().any(moves);
        let Round { wishes, actions, .. } = round;
        drop(scheduler);
        drop(state);
        if !actions.is_empty() {
            self.carry_out(actions);
        }
        for (pool, wish) in wishes {
            self.send(pool, wish);
        }
        busy
    }

    /// Tells a pool's driver what is wished of it.
    fn send(self: &Arc<Self>, pool: Arc<Pool>, wish: Wish) {
        let app = Arc::clone(self);
        tokio::spawn(async move {
            let answer = match (pool.manager(), wish) {
                (Some(handle), Wish::Start) => handle.start().await,
                (Some(handle), Wish::Unload) => handle.unload().await,
                (None, _) => Ok(()),
            };
            if let Some(tenant) = app.residency.lock().tenant_mut(&pool.id) {
                tenant.wishes = false;
            }
            if answer.is_err() && wish == Wish::Unload {
                app.unload_refused(&pool.id);
            }
            app.residency.nudge();
        });
    }

    /// A pool's driver does not unload its engine: it goes on.
    pub(super) fn unload_refused(self: &Arc<Self>, pool: &PoolId) {
        let opens = {
            let mut state = self.residency.lock();
            let Some(tenant) = state.tenant_mut(pool) else { return };
            tenant.unloading = false;
            tenant.report.as_ref().is_some_and(|report| report.takes_tasks)
        };
        if opens {
            let actions = self.scheduler().set_cold(pool, None, self.clock.now_ms());
            self.carry_out(actions);
        }
    }
}

impl State {
    /// Engines that are there already have what they hold.
    fn take_over(&mut self, now_ms: u64) {
        for index in 0..self.tenants.len() {
            let tenant = &mut self.tenants[index];
            if tenant.asking.is_some() && std::mem::take(&mut tenant.takes_over) {
                let need = tenant.need.clone();
                self.ledger.claim(index, &need);
                self.granted(index, now_ms);
            }
        }
    }

    /// Starts that were called off ask for nothing any more.
    fn drop_called_off(&mut self) {
        for tenant in &mut self.tenants {
            if tenant.asking.as_ref().is_some_and(|asking| asking.reply.is_closed()) {
                (tenant.asking, tenant.is_next) = (None, false);
            }
        }
    }
}

/// What comes of a plan.
struct Round<'a> {
    app: &'a Arc<App>,
    now_ms: u64,
    wishes: Vec<(Arc<Pool>, Wish)>,
    actions: Vec<Action>,
}

impl Round<'_> {
    fn carry_out(&mut self, state: &mut State, scheduler: &mut Scheduler, plan: &Plan) {
        for step in &plan.steps {
            match step {
                Step::Begin(index) => self.wish(state, *index, Wish::Start),
                Step::Grant(index) => state.granted(*index, self.now_ms),
                Step::Short(index, lacking) => self.short(state, *index, lacking),
                Step::Fence { tenant, for_tenant } => {
                    state.tenants[*for_tenant].is_next = true;
                    self.fence(state, scheduler, plan, *tenant);
                }
                Step::Unfence(index) => {
                    state.tenants[*index].fenced = false;
                    let id = state.tenants[*index].pool.id.clone();
                    self.actions.extend(scheduler.set_cold(&id, None, self.now_ms));
                }
                Step::Evict { tenant, for_tenant } => {
                    state.tenants[*for_tenant].is_next = true;
                    let by = state.tenants[*for_tenant].pool.id.clone();
                    self.unload(state, scheduler, plan, *tenant, Unloaded::For(&by));
                }
                Step::Unload(index) => self.unload(state, scheduler, plan, *index, Unloaded::Idle),
                Step::Abort(index) => self.unload(state, scheduler, plan, *index, Unloaded::Unwanted),
            }
        }
    }

    fn wish(&mut self, state: &mut State, index: usize, wish: Wish) {
        let tenant = &mut state.tenants[index];
        if !tenant.wishes {
            tenant.wishes = true;
            self.wishes.push((Arc::clone(&tenant.pool), wish));
        }
    }

    /// From here on it starts no task. Who holds the scheduler knows that none was started meanwhile.
    fn close(&mut self, state: &State, scheduler: &mut Scheduler, plan: &Plan, index: usize) {
        let tenant = &state.tenants[index];
        let ready_in_ms = plan.ready_in_ms[index].unwrap_or(tenant.load_guess_ms);
        let cold = tenant.cold_start(ready_in_ms, self.now_ms);
        self.actions.extend(scheduler.set_cold(&tenant.pool.id, Some(cold), self.now_ms));
    }

    fn fence(&mut self, state: &mut State, scheduler: &mut Scheduler, plan: &Plan, index: usize) {
        if state.tenants[index].swappable {
            self.close(state, scheduler, plan, index);
            state.tenants[index].fenced = true;
            narrate::fenced(&state.tenants[index].pool);
        }
    }

    fn unload(&mut self, state: &mut State, scheduler: &mut Scheduler, plan: &Plan, index: usize, why: Unloaded<'_>) {
        if state.tenants[index].wishes || !state.tenants[index].swappable {
            return;
        }
        self.close(state, scheduler, plan, index);
        let tenant = &mut state.tenants[index];
        (tenant.unloading, tenant.fenced) = (matches!(tenant.stage(), Stage::Serving { .. }), false);
        tenant.unload_since_ms = tenant.unloading.then_some(self.now_ms);
        self.app.metrics.unloaded(tenant.pool.id.as_str(), why.label());
        narrate::unloads(&tenant.pool, why);
        self.wish(state, index, Wish::Unload);
    }

    /// Nothing of ours can make room for it.
    fn short(&mut self, state: &mut State, index: usize, lacking: &[Part]) {
        let never = lacking.iter().any(|part| {
            let needed: u64 =
                state.tenants[index].need.iter().filter(|need| need.device == part.device).map(|need| need.bytes).sum();
            needed > state.ledger.room(part.device)
        });
        let tenant = &mut state.tenants[index];
        let (Some(asking), Some(model)) = (&mut tenant.asking, &tenant.model) else { return };
        let since_ms = *asking.short_since_ms.get_or_insert(self.now_ms);
        let config = &tenant.pool.config;
        let seen = Seen::of(self.app, &tenant.pool);
        let masked = seen.as_ref().and_then(|seen| seen.masked(config));
        let misfit = masked.and_then(|(found, mask)| found.check_fit(&mask, config, model, false).err());
        let shares = |part: &Part| tenant.need.iter().any(|need| need.device == part.device);
        if misfit.is_none() && !tenant.need_is_measured && !state.ledger.has_others(index, shares) {
            // What a header says is an upper bound. Where nobody else of ours could be hurt it is tried.
            let need = tenant.need.clone();
            state.ledger.claim(index, &need);
            return state.granted(index, self.now_ms);
        }
        let failure = misfit.unwrap_or_else(|| shortage(model.reference.as_str(), lacking, self.app));
        let waits = tenant.swappable && !never && self.now_ms.saturating_sub(since_ms) < PATIENCE_MS;
        if waits {
            return asking.activity.set(format!("waiting for memory: {}", failure.message), None);
        }
        tenant.is_next = false;
        if let Some(asking) = tenant.asking.take() {
            let fault = if never { PoolFault::TooLarge } else { failure.fault };
            // Whoever asked may have been called off.
            let _ = asking.reply.send(Err(Failure { fault, ..failure }));
        }
    }

    /// Tells placement when pools that are not loaded would be, and why those that failed are not.
    fn tell_cold(&mut self, state: &mut State, scheduler: &mut Scheduler, plan: &Plan) {
        for (index, tenant) in state.tenants.iter().enumerate() {
            let id = &tenant.pool.id;
            let report = tenant.report.as_ref();
            let failure = report.and_then(|report| report.failure.as_ref()).or(tenant.never.as_ref());
            let is_final =
                report.is_some_and(|report| report.state == PoolState::Failed && report.next_attempt.is_none());
            let lasting = is_final || tenant.never.is_some();
            let stopped = report.filter(|report| report.state == PoolState::Stopped);
            let text = failure.map(ToString::to_string).or_else(|| {
                stopped.map(|_| format!("somebody has stopped it; `llama-orch pools start {id}` starts it again"))
            });
            let trouble = text.map(|text| Trouble { text: text.into(), lasting });
            let view = scheduler.pool(id).map(|view| (view.snapshot.trouble.clone(), view.snapshot.cold));
            let Some((told, cold)) = view else { continue };
            if told != trouble {
                scheduler.set_trouble(id, trouble);
            }
            // Nobody waits for a load that does not come.
            let given_up = lasting || (tenant.swappable && tenant.state() == PoolState::Failed);
            if given_up && failure.is_some() && view_is_closed(scheduler, id) {
                self.actions.extend(scheduler.give_up(id, self.now_ms));
            }
            if !tenant.swappable || (matches!(tenant.stage(), Stage::Serving { .. }) && !tenant.fenced) {
                continue;
            }
            let pause = report.and_then(|report| report.next_attempt);
            let pause = pause.map_or(0, |at| at.saturating_duration_since(tokio::time::Instant::now()).as_millis());
            let pause_ms = u64::try_from(pause).unwrap_or(u64::MAX);
            let ready_in_ms = plan.ready_in_ms[index].map(|ready_ms| ready_ms.saturating_add(pause_ms));
            let new = ready_in_ms.map(|ready_ms| tenant.cold_start(ready_ms, self.now_ms));
            let is_news = match (cold, new) {
                (Some(before), Some(new)) => {
                    let (was_ms, is_ms) = (before.wait_ms(self.now_ms), new.wait_ms(self.now_ms));
                    was_ms.abs_diff(is_ms).saturating_mul(100) > is_ms.saturating_mul(STEADY_PERCENT)
                        || before.measured != new.measured
                }
                (before, new) => before != new,
            };
            if is_news {
                self.actions.extend(scheduler.set_cold(id, new, self.now_ms));
            }
        }
    }
}

/// Whether a pool takes no tasks, and others still wait for it.
fn view_is_closed(scheduler: &Scheduler, id: &PoolId) -> bool {
    scheduler
        .pool(id)
        .is_some_and(|view| view.snapshot.queued > 0 && !view.snapshot.ready && view.snapshot.cold.is_none())
}

/// The failure of a model for which other pools and the reserve leave too little.
fn shortage(model: &str, lacking: &[Part], app: &App) -> Failure {
    let bytes: u64 = lacking.iter().map(|part| part.bytes).sum();
    let message = format!(
        "{model} needs {} MiB of GPU memory more than other pools, other programs and the reserve of {} MiB leave",
        bytes.div_ceil(1 << 20),
        app.config.swap.vram_reserve_mb
    );
    Failure::new(PoolFault::VramExhausted, message).with_fix(
        "stop or unload another pool, take `keep` from one, or make ctx, slots, the model or swap.vram_reserve_mb smaller",
    )
}
