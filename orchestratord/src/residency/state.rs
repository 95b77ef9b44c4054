//! How things stand: the ledger, and every pool whose engine is run for us.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api_types::{PoolFault, PoolId, PoolState, ReloadState};
use config_schema::Activation;
use orchestrator_core::policy::ColdStart;
use orchestrator_core::residency::{Ledger, Part, Stage, Tenant};
use orchestrator_core::scheduler::PoolDemand;
use pool_managerd::failure::Failure;
use pool_managerd::pool::{Activity, PoolReport, StagedModel};
use tokio::sync::oneshot;

use super::learned::Loads;
use crate::pools::{Pool, Pools};

/// Time that the driver takes to give memory back, before it was measured, in milliseconds.
const UNLOAD_MS: u64 = 1_000;
/// A load before it was measured: this, and the time that reading the model takes at so many bytes per millisecond.
const LOAD_MS: u64 = 3_000;
const LOAD_BYTES_PER_MS: u64 = 500_000;

/// Who has which memory.
pub(super) struct State {
    pub(super) ledger: Ledger,
    /// The ledger's numbers of devices: by host (`None` is this one) and id.
    pub(super) devices: HashMap<DeviceKey, usize>,
    /// When the devices of each host were looked at last.
    pub(super) taken: HashMap<Option<String>, Instant>,
    pub(super) tenants: Vec<PoolTenant>,
    by_id: HashMap<PoolId, usize>,
}

/// A host, `None` for this one, and the id of one of its devices.
pub(super) type DeviceKey = (Option<String>, String);

/// A pool, and what is known of its engine.
pub(super) struct PoolTenant {
    pub(super) pool: Arc<Pool>,
    /// It may be unloaded and loaded again: by its configuration, or because somebody had it unloaded.
    pub(super) swappable: bool,
    pub(super) report: Option<PoolReport>,
    /// Its start waits for memory.
    pub(super) asking: Option<Asking>,
    /// The engine that it is about to start is there already.
    pub(super) takes_over: bool,
    /// Its engine was seen to start since memory was promised.
    started: bool,
    pub(super) load_since_ms: Option<u64>,
    serving_since_ms: u64,
    pub(super) unload_since_ms: Option<u64>,
    /// The time of its last load, until the memory that it took was read, too.
    pub(super) unlearned_ms: Option<u64>,
    pub(super) wanted: bool,
    /// Its engine was told to end.
    pub(super) unloading: bool,
    pub(super) fenced: bool,
    /// Others make room for it.
    pub(super) is_next: bool,
    /// A wish was sent to its driver, which has not answered yet.
    pub(super) wishes: bool,
    /// The model that was staged last, or that the pool has.
    pub(super) model: Option<StagedModel>,
    /// What was learned of such loads, and of which.
    pub(super) known: Option<(String, Option<Loads>)>,
    /// What a load needs at least, device by device, and which: with so much it has failed for want of memory.
    pub(super) floor: Option<(String, Vec<u64>)>,
    /// Its devices are too small for it, whoever uses them.
    pub(super) never: Option<Failure>,
    pub(super) need_is_measured: bool,
    /// What it needs of its devices, in the order of the configuration; empty while that is not known.
    pub(super) need: Vec<Part>,
    pub(super) load_guess_ms: u64,
    pub(super) load_is_measured: bool,
    unload_ms: u64,
}

/// A start that waits for memory.
pub(super) struct Asking {
    pub(super) reply: oneshot::Sender<Result<(), Failure>>,
    pub(super) activity: Activity,
    /// Since when nothing of ours can make room.
    pub(super) short_since_ms: Option<u64>,
}

/// A load that has come to its end.
pub(super) struct LoadDone {
    pub(super) took_ms: u64,
}

impl State {
    pub(super) fn new(pools: &Pools) -> Self {
        let tenants: Vec<_> = pools.iter().filter(|pool| pool.config.is_managed()).map(PoolTenant::new).collect();
        let by_id = tenants.iter().enumerate().map(|(index, tenant)| (tenant.pool.id.clone(), index)).collect();
        Self { ledger: Ledger::default(), devices: HashMap::new(), taken: HashMap::new(), tenants, by_id }
    }

    pub(super) fn index(&self, pool: &PoolId) -> Option<usize> {
        self.by_id.get(pool).copied()
    }

    pub(super) fn tenant(&self, pool: &PoolId) -> Option<&PoolTenant> {
        self.tenants.get(self.index(pool)?)
    }

    pub(super) fn tenant_mut(&mut self, pool: &PoolId) -> Option<&mut PoolTenant> {
        let index = self.index(pool)?;
        self.tenants.get_mut(index)
    }

    /// Memory was promised: the load begins.
    pub(super) fn granted(&mut self, index: usize, now_ms: u64) {
        let tenant = &mut self.tenants[index];
        let Some(asking) = tenant.asking.take() else { return };
        (tenant.started, tenant.load_since_ms, tenant.is_next) = (false, Some(now_ms), false);
        if asking.reply.send(Ok(())).is_err() {
            // Whoever asked was called off.
            self.forget_load(index, now_ms);
        }
    }

    /// Takes in how a pool's engine stands now; says when a load is done.
    pub(super) fn take_report(&mut self, index: usize, report: &PoolReport, now_ms: u64) -> Option<LoadDone> {
        let tenant = &mut self.tenants[index];
        tenant.report = Some(report.clone());
        let mut done = None;
        match report.state {
            PoolState::Starting => tenant.started = true,
            PoolState::Ready => {
                tenant.wanted = false;
                if let Some(since_ms) = tenant.load_since_ms.take() {
                    let took_ms = now_ms.saturating_sub(since_ms);
                    (tenant.unlearned_ms, tenant.serving_since_ms) = (Some(took_ms), now_ms);
                    done = Some(LoadDone { took_ms });
                    self.ledger.loaded(index, now_ms);
                }
            }
            // A start that was granted memory and has not begun is on its way there.
            PoolState::Preparing if !tenant.started => {}
            PoolState::Cold
            | PoolState::Stopped
            | PoolState::BackingOff
            | PoolState::Failed
            | PoolState::Away
            | PoolState::Preparing => {
                if matches!(report.state, PoolState::Stopped | PoolState::Failed) {
                    tenant.wanted = false;
                }
                if tenant.load_since_ms.is_some() && report.fault() == Some(PoolFault::VramExhausted) {
                    tenant.foretold_too_little(&self.ledger);
                }
                self.forget_load(index, now_ms);
            }
            PoolState::External | PoolState::Draining | PoolState::Stopping => {}
        }
        done
    }

    /// There is no engine any more, or none came to be.
    fn forget_load(&mut self, index: usize, now_ms: u64) {
        let tenant = &mut self.tenants[index];
        (tenant.started, tenant.load_since_ms, tenant.unlearned_ms) = (false, None, None);
        (tenant.unloading, tenant.fenced) = (false, false);
        if let Some(since_ms) = tenant.unload_since_ms.take() {
            tenant.unload_ms = now_ms.saturating_sub(since_ms).max(1);
        }
        self.ledger.released(index, now_ms);
    }
}

impl PoolTenant {
    fn new(pool: &Arc<Pool>) -> Self {
        let config = &pool.config;
        Self {
            pool: Arc::clone(pool),
            swappable: config.activation == Activation::OnDemand || !config.is_kept(),
            report: None,
            asking: None,
            takes_over: false,
            started: false,
            load_since_ms: None,
            serving_since_ms: 0,
            unload_since_ms: None,
            unlearned_ms: None,
            wanted: false,
            unloading: false,
            fenced: false,
            is_next: false,
            wishes: false,
            model: None,
            known: None,
            floor: None,
            never: None,
            need_is_measured: false,
            need: Vec::new(),
            load_guess_ms: LOAD_MS,
            load_is_measured: false,
            unload_ms: UNLOAD_MS,
        }
    }

    /// A load has failed for want of memory, with all that was there for it (ORCH-3039).
    fn foretold_too_little(&mut self, ledger: &Ledger) {
        let more = |part: &Part| {
            let had = part.bytes.saturating_add(ledger.available(part.device).unwrap_or(0));
            had.saturating_add(had / 10)
        };
        self.floor = Some((self.key(), self.need.iter().map(more).collect()));
    }

    pub(super) fn state(&self) -> PoolState {
        self.report.as_ref().map_or(PoolState::Stopped, |report| report.state)
    }

    /// Where its engine is.
    pub(super) fn stage(&self) -> Stage {
        match self.state() {
            PoolState::Cold if self.never.is_some() => Stage::Barred,
            PoolState::Cold => Stage::Out,
            // What is not known to fit anywhere is not granted.
            PoolState::Preparing | PoolState::BackingOff if self.asking.is_some() && !self.need.is_empty() => {
                Stage::Asking
            }
            PoolState::Preparing if self.load_since_ms.is_some() => self.loading(),
            PoolState::Preparing | PoolState::BackingOff => Stage::Preparing,
            PoolState::Starting => self.loading(),
            PoolState::Ready if !self.unloading => Stage::Serving { since_ms: self.serving_since_ms },
            PoolState::Ready | PoolState::Stopping => Stage::Leaving,
            PoolState::Draining if self.unloading => Stage::Leaving,
            // Somebody wants it drained and up.
            PoolState::Draining => Stage::Serving { since_ms: self.serving_since_ms },
            PoolState::External | PoolState::Stopped | PoolState::Failed | PoolState::Away => Stage::Barred,
        }
    }

    const fn loading(&self) -> Stage {
        Stage::Loading {
            since_ms: match self.load_since_ms {
                Some(since_ms) => since_ms,
                None => 0,
            },
        }
    }

    /// As core sees it.
    pub(super) fn tenant(&self, demand: &PoolDemand) -> Tenant {
        let config = &self.pool.config;
        let report = self.report.as_ref();
        let reloads = report.and_then(|report| report.reload.as_ref());
        let reloads =
            reloads.is_some_and(|reload| !matches!(reload.state, ReloadState::Done | ReloadState::RolledBack));
        Tenant {
            stage: self.stage(),
            on_demand: config.activation == Activation::OnDemand,
            keep: config.is_kept() || self.state() == PoolState::Draining || reloads,
            wanted: self.wanted || reloads,
            is_next: self.is_next,
            fenced: self.fenced,
            need: self.need.clone(),
            load_ms: self.load_guess_ms,
            unload_ms: self.unload_ms,
            idle_unload_ms: config.idle_unload().map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
            running: demand.running,
            running_ms: demand.running_ms,
            backlog_ms: demand.backlog_ms,
            waiting: demand.waiting,
            last_used_ms: demand.last_used_ms.max(self.serving_since_ms),
            gap_ms: demand.gap_ms,
        }
    }

    /// What placement is told: when it would take tasks.
    pub(super) const fn cold_start(&self, ready_in_ms: u64, now_ms: u64) -> ColdStart {
        ColdStart { ready_at_ms: now_ms.saturating_add(ready_in_ms), measured: self.load_is_measured }
    }

    /// What is learned of it is found under this.
    pub(super) fn key(&self) -> String {
        let config = &self.pool.config;
        let ctx = config.ctx.map_or_else(|| "-".to_owned(), |ctx| ctx.to_string());
        let engine = self.report.as_ref().and_then(|report| report.engine.as_ref());
        let engine = engine.map_or("-", |engine| engine.version.as_str());
        let devices = config.device_mask().unwrap_or_default();
        // While another model is being loaded, the pool still serves the old one by name.
        let model = self.model.as_ref().map_or(config.model.as_str(), |model| model.reference.as_str());
        let slots = config.slots;
        format!("{model} ctx={ctx} slots={slots} devices={devices} engine={} {engine}", config.engine)
    }

    /// A load whose time is not known.
    pub(super) fn guess_load(&mut self, known_ms: Option<u64>) {
        let bytes = self.model.as_ref().map_or(0, |model| model.bytes);
        self.load_is_measured = known_ms.is_some();
        self.load_guess_ms = known_ms.unwrap_or(LOAD_MS + bytes / LOAD_BYTES_PER_MS).max(1);
    }

    pub(super) fn progress(&self, now_ms: u64) -> Option<f64> {
        let since_ms = self.load_since_ms?;
        let elapsed_ms = now_ms.saturating_sub(since_ms);
        Some((elapsed_ms as f64 / self.load_guess_ms as f64).min(0.95))
    }
}
