//! One task from its first submission to its end.

use std::collections::BTreeMap;

use api_types::{ErrorKind, PolicyLabel};
use orchestrator_core::Refusal;
use orchestrator_core::scheduler::{Admission, Outcome};
use orchestrator_core::task::End;

use crate::engine::Work;
use crate::load::Traits;
use crate::scenario::Pool;

/// Wait of a refused client that was not told one, in milliseconds.
const UNTOLD_RETRY_MS: i64 = 1_000;

/// How a task came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As an accepted task does.
    Ended(End),
    /// Its worker was lost, and then the next one too.
    LostTwice,
    /// It lost its place to a newcomer.
    Evicted,
    /// No pool could run it any more.
    TurnedOut,
    /// It was refused, and the client did not come back.
    GaveUp,
}

/// What was promised at the admission.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Promise {
    pub(crate) at_ms: u64,
    pub(crate) position: usize,
    pub(crate) start_ms: u64,
    pub(crate) on_time: f64,
    pub(crate) is_measured: bool,
    /// Hidden from the scheduler: when the first of the running tasks would really have ended.
    pub(crate) remainder_ms: u64,
    /// Hidden: when it would start by an informed forecast.
    pub(crate) foreseen_ms: u64,
    /// Predicted time until its model is loaded, where it was not.
    pub(crate) load_ms: Option<u64>,
}

/// A start on a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    pub(crate) pool: usize,
    pub(crate) replica: usize,
    pub(crate) since_ms: u64,
    pub(crate) first_token_ms: Option<u64>,
}

/// How often it changed its pool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Moves {
    /// Another pool had a free slot.
    pub(crate) idle: u32,
    /// Its pool closed.
    pub(crate) closed: u32,
    /// Its worker was lost.
    pub(crate) lost: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) traits: Traits,
    /// Its source, and the client among those of the source.
    pub(crate) client: (usize, usize),
    pub(crate) refusals: BTreeMap<(ErrorKind, Option<PolicyLabel>), u32>,
    /// The client comes back no sooner than this.
    pub(crate) not_before_ms: u64,
    pub(crate) promise: Option<Promise>,
    pub(crate) moves: Moves,
    pub(crate) starts: u32,
    /// When it started first, and where it started last.
    pub(crate) first_start_ms: Option<u64>,
    pub(crate) last_pool: usize,
    /// What was promised when it started last.
    pub(crate) on_time_at_start: Option<f64>,
    pub(crate) running: Option<Start>,
    /// How it is to end once its engine has let go.
    pub(crate) ending: Option<End>,
    pub(crate) fate: Option<Fate>,
    pub(crate) ended_ms: u64,
    pub(crate) tokens_out: u32,
}

impl Life {
    pub(crate) const fn new(traits: Traits, client: (usize, usize)) -> Self {
        Self {
            traits,
            client,
            refusals: BTreeMap::new(),
            not_before_ms: 0,
            promise: None,
            moves: Moves { idle: 0, closed: 0, lost: 0 },
            starts: 0,
            first_start_ms: None,
            last_pool: 0,
            on_time_at_start: None,
            running: None,
            ending: None,
            fate: None,
            ended_ms: 0,
            tokens_out: 0,
        }
    }

    /// With what is really left of a running task, when it would start by an informed forecast, and when its model is said to be
    /// loaded.
    pub(super) fn admitted(
        &mut self,
        admission: &Admission,
        (remainder_ms, foreseen_ms, load_ms): (Option<u64>, u64, Option<u64>),
        now_ms: u64,
    ) {
        self.not_before_ms = now_ms + admission.backoff_ms;
        self.promise = Some(Promise {
            at_ms: now_ms,
            position: admission.queue_position,
            start_ms: admission.predicted_start_ms,
            on_time: admission.on_time_probability,
            is_measured: admission.prediction_is_measured,
            remainder_ms: remainder_ms.unwrap_or(0),
            foreseen_ms,
            load_ms,
        });
    }

    /// How long the client waits before it tries again; `None` when it does not.
    pub(super) fn refused(&mut self, refusal: &Refusal) -> Option<u64> {
        *self.refusals.entry((refusal.kind, refusal.policy_label)).or_default() += 1;
        let refused: u32 = self.refusals.values().sum();
        let comes_back = refusal.is_retriable() && refused <= self.traits.source.patience;
        let wait_ms = refusal.retry_after_ms.unwrap_or(UNTOLD_RETRY_MS);
        comes_back.then(|| u64::try_from(wait_ms).unwrap_or(0).max(1))
    }

    pub(super) fn starts(&mut self, start: Start, was_moved: bool, on_time: Option<f64>) {
        self.moves.idle += u32::from(was_moved);
        self.starts += 1;
        self.first_start_ms.get_or_insert(start.since_ms);
        self.last_pool = start.pool;
        self.on_time_at_start = on_time;
        self.running = Some(start);
    }

    pub(super) fn first_token(&mut self, now_ms: u64) {
        if let Some(running) = &mut self.running {
            running.first_token_ms = Some(now_ms);
        }
    }

    pub(super) fn waits_again(&mut self, elsewhere: bool) {
        self.moves.lost += u32::from(elsewhere);
    }

    pub(super) fn ends(&mut self, fate: Fate, now_ms: u64) {
        self.fate = Some(fate);
        self.ended_ms = now_ms;
    }

    /// What it costs on a pool.
    pub(crate) fn work(&self, pool: &Pool) -> Work {
        self.traits.work(pool)
    }

    /// What the daemon has measured of it.
    pub(super) fn outcome(&self, end: End, tokens_out: Option<u32>, now_ms: u64) -> Outcome {
        let Some((running, first_ms)) = self.running.and_then(|running| Some((running, running.first_token_ms?)))
        else {
            return Outcome::unmeasured(end);
        };
        Outcome {
            end,
            tokens_in: Some(self.traits.prompt_tokens),
            tokens_out,
            first_token_ms: Some(first_ms - running.since_ms),
            decode_ms: Some(now_ms - first_ms),
        }
    }

    /// Time from its admission to its first start, once it has started.
    pub(crate) fn wait_ms(&self) -> Option<u64> {
        Some(self.first_start_ms? - self.promise?.at_ms)
    }
}
