//! What clients submit, and when.

use api_types::{Engine, PlacementMode, PlacementOverrides, Priority, TaskId};
use orchestrator_core::estimate::Prompt;
use orchestrator_core::policy::JobSpec;
use orchestrator_core::scheduler::NewTask;
use uuid::Uuid;

use crate::draw::Draw;
use crate::engine::Work;
use crate::scenario::{Arrivals, Placement, Pool, Source};

/// The kind of engine of all pools.
pub(crate) const ENGINE: Engine = Engine::Llamacpp;
/// Bytes of text in a token, on average, and how unlike two prompts are (standard deviation of the logarithm).
const BYTES_PER_TOKEN: (f64, f64) = (4.2, 0.15);
/// Share of prompts that the engine's tokenizer has counted before the admission.
const COUNTED: f64 = 0.5;
/// Context that a task asks for beyond its prompt and its limit, for a chat template.
const TEMPLATE_TOKENS: u32 = 64;

/// A task as drawn, its hidden parts included.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traits {
    pub(crate) source: &'static Source,
    pub(crate) prompt_tokens: u32,
    prompt_bytes: u64,
    counted: bool,
    pub(crate) limit: u32,
    /// Hidden: tokens it will generate.
    pub(crate) tokens_out: u32,
    pub(crate) expected: Option<u32>,
    pub(crate) deadline_ms: u64,
    pub(crate) cancel_after_ms: Option<u64>,
    /// Hidden: how much faster or slower than usual it runs, as a standard normal number.
    pub(crate) luck: f64,
}

impl Traits {
    pub(crate) fn new(source: &'static Source, draw: &mut Draw) -> Self {
        let prompt_tokens = draw.size(source.prompt).max(1);
        let bytes = f64::from(prompt_tokens) * BYTES_PER_TOKEN.0 * (draw.normal() * BYTES_PER_TOKEN.1).exp();
        let counted = draw.happens(COUNTED);
        let limit = draw.size(source.limit).max(1);
        let tokens_out = ((draw.share(source.output) * f64::from(limit)).round() as u32).clamp(1, limit);
        let guess = f64::from(tokens_out) * draw.factor(0.75, 1.25);
        let expected = draw.happens(source.announced).then(|| (guess.round() as u32).clamp(1, limit));
        let deadline_ms = u64::from(draw.size(source.deadline_ms));
        let cancel_after_ms = draw.time(source.cancel_after_ms);
        let cancel_after_ms = draw.happens(source.canceled).then_some(cancel_after_ms);
        Self {
            source,
            prompt_tokens,
            prompt_bytes: bytes.round() as u64,
            counted,
            limit,
            tokens_out,
            expected,
            deadline_ms,
            cancel_after_ms,
            luck: draw.normal(),
        }
    }

    pub(crate) const fn class(&self) -> Priority {
        self.source.class
    }

    /// What it costs on a pool.
    pub(crate) fn work(&self, pool: &Pool) -> Work {
        Work::new(pool, self.prompt_tokens, self.tokens_out, self.luck)
    }

    /// What the scheduler gets to see.
    pub(crate) fn new_task(&self, number: usize) -> NewTask {
        let ctx = self.prompt_tokens + self.limit + TEMPLATE_TOKENS;
        NewTask {
            id: id_of(number),
            job: JobSpec {
                priority: self.class(),
                expected_tokens: self.expected.map(u32::cast_signed),
                max_tokens: Some(self.limit.cast_signed()),
                engine: ENGINE,
                model_ref: self.source.model.to_owned(),
                required_ctx: ctx.cast_signed(),
                est_kv_bytes: None,
                placement: overrides(self.source.placement),
                requirements: None,
                session_affinity_pool: None,
                session_affinity_replica: None,
                determinism: None,
                sampler_profile_version: None,
            },
            prompt: Prompt { tokens: self.counted.then_some(self.prompt_tokens), bytes: self.prompt_bytes },
            deadline_ms: self.deadline_ms.cast_signed(),
        }
    }
}

/// The id of the task with this number.
pub(crate) const fn id_of(number: usize) -> TaskId {
    TaskId(Uuid::from_u128(number as u128))
}

/// The number of a task that was made here.
pub(crate) fn number_of(id: TaskId) -> usize {
    usize::try_from(id.0.as_u128()).expect("every id here was made of a number")
}

fn overrides(placement: Placement) -> PlacementOverrides {
    let auto = PlacementOverrides::default();
    let prefer = |pool: &str, allow_fallback| PlacementOverrides {
        mode: PlacementMode::Prefer,
        prefer_pools: Some(vec![pool.to_owned()]),
        allow_fallback,
        ..PlacementOverrides::default()
    };
    match placement {
        Placement::Auto => auto,
        Placement::Pin(pool) => {
            PlacementOverrides { mode: PlacementMode::Pin, pin_pool_id: Some(pool.to_owned()), ..auto }
        }
        Placement::PreferOnly(pool) => prefer(pool, false),
        Placement::Prefer(pool) => prefer(pool, true),
        Placement::Avoid(pool) => PlacementOverrides { avoid_pools: Some(vec![pool.to_owned()]), ..auto },
        Placement::Mask(mask) => PlacementOverrides { require_device_mask: Some(mask.to_owned()), ..auto },
    }
}

/// A client's turn to submit a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    pub(crate) at_ms: u64,
    pub(crate) source: usize,
    /// Among the clients of its source.
    pub(crate) client: usize,
    /// How many turns of the source's trace, or of the client, came before.
    step: usize,
}

/// All clients.
#[derive(Debug)]
pub(crate) struct Load {
    sources: &'static [Source],
    /// One generator per source, for its arrivals.
    arrivals: Vec<Draw>,
    /// One generator per client, for its tasks.
    clients: Vec<Vec<Draw>>,
}

impl Load {
    pub(crate) fn new(sources: &'static [Source], seed: u64) -> Self {
        let draw = |purpose, source: usize, client: usize| Draw::new(seed, [purpose, source as u64, client as u64]);
        let of_source = |(index, source): (usize, &Source)| {
            (0..source.arrivals.clients()).map(|client| draw(1, index, client)).collect()
        };
        Self {
            sources,
            arrivals: (0..sources.len()).map(|index| draw(0, index, 0)).collect(),
            clients: sources.iter().enumerate().map(of_source).collect(),
        }
    }

    /// The first turns of a source.
    pub(crate) fn first(&mut self, source: usize) -> Vec<Turn> {
        let draw = &mut self.arrivals[source];
        let turn = |at_ms, client| Turn { at_ms, source, client, step: 0 };
        match self.sources[source].arrivals {
            Arrivals::Poisson { per_s, clients } => vec![turn(draw.time(1_000.0 / per_s), draw.below(clients))],
            Arrivals::Bursts { clients, .. } => (0..clients).map(|client| turn(0, client)).collect(),
            Arrivals::Closed { clients, think_ms } => {
                (0..clients).map(|client| turn(draw.time(think_ms), client)).collect()
            }
            Arrivals::Sessions { clients, pause_ms, .. } => {
                (0..clients).map(|client| turn(draw.time(pause_ms), client)).collect()
            }
            Arrivals::Trace { at_ms, .. } => at_ms.first().map(|at_ms| turn(*at_ms, 0)).into_iter().collect(),
        }
    }

    /// The turn that follows one in any case; a closed loop goes on with [`Load::after_end`].
    pub(crate) fn next(&mut self, turn: Turn) -> Option<Turn> {
        let draw = &mut self.arrivals[turn.source];
        match self.sources[turn.source].arrivals {
            Arrivals::Poisson { per_s, clients } => {
                Some(Turn { at_ms: turn.at_ms + draw.time(1_000.0 / per_s), client: draw.below(clients), ..turn })
            }
            Arrivals::Bursts { every_ms, .. } => Some(Turn { at_ms: turn.at_ms + every_ms, ..turn }),
            Arrivals::Closed { .. } => None,
            Arrivals::Sessions { pause_ms, tasks, gap_ms, .. } => {
                let step = turn.step + 1;
                let mean_ms = if step.is_multiple_of(tasks) { pause_ms } else { gap_ms };
                Some(Turn { at_ms: turn.at_ms + draw.time(mean_ms), step, ..turn })
            }
            Arrivals::Trace { at_ms, every_ms, clients } => {
                let step = turn.step + 1;
                let round = (step / at_ms.len()) as u64;
                Some(Turn { at_ms: round * every_ms + at_ms[step % at_ms.len()], client: step % clients, step, ..turn })
            }
        }
    }

    /// The turn of a client whose task has ended, not before it was asked to come back.
    pub(crate) fn after_end(&mut self, source: usize, client: usize, now_ms: u64, not_before_ms: u64) -> Option<Turn> {
        let Arrivals::Closed { think_ms, .. } = self.sources[source].arrivals else {
            return None;
        };
        let think_ms = self.clients[source][client].time(think_ms);
        Some(Turn { at_ms: (now_ms + think_ms).max(not_before_ms), source, client, step: 0 })
    }

    /// The task that a client submits.
    pub(crate) fn task(&mut self, turn: Turn) -> Traits {
        Traits::new(&self.sources[turn.source], &mut self.clients[turn.source][turn.client])
    }
}
