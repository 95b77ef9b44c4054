//! Placement: tables of inputs and expected decisions, and the same rules written a second, slower way.

use std::collections::BTreeSet;

use api_types::{DeterminismLevel, Engine, ErrorKind, PlacementMode, PlacementOverrides, PlacementRecord, Priority};
use proptest::prelude::*;

use super::{
    ColdStart, DecisionLog, JobSpec, Load, MAX_LISTED, ModelRequirements, NoCapacityReason as Reason,
    PlacementDecision, PlacementInput, PoolSnapshot, STALE_AFTER_MS, TieBreaker, decide, explain,
};

const NOW_MS: u64 = 100_000;
const GIB: i64 = 1 << 30;

fn pool(id: &str) -> PoolSnapshot {
    PoolSnapshot {
        slots_total: 2,
        slots_free: 2,
        queue_capacity: 4,
        vram_total_bytes: 24 * GIB,
        vram_free_bytes: 10 * GIB,
        device_mask: Some("GPU0".to_owned()),
        ready: true,
        ctx_max_supported: Some(8_192),
        heartbeat_ms: Some(NOW_MS),
        sampler_profile_version: Some("v1".to_owned()),
        compute_capability: Some("8.6".to_owned()),
        features: ["mmproj".to_owned()].into(),
        quants: ["Q4_K_M".to_owned()].into(),
        ..PoolSnapshot::new(id.into(), Engine::Llamacpp, &["hf:org/model", " alias "])
    }
}

fn job() -> JobSpec {
    JobSpec {
        priority: Priority::Interactive,
        expected_tokens: Some(100),
        max_tokens: None,
        engine: Engine::Llamacpp,
        model_ref: "hf:org/model".to_owned(),
        required_ctx: 4_096,
        est_kv_bytes: Some(GIB),
        placement: PlacementOverrides::default(),
        requirements: None,
        session_affinity_pool: None,
        session_affinity_replica: None,
        determinism: None,
        sampler_profile_version: None,
    }
}

fn placed(mode: PlacementMode, pools: &[&str]) -> PlacementOverrides {
    let names = || pools.iter().map(|name| (*name).to_owned());
    PlacementOverrides {
        mode,
        pin_pool_id: names().next().filter(|_| mode == PlacementMode::Pin),
        prefer_pools: (mode == PlacementMode::Prefer).then(|| names().collect()),
        ..PlacementOverrides::default()
    }
}

fn waiting(ms: f64) -> Load {
    Load { slot_free_at_ms: NOW_MS + ms as u64, ..Load::default() }
}

fn run(pools: &[PoolSnapshot], job: &JobSpec) -> PlacementDecision {
    decide(&PlacementInput { pools, job, now_ms: NOW_MS })
}

#[track_caller]
fn assigned(pools: &[PoolSnapshot], job: &JobSpec) -> DecisionLog {
    match run(pools, job) {
        PlacementDecision::Assigned { pool_id, index, reason } => {
            assert_eq!(pools[index].id, pool_id);
            assert_eq!(reason.selected_pool_id, Some(pool_id));
            reason
        }
        PlacementDecision::NoCapacity { reason, .. } => panic!("no capacity: {reason}"),
    }
}

/// The reason for having nowhere to go, and what the client is told.
#[track_caller]
fn refused(pools: &[PoolSnapshot], job: &JobSpec) -> (Reason, crate::Refusal) {
    match run(pools, job) {
        PlacementDecision::Assigned { pool_id, .. } => panic!("assigned to {pool_id}"),
        PlacementDecision::NoCapacity { reason, considered, .. } => {
            assert_eq!(considered, pools.len());
            (reason, explain(&PlacementInput { pools, job, now_ms: NOW_MS }, reason))
        }
    }
}

type Change<T> = fn(&mut T);

/// HME-032: whoever pins a pool that lacks the model is told which pool has it.
#[test]
fn a_wrong_pin_names_the_right_pool() {
    let other = PoolSnapshot::new("b".into(), Engine::Llamacpp, &["other"]);
    let job = JobSpec { placement: placed(PlacementMode::Pin, &["b"]), ..job() };
    let (reason, refusal) = refused(&[pool("a"), other], &job);
    assert_eq!((reason, refusal.kind), (Reason::PinnedPoolInfeasible, ErrorKind::InvalidParams));
    assert!(refusal.message.ends_with("is served by pool a and not there; change placement"), "{refusal}");
}

/// ORCH-3901.2, OC-CORE-1016, LO-PLC-03, LO-PLC-05: each filter by itself, its name and its public code.
#[test]
fn each_filter_excludes_and_says_so() {
    let cases: &[(Change<PoolSnapshot>, Change<JobSpec>, Reason, ErrorKind)] = &[
        (|_| {}, |job| job.engine = Engine::Vllm, Reason::EngineMismatch, ErrorKind::PoolUnavailable),
        (|_| {}, |job| job.model_ref = "other".into(), Reason::ModelMismatch, ErrorKind::InvalidParams),
        (|_| {}, |job| job.placement.avoid_pools = Some(vec!["a".into()]), Reason::Avoided, ErrorKind::PoolUnavailable),
        (
            |_| {},
            |job| job.placement.require_device_mask = Some("GPU1".into()),
            Reason::MaskMismatch,
            ErrorKind::PoolUnavailable,
        ),
        (
            |_| {},
            |job| job.sampler_profile_version = Some("v2".into()),
            Reason::SamplerProfileMismatch,
            ErrorKind::InvalidParams,
        ),
        (
            |pool| pool.determinism = DeterminismLevel::BestEffort,
            |job| job.determinism = Some(DeterminismLevel::Strict),
            Reason::DeterminismMismatch,
            ErrorKind::InvalidParams,
        ),
        (|_| {}, |job| job.required_ctx = 8_193, Reason::CtxTooSmall, ErrorKind::InvalidParams),
        (
            |_| {},
            |job| job.requirements.get_or_insert_default().quant = Some("Q8_0".into()),
            Reason::QuantUnsupported,
            ErrorKind::InvalidParams,
        ),
        (
            |_| {},
            |job| job.requirements.get_or_insert_default().extensions = vec!["speculative_decode".into()],
            Reason::MissingExtension,
            ErrorKind::InvalidParams,
        ),
        (
            |_| {},
            |job| job.requirements.get_or_insert_default().min_compute_cap = Some("10.0".into()),
            Reason::ComputeCapability,
            ErrorKind::InvalidParams,
        ),
        (
            |_| {},
            |job| job.requirements.get_or_insert_default().min_vram_bytes = Some(25 * GIB),
            Reason::VramInsufficient,
            ErrorKind::InvalidParams,
        ),
        (|_| {}, |job| job.est_kv_bytes = Some(11 * GIB), Reason::VramInsufficient, ErrorKind::InvalidParams),
        (|pool| pool.ready = false, |_| {}, Reason::NotReady, ErrorKind::PoolUnready),
        (|pool| pool.draining = true, |_| {}, Reason::Draining, ErrorKind::PoolUnready),
        (
            |pool| pool.heartbeat_ms = Some(NOW_MS - STALE_AFTER_MS - 1),
            |_| {},
            Reason::StaleSnapshot,
            ErrorKind::PoolUnready,
        ),
        (|pool| pool.slots_total = 0, |_| {}, Reason::NoFreeSlots, ErrorKind::ReplicaExhausted),
    ];
    for (change_pool, change_job, reason, kind) in cases {
        let (mut pool, mut job) = (pool("a"), job());
        assert!(matches!(run(std::slice::from_ref(&pool), &job), PlacementDecision::Assigned { .. }));
        change_pool(&mut pool);
        change_job(&mut job);
        let (got, refusal) = refused(std::slice::from_ref(&pool), &job);
        assert_eq!((got, refusal.kind), (*reason, *kind), "{refusal}");
        // The same with a pool that can: the filter is named, the job is placed.
        let mut good = self::pool("b");
        good.engine = job.engine;
        good.models = [std::sync::Arc::from(job.model_ref.as_str())].into();
        good.ctx_max_supported = None;
        good.vram_total_bytes = 0;
        good.sampler_profile_version = job.sampler_profile_version.clone();
        good.device_mask = job.placement.require_device_mask.clone();
        good.quants = std::sync::Arc::from([]);
        good.features = job.requirements.iter().flat_map(|needs| needs.extensions.clone()).collect();
        good.compute_capability = None;
        let log = assigned(&[pool, good], &job);
        assert_eq!(log.filters_applied, [*reason]);
        assert_eq!((log.candidates_considered, log.tie_breakers_applied), (2, vec![]));
    }
}

/// What cannot be observed keeps nobody out (OC-CORE-1014), and edges belong to the feasible side.
#[test]
fn the_unknown_and_the_exact_fit_are_feasible() {
    let mut bare = pool("a");
    bare.vram_total_bytes = 0;
    bare.vram_free_bytes = 0;
    bare.ctx_max_supported = None;
    bare.compute_capability = None;
    bare.quants = std::sync::Arc::from([]);
    bare.heartbeat_ms = None;
    let mut demanding = job();
    demanding.est_kv_bytes = Some(100 * GIB);
    demanding.requirements = Some(ModelRequirements {
        quant: Some("Q8_0".to_owned()),
        min_vram_bytes: Some(100 * GIB),
        min_compute_cap: Some("9.0".to_owned()),
        ..ModelRequirements::default()
    });
    assigned(&[bare], &demanding);

    let mut edge = pool("a");
    edge.heartbeat_ms = Some(NOW_MS - STALE_AFTER_MS);
    let mut exact = job();
    exact.required_ctx = 8_192;
    exact.est_kv_bytes = Some(10 * GIB);
    exact.determinism = Some(DeterminismLevel::Strict);
    exact.model_ref = "  alias\n".to_owned();
    exact.requirements = Some(ModelRequirements { min_compute_cap: Some("8.6".to_owned()), ..Default::default() });
    assigned(&[edge], &exact);
}

/// LO-PLC-02: an empty list of pools is explained.
#[test]
fn no_pools_is_a_reason() {
    let (reason, refusal) = refused(&[], &job());
    assert_eq!((reason, refusal.kind), (Reason::NoPools, ErrorKind::PoolUnavailable));
}

/// The pool that came furthest gives the reason: what is still loading is worth a retry whatever else there is.
#[test]
fn the_closest_miss_is_the_reason() {
    let (mut loading, mut small, mut foreign) = (pool("a"), pool("b"), pool("c"));
    loading.ready = false;
    small.ctx_max_supported = Some(1);
    foreign.engine = Engine::Tgi;
    let (reason, refusal) = refused(&[foreign, small, loading], &job());
    assert_eq!((reason, refusal.kind, refusal.is_retriable()), (Reason::NotReady, ErrorKind::PoolUnready, true));
    assert_eq!(refusal.pool_id, Some("a".into()));
    assert!(refusal.retry_after_ms.is_some_and(|wait| wait > 0));
}

/// HME-032: names that are nearly right are recognised.
#[test]
fn refusals_name_what_would_have_been_right() {
    let (mut job, pools) = (job(), [pool("gpu0")]);
    job.model_ref = "hf:org/modle".to_owned();
    assert!(refused(&pools, &job).1.message.contains("did you mean `hf:org/model`?"));
    job.model_ref = "zzzz".to_owned();
    assert!(refused(&pools, &job).1.message.contains("known: alias, hf:org/model"));
    job = self::job();
    job.placement = placed(PlacementMode::Pin, &["gpu9"]);
    assert!(refused(&pools, &job).1.message.contains("did you mean `gpu0`?"));
    job = self::job();
    job.required_ctx = 9_000;
    assert!(refused(&pools, &job).1.message.contains("ask for at most 8192"));
    job = self::job();
    job.engine = Engine::Vllm;
    assert!(refused(&pools, &job).1.message.contains("configured: llamacpp"));
    let mut other = pool("v");
    other.engine = Engine::Vllm;
    other.models = [std::sync::Arc::from("x")].into();
    let (_, refusal) = refused(&[other, pool("gpu0")], &job);
    assert_eq!(refusal.kind, ErrorKind::InvalidParams);
    assert!(refusal.message.contains("not served by engine vllm but by llamacpp (pool gpu0)"), "{refusal}");
}

/// ORCH-3903.1: a pin considers one pool only, and an unusable one is refused for its own reason.
#[test]
fn a_pin_is_binding() {
    let mut job = job();
    job.placement = placed(PlacementMode::Pin, &["b"]);
    let mut pools = [pool("a"), pool("b"), pool("c")];
    pools[1].slots_free = 0;
    pools[1].queued = 3;
    let log = assigned(&pools, &job);
    assert_eq!((log.selected_pool_id, log.pinned, log.fallback_used), (Some("b".into()), true, false));

    pools[1].ready = false;
    let (reason, refusal) = refused(&pools, &job);
    assert_eq!((reason, refusal.kind), (Reason::PinnedPoolInfeasible, ErrorKind::PoolUnready));
    pools[1].ctx_max_supported = Some(1);
    assert_eq!(refused(&pools, &job).1.kind, ErrorKind::InvalidParams);
    job.placement = placed(PlacementMode::Pin, &["nowhere"]);
    let (reason, refusal) = refused(&pools, &job);
    assert_eq!((reason, refusal.kind), (Reason::PinnedPoolInfeasible, ErrorKind::PoolUnavailable));
}

/// ORCH-3903.2: only preferred pools, and all of them only when a fallback is allowed.
#[test]
fn a_preference_widens_only_when_allowed() {
    let mut job = job();
    job.placement = placed(PlacementMode::Prefer, &["b", "c"]);
    let mut pools = [pool("a"), pool("b"), pool("c")];
    pools[1].slots_free = 0;
    let log = assigned(&pools, &job);
    assert_eq!((log.selected_pool_id, log.fallback_used), (Some("c".into()), false));
    assert_eq!(log.filters_applied, [Reason::NotPreferred]);

    pools[1].draining = true;
    pools[2].ready = false;
    let log = assigned(&pools, &job);
    assert_eq!((log.selected_pool_id, log.fallback_used), (Some("a".into()), true));
    job.placement.allow_fallback = false;
    let (reason, refusal) = refused(&pools, &job);
    assert_eq!((reason, refusal.kind), (Reason::NoPreferredFeasible, ErrorKind::PoolUnready));
    assert!(refusal.message.contains("allow_fallback"));
    job.placement.prefer_pools = Some(vec!["nowhere".to_owned()]);
    assert_eq!(refused(&pools, &job).1.kind, ErrorKind::PoolUnavailable);
}

/// ORCH-3902, HME-010, C13, C14: each tie-breaker by itself, and that an earlier one outweighs all later ones.
#[test]
fn tie_breakers_act_in_order() {
    let better: [(TieBreaker, Change<PoolSnapshot>); 5] = [
        (TieBreaker::PerfTokensPerS, |pool| pool.perf_tokens_per_s = Some(50.0)),
        (TieBreaker::ResidualVram, |pool| pool.vram_free_bytes += 1),
        (TieBreaker::LeastLoaded, |pool| pool.slots_free = 2),
        (TieBreaker::Affinity, |pool| pool.id = "home".into()),
        (TieBreaker::PredictedEnd, |pool| pool.load = Some(waiting(0.0))),
    ];
    let mut job = job();
    job.session_affinity_pool = Some("home".into());
    let (mut one, mut other) = (pool("z"), pool("y"));
    for pool in [&mut one, &mut other] {
        pool.slots_free = 1;
        pool.perf_tokens_per_s = Some(10.0);
    }
    let check = |pools: [&PoolSnapshot; 2], winner: &PoolSnapshot, by: TieBreaker| {
        let log = assigned(&pools.map(Clone::clone), &job);
        assert_eq!((log.selected_pool_id, log.tie_breakers_applied), (Some(winner.id.clone()), vec![by]));
    };
    check([&one, &other], &other, TieBreaker::PoolId);
    // Every step makes the pool that was behind the better one by the next stronger tie-breaker.
    let mut ahead_is_one = false;
    for (tie_breaker, improve) in better {
        if tie_breaker == TieBreaker::PredictedEnd {
            for pool in [&mut one, &mut other] {
                pool.first_token_ms = Some(5.0);
                pool.load = Some(waiting(60_000.0));
                pool.perf_tokens_per_s = Some(10.0);
            }
        }
        improve(if ahead_is_one { &mut other } else { &mut one });
        ahead_is_one = !ahead_is_one;
        let winner = if ahead_is_one { &one } else { &other };
        check([&one, &other], winner, tie_breaker);
        check([&other, &one], winner, tie_breaker);
    }
}

/// ORCH-3902.1 holds only where every candidate has hints.
#[test]
fn missing_hints_leave_the_prediction_out() {
    let hinted = |id: &str, perf| PoolSnapshot {
        first_token_ms: Some(1.0),
        load: Some(waiting(0.0)),
        perf_tokens_per_s: Some(perf),
        ..pool(id)
    };
    let log = assigned(&[hinted("a", 1.0), hinted("b", 100.0)], &job());
    assert_eq!(log.tie_breakers_applied, [TieBreaker::PredictedEnd]);
    let log = assigned(&[hinted("a", 1.0), hinted("b", 100.0), pool("c")], &job());
    assert_eq!(log.tie_breakers_applied, [TieBreaker::PerfTokensPerS]);
}

/// Loads are compared as fractions: 1 of 3 is less than 2 of 5 and as much as 2 of 6.
#[test]
fn load_is_a_fraction() {
    let loaded = |id: &str, busy, queued, slots| PoolSnapshot {
        slots_total: slots,
        slots_free: slots - busy,
        queued,
        ..pool(id)
    };
    let log = assigned(&[loaded("a", 2, 0, 5), loaded("b", 1, 0, 3)], &job());
    assert_eq!((log.selected_pool_id, log.tie_breakers_applied), (Some("b".into()), vec![TieBreaker::LeastLoaded]));
    let log = assigned(&[loaded("b", 1, 1, 6), loaded("a", 1, 0, 3)], &job());
    assert_eq!((log.selected_pool_id, log.tie_breakers_applied), (Some("a".into()), vec![TieBreaker::PoolId]));
}

/// A full queue is left out while another feasible pool has room, however good the rest of it is.
#[test]
fn room_in_the_queue_comes_first() {
    let mut job = job();
    job.session_affinity_pool = Some("full".into());
    let full = |id: &str| PoolSnapshot { queued: 4, slots_free: 0, ..pool(id) };
    let busy = PoolSnapshot { queued: 3, slots_total: 1, slots_free: 0, ..pool("busy") };
    let log = assigned(&[full("full"), busy], &job);
    assert_eq!((log.selected_pool_id, log.filters_applied), (Some("busy".into()), vec![Reason::QueueFull]));
    let log = assigned(&[full("full"), full("also")], &job);
    assert_eq!((log.selected_pool_id, log.filters_applied), (Some("full".into()), vec![]));
}

/// ORCH-3951: the log is complete but bounded, and becomes the public record.
#[test]
fn the_log_is_bounded() {
    let mut pools: Vec<PoolSnapshot> = (0..20).map(|number| pool(&format!("p{number:02}"))).collect();
    for pool in &mut pools[1..] {
        pool.ready = false;
    }
    let log = assigned(&pools, &job());
    assert_eq!((log.excluded.len(), log.excluded_more), (MAX_LISTED, 19 - MAX_LISTED));
    let record = PlacementRecord::from(&log);
    assert_eq!(record.selected_pool_id.as_deref(), Some("p00"));
    assert_eq!((record.candidates_considered, record.filters_applied), (20, vec!["not_ready".to_owned()]));
}

/// LO-PLC-03: the fourteen words of the contract are there, letter by letter.
#[test]
fn the_reasons_have_their_names() {
    let words: BTreeSet<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    let contract = [
        "no_pools",
        "stale_snapshot",
        "engine_mismatch",
        "ctx_too_small",
        "quant_unsupported",
        "missing_extension",
        "compute_capability",
        "vram_insufficient",
        "mask_mismatch",
        "draining",
        "not_ready",
        "no_free_slots",
        "pinned_pool_infeasible",
        "no_preferred_feasible",
    ];
    assert!(contract.iter().all(|word| words.contains(word)));
    assert_eq!(words.len(), Reason::ALL.len());
}

prop_compose! {
    fn any_pool()(
        (slots_total, busy, queued) in (1_i32..4, 0_i32..4, 0_i32..5),
        vram_free in 0_i64..3,
        perf in prop::option::of(1_u32..4),
        hinted in prop::bool::ANY,
        (ready, draining, stale) in (prop::bool::weighted(0.8), prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        (other_engine, other_model) in (prop::bool::weighted(0.1), prop::bool::weighted(0.1)),
        mask in 0_u8..2,
        cold_ms in prop::option::weighted(0.2, 0_u64..200),
    ) -> PoolSnapshot {
        let mut made = pool("x");
        made.slots_total = slots_total;
        made.slots_free = slots_total - busy.min(slots_total);
        made.queued = queued;
        made.vram_free_bytes = (vram_free + 1) * GIB;
        made.perf_tokens_per_s = perf.map(f64::from);
        made.first_token_ms = hinted.then_some(3.0);
        made.load = hinted.then(|| waiting(f64::from(queued) * 10.0));
        made.ready = ready;
        made.draining = draining;
        made.cold = cold_ms.map(|wait_ms| ColdStart { ready_at_ms: NOW_MS + wait_ms, measured: true });
        made.heartbeat_ms = Some(if stale { 0 } else { NOW_MS });
        made.device_mask = Some(format!("GPU{mask}"));
        if other_engine {
            made.engine = Engine::Mock;
        }
        if other_model {
            made.models = [std::sync::Arc::from("other")].into();
        }
        made
    }
}

fn any_pools() -> impl Strategy<Value = Vec<PoolSnapshot>> {
    prop::collection::vec(any_pool(), 0..8).prop_map(|mut pools| {
        for (number, pool) in pools.iter_mut().enumerate() {
            pool.id = format!("p{number}").into();
        }
        pools
    })
}

prop_compose! {
    fn any_job()(
        mode in prop::sample::select(PlacementMode::ALL),
        named in prop::collection::vec(0_u8..8, 1..4),
        avoided in prop::collection::vec(0_u8..8, 0..3),
        mask in prop::option::weighted(0.2, 0_u8..2),
        allow_fallback in prop::bool::ANY,
        home in prop::option::of(0_u8..8),
        expected_tokens in prop::option::of(0_i32..300),
    ) -> JobSpec {
        let names = |numbers: &[u8]| numbers.iter().map(|number| format!("p{number}")).collect::<Vec<_>>();
        let named = names(&named);
        let placement = PlacementOverrides {
            avoid_pools: Some(names(&avoided)),
            require_device_mask: mask.map(|mask| format!("GPU{mask}")),
            allow_fallback,
            ..placed(mode, &named.iter().map(String::as_str).collect::<Vec<_>>())
        };
        let session_affinity_pool = home.map(|number| format!("p{number}").as_str().into());
        JobSpec { placement, session_affinity_pool, expected_tokens, ..job() }
    }
}

/// The rules once more, as a sequence of eliminations (ORCH-3901.1, ORCH-3902, ORCH-3903).
fn by_elimination<'a>(pools: &'a [PoolSnapshot], job: &JobSpec) -> Option<(&'a PoolSnapshot, Vec<TieBreaker>)> {
    let placement = &job.placement;
    let contains = |list: &Option<Vec<String>>, pool: &PoolSnapshot| {
        list.as_ref().is_some_and(|list| list.contains(&pool.id.to_string()))
    };
    let able: Vec<&PoolSnapshot> = pools
        .iter()
        .filter(|pool| pool.engine == job.engine && pool.serves(&job.model_ref))
        .filter(|pool| !pool.draining && (pool.cold.is_some() || (pool.ready && pool.heartbeat_ms == Some(NOW_MS))))
        .filter(|pool| !contains(&placement.avoid_pools, pool))
        .filter(|pool| placement.require_device_mask.is_none() || placement.require_device_mask == pool.device_mask)
        .collect();
    let mut left: Vec<&PoolSnapshot> = match placement.mode {
        PlacementMode::Auto => able,
        PlacementMode::Pin => {
            able.into_iter().filter(|pool| placement.pin_pool_id == Some(pool.id.to_string())).collect()
        }
        PlacementMode::Prefer => {
            let preferred: Vec<_> =
                able.iter().copied().filter(|pool| contains(&placement.prefer_pools, pool)).collect();
            if preferred.is_empty() && placement.allow_fallback { able } else { preferred }
        }
    };
    if left.iter().any(|pool| pool.queued < pool.queue_capacity) {
        left.retain(|pool| pool.queued < pool.queue_capacity);
    }
    let perf = |pool: &PoolSnapshot| pool.perf_tokens_per_s.unwrap_or(0.0);
    let hinted = left.iter().all(|pool| pool.first_token_ms.is_some() && pool.perf_tokens_per_s.is_some());
    // Eighths of an octave.
    let step = |end: f64| {
        let octave = (end + 32.0).log2().floor();
        octave * 8.0 + (((end + 32.0) / octave.exp2() - 1.0) * 8.0).floor()
    };
    // Lower is better; one number per pool and rule.
    let score = |rule: TieBreaker, pool: &PoolSnapshot| -> f64 {
        match (rule, job.expected_tokens) {
            (TieBreaker::PredictedEnd, Some(tokens)) if hinted => {
                let cold = pool.cold.map_or(0, |cold| cold.wait_ms(NOW_MS)) as f64;
                let wait = cold + pool.load.map_or(0.0, |load| load.wait_ms(job.priority, NOW_MS));
                step(wait + 3.0 + f64::from(tokens) * 1_000.0 / perf(pool))
            }
            (TieBreaker::PredictedEnd, _) => 0.0,
            (TieBreaker::Loaded, _) => f64::from(u8::from(pool.cold.is_some())),
            (TieBreaker::Affinity, _) => f64::from(u8::from(job.session_affinity_pool.as_ref() != Some(&pool.id))),
            (TieBreaker::LeastLoaded, _) => {
                // Slots divide 6, so these fractions are exact.
                f64::from((pool.slots_total - pool.slots_free + pool.queued) * (6 / pool.slots_total))
            }
            (TieBreaker::ResidualVram, _) => -(pool.vram_free_bytes as f64),
            (TieBreaker::PerfTokensPerS, _) => -perf(pool),
            (TieBreaker::PoolId, _) => f64::from(pool.id.as_str().as_bytes()[1]),
        }
    };
    let mut acted = Vec::new();
    for rule in TieBreaker::ALL {
        let best = left.iter().map(|pool| score(*rule, pool)).reduce(f64::min)?;
        let before = left.len();
        left.retain(|pool| score(*rule, pool) == best);
        if left.len() < before {
            acted.push(*rule);
        }
    }
    left.first().map(|pool| (*pool, acted))
}

proptest! {
    /// ORCH-3901, ORCH-3902, ORCH-3903, ORCH-3952: the decision is the one that the rules give when followed literally,
    /// tie-breakers included.
    #[test]
    fn the_decision_follows_the_rules(pools in any_pools(), job in any_job()) {
        match (run(&pools, &job), by_elimination(&pools, &job)) {
            (PlacementDecision::Assigned { pool_id, reason, .. }, Some((expected, acted))) => {
                prop_assert_eq!(&pool_id, &expected.id);
                prop_assert_eq!(reason.tie_breakers_applied, acted);
            }
            (PlacementDecision::NoCapacity { reason, .. }, None) => {
                // Whatever the reason, there is a sentence for it.
                let refusal = explain(&PlacementInput { pools: &pools, job: &job, now_ms: NOW_MS }, reason);
                prop_assert!(!refusal.message.is_empty());
            }
            (got, expected) => prop_assert!(false, "{:?} instead of {:?}", got, expected),
        }
    }

    /// ORCH-3252, ORCH-3905, LO-DET-01: equal inputs give equal decisions, and the order of the pools means nothing.
    #[test]
    fn the_order_of_pools_means_nothing(pools in any_pools(), job in any_job(), turn in 0_usize..8) {
        let mut turned = pools.clone();
        turned.rotate_left(turn.checked_rem(pools.len()).unwrap_or(0));
        let selected = |pools: &[PoolSnapshot]| match run(pools, &job) {
            PlacementDecision::Assigned { pool_id, reason, .. } => {
                (Some(pool_id), reason.filters_applied, reason.tie_breakers_applied)
            }
            PlacementDecision::NoCapacity { log, .. } => (None, log.filters_applied, vec![]),
        };
        prop_assert_eq!(selected(&pools), selected(&turned));
        prop_assert_eq!(run(&pools, &job), run(&pools, &job));
    }
}
