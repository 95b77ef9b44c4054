//! Feasibility: the first thing that keeps a pool from running a job (ORCH-3901).

use std::sync::Arc;

use api_types::{DeterminismLevel, PlacementMode};

use super::{JobSpec, ModelRequirements, NoCapacityReason as Reason, PlacementInput, PoolSnapshot};

/// A pool not heard from for longer than this is not used, in milliseconds.
pub const STALE_AFTER_MS: u64 = 5_000;

/// Which pools the client's placement mode lets in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every pool.
    All,
    /// The pinned one.
    Pinned,
    /// The preferred ones.
    Preferred,
}

impl Scope {
    pub(super) const fn of(mode: PlacementMode) -> Self {
        match mode {
            PlacementMode::Auto => Self::All,
            PlacementMode::Pin => Self::Pinned,
            PlacementMode::Prefer => Self::Preferred,
        }
    }
}

/// A job's constraints, prepared once so that each of many pools is judged in a few nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Filters<'a> {
    job: &'a JobSpec,
    /// The job's model without the whitespace around it.
    model: &'a str,
    /// A pool's own text of that name, once one was found.
    same_model: Option<&'a Arc<str>>,
    scope: Scope,
    /// Whether the client's overrides say anything at all.
    has_overrides: bool,
    now_ms: u64,
}

impl<'a> Filters<'a> {
    pub(super) fn new(input: &PlacementInput<'a>, scope: Scope) -> Self {
        let placement = &input.job.placement;
        let has_overrides =
            scope != Scope::All || placement.avoid_pools.is_some() || placement.require_device_mask.is_some();
        Self {
            job: input.job,
            model: input.job.model_ref.trim(),
            same_model: None,
            scope,
            has_overrides,
            now_ms: input.now_ms,
        }
    }

    /// The first filter a pool fails, in the order of [`Reason`]; `None` when it is feasible.
    #[inline]
    pub(super) fn failed(&mut self, pool: &'a PoolSnapshot) -> Option<Reason> {
        if let Some(reason) = self.identity(pool) {
            return Some(reason);
        }
        if self.has_overrides
            && let Some(reason) = self.overrides(pool)
        {
            return Some(reason);
        }
        self.fit(pool)
            .or_else(|| self.job.requirements.as_ref().and_then(|needs| model_needs(pool, needs)))
            .or_else(|| self.memory(pool))
            .or_else(|| state(pool, self.now_ms))
    }

    #[inline]
    fn identity(&mut self, pool: &'a PoolSnapshot) -> Option<Reason> {
        if pool.engine != self.job.engine {
            Some(Reason::EngineMismatch)
        } else if !self.is_served_by(pool) {
            Some(Reason::ModelMismatch)
        } else {
            None
        }
    }

    /// Pools that come from one scheduler share the text of equal names, so most of them need no comparison of text.
    #[inline]
    fn is_served_by(&mut self, pool: &'a PoolSnapshot) -> bool {
        if let (Some(known), Some(first)) = (self.same_model, pool.models.first())
            && Arc::ptr_eq(known, first)
        {
            return true;
        }
        let found = pool.models.iter().find(|name| ***name == *self.model);
        self.same_model = found.or(self.same_model);
        found.is_some()
    }

    fn overrides(&self, pool: &PoolSnapshot) -> Option<Reason> {
        let placement = &self.job.placement;
        let wanted_mask = placement.require_device_mask.as_deref();
        if lists(placement.avoid_pools.as_deref(), pool.id.as_str()) {
            Some(Reason::Avoided)
        } else if !self.is_in_scope(pool.id.as_str()) {
            Some(Reason::NotPreferred)
        } else if wanted_mask.is_some() && wanted_mask != pool.device_mask.as_deref() {
            Some(Reason::MaskMismatch)
        } else {
            None
        }
    }

    fn is_in_scope(&self, id: &str) -> bool {
        match self.scope {
            Scope::All => true,
            Scope::Pinned => self.job.placement.pin_pool_id.as_deref() == Some(id),
            Scope::Preferred => lists(self.job.placement.prefer_pools.as_deref(), id),
        }
    }

    #[inline]
    fn fit(&self, pool: &PoolSnapshot) -> Option<Reason> {
        let job = self.job;
        let profile = job.sampler_profile_version.as_deref();
        if profile.is_some() && profile != pool.sampler_profile_version.as_deref() {
            Some(Reason::SamplerProfileMismatch)
        } else if job.determinism == Some(DeterminismLevel::Strict) && pool.determinism != DeterminismLevel::Strict {
            Some(Reason::DeterminismMismatch)
        } else if pool.ctx_max_supported.is_some_and(|ctx| ctx < job.required_ctx) {
            Some(Reason::CtxTooSmall)
        } else {
            None
        }
    }

    #[inline]
    fn memory(&self, pool: &PoolSnapshot) -> Option<Reason> {
        let lacks = |bytes| pool.vram_total_bytes > 0 && pool.vram_free_bytes < bytes;
        // Before a model is loaded, others may have to go.
        let counts = pool.cold.is_none() && self.job.est_kv_bytes.is_some_and(lacks);
        counts.then_some(Reason::VramInsufficient)
    }
}

fn model_needs(pool: &PoolSnapshot, needs: &ModelRequirements) -> Option<Reason> {
    let quant_known = !pool.quants.is_empty();
    if needs.quant.as_ref().is_some_and(|quant| quant_known && !pool.quants.contains(quant)) {
        Some(Reason::QuantUnsupported)
    } else if needs.extensions.iter().any(|extension| !pool.features.contains(extension)) {
        Some(Reason::MissingExtension)
    } else if below(pool.compute_capability.as_deref(), needs.min_compute_cap.as_deref()) {
        Some(Reason::ComputeCapability)
    } else if needs.min_vram_bytes.is_some_and(|bytes| pool.vram_total_bytes > 0 && pool.vram_total_bytes < bytes) {
        Some(Reason::VramInsufficient)
    } else {
        None
    }
}

#[inline]
fn state(pool: &PoolSnapshot, now_ms: u64) -> Option<Reason> {
    if pool.cold.is_some() {
        // Its engine is not there yet, or goes; only somebody's wish keeps tasks from waiting for it.
        pool.draining.then_some(Reason::Draining)
    } else if !pool.ready {
        Some(Reason::NotReady)
    } else if pool.draining {
        Some(Reason::Draining)
    } else if pool.heartbeat_ms.is_some_and(|heard| now_ms.saturating_sub(heard) > STALE_AFTER_MS) {
        Some(Reason::StaleSnapshot)
    } else if pool.slots_total < 1 {
        Some(Reason::NoFreeSlots)
    } else {
        None
    }
}

fn lists(pools: Option<&[String]>, id: &str) -> bool {
    pools.is_some_and(|pools| pools.iter().any(|pool| pool == id))
}

/// Whether a compute capability such as `8.6` is below another; one that is unknown or unreadable is not.
fn below(has: Option<&str>, least: Option<&str>) -> bool {
    let parse = |text: &str| {
        let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    };
    matches!((has.and_then(parse), least.and_then(parse)), (Some(has), Some(least)) if has < least)
}

/// [`Filters::failed`] for a single pool.
pub(super) fn first_failure<'a>(input: &PlacementInput<'a>, scope: Scope, pool: &'a PoolSnapshot) -> Option<Reason> {
    Filters::new(input, scope).failed(pool)
}

/// Whether a pool is in a state to start work, whatever the work is.
#[must_use]
pub fn takes_work(pool: &PoolSnapshot, now_ms: u64) -> bool {
    pool.cold.is_none() && state(pool, now_ms).is_none()
}

/// Whether a pool takes work, at once or once its model is loaded.
#[must_use]
pub fn admits_work(pool: &PoolSnapshot, now_ms: u64) -> bool {
    state(pool, now_ms).is_none()
}

/// Whether a pool cannot run a job whatever state it is in.
#[must_use]
pub fn misfit<'a>(input: &PlacementInput<'a>, pool: &'a PoolSnapshot) -> bool {
    first_failure(input, Scope::All, pool).is_some_and(|reason| reason < Reason::NotReady)
}
