//! One task in a slot, step by step.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use crate::ask::{Ask, Delivery};
use crate::config::{OutputLength, SeedBehaviour};
use crate::faults::{Inside, MidStream, OddEnd};
use crate::simulation::Simulation;
use crate::slots::{Ending, Lease};
use crate::stop::{Passed, StopFilter};
use crate::text::{EOS, Piece, Voice};

/// What comes next.
#[derive(Debug)]
pub enum Step {
    /// So much of the prompt is read. Only for those who asked.
    Prefill(Prefill),
    /// A token, or the last of several that make up one character.
    Token(Token),
    /// A fault strikes. After one that [`MidStream::goes_on`] the stream does, after the others it is over.
    Fault(MidStream),
    /// The engine is done.
    Done(Finished),
}

/// How far the prompt is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prefill {
    /// The prompt's tokens.
    pub total: u32,
    /// Of these, found in the cache.
    pub cached: u32,
    /// Of these, read or cached.
    pub processed: u32,
    /// Since the start, in milliseconds.
    pub elapsed_ms: f64,
}

/// A token.
#[derive(Debug)]
pub struct Token {
    /// What can be sent for it.
    pub text: Text,
    /// The token's id.
    pub id: u32,
    /// Tokens generated so far, this one included.
    pub tokens_out: u32,
}

/// The text of a token.
#[derive(Debug)]
pub enum Text {
    /// As the vocabulary has it.
    Piece(&'static Piece),
    /// Something else, for example nothing while a stop text may be beginning.
    Loose(String),
}

impl Text {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Piece(piece) => piece.text,
            Self::Loose(text) => text,
        }
    }
}

/// Why the engine stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopType {
    /// The model was done.
    Eos,
    /// As many tokens as asked for; or, when `truncated`, as the context has room for.
    Limit {
        /// The context was the limit.
        truncated: bool,
    },
    /// This stop text came.
    Word(String),
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// Why.
    pub stop: StopType,
    /// Text that was held back until now.
    pub rest: String,
    /// Slot it ran in.
    pub slot: usize,
    /// Prompt tokens.
    pub tokens_in: u32,
    /// Prompt tokens from the cache.
    pub cached: u32,
    /// Tokens generated.
    pub tokens_out: u32,
    /// Time spent on the prompt, in milliseconds.
    pub prompt_ms: f64,
    /// Time spent generating, in milliseconds.
    pub predicted_ms: f64,
    /// What is wrong with this end, beside its times.
    pub odd: Option<OddEnd>,
}

/// A task in a slot. Dropping it gives it up; the slot is free once the engine would have noticed.
#[derive(Debug)]
pub struct Generation {
    sim: Simulation,
    lease: Option<Lease>,
    delivery: Delivery,
    progress: bool,
    fault: Option<Inside>,
    voice: Voice,
    limit: Limit,
    stop: Option<StopFilter>,
    split: bool,
    interval: Duration,
    tokens_in: u32,
    cached: u32,
    slot: usize,
    started: Instant,
    decoding: Instant,
    phase: Phase,
    timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Debug)]
enum Phase {
    Prefill { processed: u32, told: bool },
    Decode { pieces: u32, tokens_out: u32, word: Option<String> },
    Over,
}

/// How many tokens come, and what ends them.
#[derive(Clone, Copy, Debug)]
struct Limit {
    tokens: u32,
    ends: Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    Eos,
    Asked,
    Context,
}

/// Tokens until the model is done when nobody says how many.
const UNASKED_TOKENS: u32 = 128;

impl Generation {
    pub(crate) fn new(sim: Simulation, lease: Lease, ask: &Ask, tokens_in: u32, fault: Option<Inside>) -> Self {
        let config = sim.config();
        let seed = match (config.seeds, ask.seed) {
            (SeedBehaviour::Honoured, Some(seed)) => seed,
            (SeedBehaviour::Honoured, None) | (SeedBehaviour::Ignored, _) => rand::random(),
        };
        let voice = Voice::new(&ask.prompt, seed);
        let limit = limit(config.output, config.ctx, voice, ask, tokens_in);
        // The first prompt token is the same in every prompt, so finding it cached says nothing.
        let shifted = config.cache_sensitive && lease.cached > 1;
        let voice = if shifted { voice.shifted(lease.cached.into()) } else { voice };
        let started = Instant::now();
        let decoding = started + sim.prefill_time(tokens_in - lease.cached);
        Self {
            voice,
            limit,
            fault,
            tokens_in,
            cached: lease.cached,
            slot: lease.slot,
            delivery: ask.delivery,
            progress: ask.progress,
            stop: StopFilter::new(&ask.stop),
            split: config.split_characters,
            interval: config.token_interval,
            started,
            decoding,
            phase: Phase::Prefill { processed: lease.cached, told: false },
            timer: None,
            lease: Some(lease),
            sim,
        }
    }

    /// Prompt tokens.
    #[must_use]
    pub fn tokens_in(&self) -> u32 {
        self.tokens_in
    }

    /// Waits for the next step. Must not be called after [`Step::Done`] or a fault that ends the stream; it waits forever
    /// then.
    pub fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            match &self.phase {
                Phase::Prefill { processed, told } => {
                    let (processed, told) = (*processed, *told);
                    if let Some(step) = ready!(self.poll_prefill(processed, told, cx)) {
                        return Poll::Ready(Step::Prefill(step));
                    }
                }
                Phase::Decode { .. } => return self.poll_decode(cx),
                Phase::Over => return Poll::Pending,
            }
        }
    }

    /// [`Generation::poll_step`] as a future.
    pub async fn step(&mut self) -> Step {
        std::future::poll_fn(|cx| self.poll_step(cx)).await
    }

    fn poll_prefill(&mut self, processed: u32, told: bool, cx: &mut Context<'_>) -> Poll<Option<Prefill>> {
        if self.progress && !told {
            self.phase = Phase::Prefill { processed, told: true };
            return Poll::Ready(Some(self.prefill(processed)));
        }
        if processed == self.tokens_in {
            self.sim.0.lock().counters.prompt_tokens += u64::from(self.tokens_in - self.cached);
            self.phase = Phase::Decode { pieces: 0, tokens_out: 0, word: None };
            return Poll::Ready(None);
        }
        let next = if self.progress { self.batch_after(processed) } else { self.tokens_in };
        ready!(self.poll_until(self.read_at(next), cx));
        self.phase = Phase::Prefill { processed: next, told: true };
        Poll::Ready(self.progress.then(|| self.prefill(next)))
    }

    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Phase::Decode { pieces, tokens_out, ref mut word } = self.phase else { return Poll::Pending };
        let word = word.take();
        if let Some(fault) = self.fault_due(tokens_out) {
            return self.strike(fault);
        }
        if let Some(word) = word {
            return Poll::Ready(self.finish(tokens_out, StopType::Word(word)));
        }
        let piece = self.voice.piece(pieces);
        let cost = if self.split { piece.byte_tokens() } else { 1 };
        let after = tokens_out.saturating_add(cost).min(self.limit.tokens);
        ready!(self.poll_until(self.written_at(after), cx));
        let written = after - tokens_out;
        self.sim.0.tokens_written.fetch_add(written.into(), Ordering::Relaxed);
        if let Some(lease) = &self.lease {
            lease.decoded.store(after, Ordering::Relaxed);
        }
        if written < cost {
            // Out of tokens, perhaps inside a character: its first bytes are counted and never sent.
            return Poll::Ready(self.finish(after, self.limit.stop_type()));
        }
        let is_eos = after == self.limit.tokens && self.limit.ends == Ends::Eos;
        let (text, word) = if is_eos { (Text::Loose(String::new()), None) } else { self.filter(piece) };
        self.phase = Phase::Decode { pieces: pieces + 1, tokens_out: after, word };
        Poll::Ready(Step::Token(Token { text, id: if is_eos { EOS } else { piece.id }, tokens_out: after }))
    }

    fn filter(&mut self, piece: &'static Piece) -> (Text, Option<String>) {
        match self.stop.as_mut().map(|filter| filter.push(piece.text)) {
            None => (Text::Piece(piece), None),
            Some(Passed::Text(text)) => (Text::Loose(text), None),
            Some(Passed::Stopped(text, word)) => (Text::Loose(text), Some(word)),
        }
    }

    fn fault_due(&mut self, tokens_out: u32) -> Option<MidStream> {
        if self.sim.0.crashed.load(Ordering::Relaxed) {
            return Some(MidStream::Reset);
        }
        match self.fault {
            Some(Inside::After(tokens, fault)) if tokens <= tokens_out => {
                self.fault = None;
                Some(fault)
            }
            _ => None,
        }
    }

    fn strike(&mut self, fault: MidStream) -> Poll<Step> {
        if fault.goes_on() {
            return Poll::Ready(Step::Fault(fault));
        }
        self.phase = Phase::Over;
        match fault {
            MidStream::Stall => return Poll::Pending,
            MidStream::Crash(death) => self.sim.crash(death),
            _ => {}
        }
        self.release(Ending::Failed);
        Poll::Ready(Step::Fault(fault))
    }

    fn finish(&mut self, tokens_out: u32, stop: StopType) -> Step {
        self.phase = Phase::Over;
        let odd = match self.fault.take() {
            Some(Inside::AtEnd(OddEnd::Reset)) => {
                self.release(Ending::Failed);
                return Step::Fault(MidStream::Reset);
            }
            Some(Inside::AtEnd(odd)) => Some(odd),
            Some(Inside::After(..)) | None => None,
        };
        let prompt_ms = millis(self.decoding - self.started);
        let predicted_ms = millis(Instant::now().saturating_duration_since(self.decoding));
        {
            let mut state = self.sim.0.lock();
            state.counters.prompt_ms += prompt_ms;
            state.counters.predicted_ms += predicted_ms;
        }
        self.release(Ending::Completed);
        let jump_ms = odd.map_or(0.0, OddEnd::clock_jump_ms);
        Step::Done(Finished {
            rest: self.stop.as_mut().map(StopFilter::rest).unwrap_or_default(),
            stop,
            slot: self.slot,
            tokens_in: self.tokens_in,
            cached: self.cached,
            tokens_out,
            prompt_ms: prompt_ms + jump_ms,
            predicted_ms: predicted_ms + jump_ms,
            odd,
        })
    }

    fn release(&mut self, ending: Ending) {
        if let Some(mut lease) = self.lease.take() {
            lease.ending = ending;
        }
    }

    fn prefill(&self, processed: u32) -> Prefill {
        Prefill { total: self.tokens_in, cached: self.cached, processed, elapsed_ms: millis(self.started.elapsed()) }
    }

    fn batch_after(&self, processed: u32) -> u32 {
        processed.saturating_add(self.sim.config().prefill_batch.get()).min(self.tokens_in)
    }

    /// When so many prompt tokens are read.
    fn read_at(&self, processed: u32) -> Instant {
        self.started + self.sim.prefill_time(processed - self.cached)
    }

    /// When token number `count` is written, counted from 1. The prompt's own result is the first one.
    fn written_at(&self, count: u32) -> Instant {
        self.decoding + self.interval * count.saturating_sub(1)
    }

    fn poll_until(&mut self, when: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if when <= self.started || when <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(when)));
        if timer.deadline() != when {
            timer.as_mut().reset(when);
        }
        timer.as_mut().poll(cx)
    }

    /// When the engine would next look at the connection, should the caller have gone.
    fn notices_at(&self) -> Instant {
        match (&self.phase, self.delivery) {
            (_, Delivery::Whole) => self.written_at(self.limit.tokens),
            (Phase::Prefill { processed, .. }, Delivery::Stream) if self.progress => {
                self.read_at(self.batch_after(*processed))
            }
            (Phase::Prefill { .. }, Delivery::Stream) => self.decoding,
            (Phase::Decode { .. } | Phase::Over, Delivery::Stream) => self.started,
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let when = self.notices_at();
        if when <= Instant::now() {
            return;
        }
        // Without a runtime there is no time to pass, and the slot is free at once.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                tokio::time::sleep_until(when).await;
                drop(lease);
            });
        }
    }
}

impl Limit {
    fn stop_type(self) -> StopType {
        match self.ends {
            Ends::Eos => StopType::Eos,
            Ends::Asked => StopType::Limit { truncated: false },
            Ends::Context => StopType::Limit { truncated: true },
        }
    }
}

/// The least of what was asked for, what the model has to say and what the context holds.
fn limit(output: OutputLength, ctx: u32, voice: Voice, ask: &Ask, tokens_in: u32) -> Limit {
    let asked = ask.max_tokens.map(|tokens| Limit { tokens, ends: Ends::Asked });
    let eos = match output {
        OutputLength::Between(low, high) => Some(voice.between(low, high)),
        OutputLength::Percent(low, high) => {
            let asked = u64::from(ask.max_tokens.unwrap_or(UNASKED_TOKENS));
            u32::try_from(asked * u64::from(voice.between(low, high)) / 100).ok()
        }
        OutputLength::AsAsked => ask.max_tokens.is_none().then_some(UNASKED_TOKENS),
    };
    let eos = eos.filter(|_| !ask.ignore_eos).map(|tokens| Limit { tokens: tokens.max(1), ends: Ends::Eos });
    let context = Limit { tokens: ctx.saturating_sub(tokens_in), ends: Ends::Context };
    [asked, eos]
        .into_iter()
        .flatten()
        .fold(context, |least, next| if next.tokens <= least.tokens { next } else { least })
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
