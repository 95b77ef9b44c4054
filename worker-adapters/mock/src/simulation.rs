//! One simulated engine: its condition, counters and faults, shared by everything that talks to it.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::ask::Ask;
use crate::embedding::embed;
use crate::faults::{Death, FaultKind, Faults, Inside, Route};
use crate::generation::Generation;
use crate::slots::{Ending, Lease, SlotView, Slots};
use crate::{Config, text};

/// Whether the engine can work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It answers, and takes no work yet.
    Loading,
    /// It takes work.
    Ready,
    /// It is dead.
    Crashed,
}

/// Why the engine does not take a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The model is loading.
    #[error("Loading model")]
    Loading,
    /// The engine is dead.
    #[error("the engine has crashed")]
    Crashed,
    /// The prompt does not fit.
    #[error("request ({prompt_tokens} tokens) exceeds the available context size ({ctx} tokens), try increasing it")]
    ContextExceeded {
        /// The prompt's tokens.
        prompt_tokens: u32,
        /// A slot's context.
        ctx: u32,
    },
    /// The engine was not started for this.
    #[error("This server does not support embeddings. Start it with `--embeddings`")]
    NoEmbeddings,
}

/// Counts since the start, and what is going on now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Requests to generate or embed that arrived, refused ones included.
    pub requests: u64,
    /// Requests in a slot now.
    pub running: u64,
    /// Requests waiting for a slot now.
    pub deferred: u64,
    /// Requests that ended as meant.
    pub completed: u64,
    /// Requests whose caller went away, counted when the engine has noticed.
    pub cancelled: u64,
    /// Requests that a fault broke off.
    pub failed: u64,
    /// Connections open now, that of whoever asks for these counts included.
    pub connections: u64,
    /// Tokens generated.
    pub tokens_written: u64,
    /// Prompt tokens read.
    pub prompt_tokens: u64,
    /// Prompt tokens found in a slot's cache.
    pub cached_tokens: u64,
    /// Time spent reading prompts, in milliseconds.
    pub prompt_ms: f64,
    /// Time spent generating, in milliseconds.
    pub predicted_ms: f64,
}

/// A simulated engine. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Simulation(pub(crate) Arc<Shared>);

/// What is left of a request after the faults that strike before its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It goes on, perhaps into a fault inside its answer.
    Go(Option<Inside>),
    /// It is answered with this status, and this body instead of the engine's own.
    Refuse(u16, Option<String>),
    /// It is answered with a web page.
    WebPage,
    /// Its answer's head comes byte by byte, with so much time in between.
    TrickleHead(Duration),
    /// Its connection is reset in the head of its answer.
    HalfHead,
    /// Its stream claims this length.
    WrongLength(u64),
    /// It is told that all is well, whether it is or not.
    Healthy,
}

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) tokens_written: AtomicU64,
    /// Apart from the state, since every token asks.
    pub(crate) crashed: AtomicBool,
    state: Mutex<State>,
    changed: watch::Sender<()>,
    on_crash: OnceLock<Box<dyn Fn(Death) + Send + Sync>>,
}

pub(crate) struct State {
    pub(crate) slots: Slots,
    /// The counts that are not kept elsewhere.
    pub(crate) counters: Stats,
    faults: Faults,
    /// How often the faults were replaced.
    replacements: u64,
    /// When loading is over, unless it is held up.
    ready_at: Instant,
    /// Whether loading goes on until somebody says that it is over.
    held: bool,
    /// How often a flaky answer was drawn.
    draws: u64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Simulation").field("config", &self.config).finish_non_exhaustive()
    }
}

impl State {
    fn is_loading(&self) -> bool {
        self.held || Instant::now() < self.ready_at
    }
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic inside cannot leave the state half changed in a way that matters to a simulation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and tells whoever waits for a change.
    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }
}

impl Simulation {
    /// An engine that begins to load now.
    #[must_use]
    pub fn new(config: Config) -> Self {
        text::prepare();
        let faults = config.faults.clone();
        let state = State {
            slots: Slots::new(config.slots.get()),
            counters: Stats::default(),
            ready_at: Instant::now() + config.load_time + faults.slow_load(),
            faults,
            replacements: 0,
            held: false,
            draws: 0,
        };
        Self(Arc::new(Shared {
            permits: Arc::new(Semaphore::new(config.slots.get() as usize)),
            config,
            tokens_written: AtomicU64::new(0),
            crashed: AtomicBool::new(false),
            state: Mutex::new(state),
            changed: watch::Sender::new(()),
            on_crash: OnceLock::new(),
        }))
    }

    /// What it is like.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// Whether it can work now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        if self.0.crashed.load(Ordering::Relaxed) {
            Condition::Crashed
        } else if self.0.lock().is_loading() {
            Condition::Loading
        } else {
            Condition::Ready
        }
    }

    /// Lets loading go on, beyond its time, until [`Simulation::loaded`].
    pub fn hold_loading(&self) {
        self.0.update(|state| state.held = true);
    }

    /// Loading is no longer held up.
    pub fn loaded(&self) {
        self.0.update(|state| state.held = false);
    }

    /// Time that loading still takes, if nothing holds it up.
    #[must_use]
    pub fn loading_left(&self) -> Duration {
        self.0.lock().ready_at.saturating_duration_since(Instant::now())
    }

    /// What its slots do now.
    #[must_use]
    pub fn slots(&self) -> Vec<SlotView> {
        self.0.lock().slots.views()
    }

    /// Counts up to now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let state = self.0.lock();
        Stats {
            running: u64::from(state.slots.running()),
            deferred: u64::from(state.slots.deferred),
            tokens_written: self.0.tokens_written.load(Ordering::Relaxed),
            ..state.counters
        }
    }

    /// Waits until the counts are as wanted. Single tokens do not wake it; requests that come, start, end or are given up do.
    pub async fn wait_until(&self, wanted: impl Fn(&Stats) -> bool) -> Stats {
        let mut changed = self.0.changed.subscribe();
        loop {
            let stats = self.stats();
            if wanted(&stats) {
                return stats;
            }
            changed.changed().await.expect("the simulation outlives its borrower");
        }
    }

    /// The faults still to strike.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.0.lock().faults.clone()
    }

    /// The faults as soon as they were replaced more than `seen` times, and how often they were.
    pub async fn faults_after(&self, seen: u64) -> (Faults, u64) {
        let mut changed = self.0.changed.subscribe();
        loop {
            {
                let state = self.0.lock();
                if state.replacements > seen {
                    return (state.faults.clone(), state.replacements);
                }
            }
            changed.changed().await.expect("the simulation outlives its borrower");
        }
    }

    /// Waits until the state has something to give.
    pub(crate) async fn when_changed<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changed = self.0.changed.subscribe();
        loop {
            if let Some(found) = look(&mut self.0.lock()) {
                return found;
            }
            changed.changed().await.expect("the simulation outlives its borrower");
        }
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: Faults) {
        self.0.update(|state| {
            let loads = faults.slow_load();
            if !loads.is_zero() {
                state.ready_at = Instant::now() + loads;
            }
            state.faults = faults;
            state.replacements += 1;
        });
    }

    /// What to do when a fault says that the process dies; the simulation is dead in any case. Only the first call counts.
    pub fn on_crash(&self, exit: impl Fn(Death) + Send + Sync + 'static) {
        let _first = self.0.on_crash.set(Box::new(exit));
    }

    /// Dies.
    pub fn crash(&self, death: Death) {
        self.0.crashed.store(true, Ordering::Relaxed);
        self.0.update(|_| ());
        if let Some(exit) = self.0.on_crash.get() {
            exit(death);
        }
    }

    /// The fault that hits a request to this route, counted down.
    pub(crate) fn take_fault(&self, route: Route) -> Option<FaultKind> {
        self.0.lock().faults.take(route)
    }

    /// Lets a fault strike, as far as it comes before the answer. Never returns when it says to hang.
    pub(crate) async fn open(&self, fault: Option<FaultKind>) -> Opening {
        match fault {
            Some(FaultKind::Hang | FaultKind::NoRead) => std::future::pending().await,
            Some(FaultKind::SlowHeaders { ms }) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Opening::Go(None)
            }
            Some(FaultKind::TrickleHead { ms }) => Opening::TrickleHead(Duration::from_millis(ms)),
            Some(FaultKind::HalfHead) => Opening::HalfHead,
            Some(FaultKind::Refuse { status, body }) => Opening::Refuse(status, body),
            Some(FaultKind::WrongContentType) => Opening::WebPage,
            Some(FaultKind::WrongLength { bytes }) => Opening::WrongLength(bytes),
            Some(FaultKind::Flaky { seed, early }) => self.open_flaky(seed, early).await,
            Some(other) => Opening::Go(other.inside()),
            None => Opening::Go(None),
        }
    }

    /// Of ten answers about four are right, four a refusal, and two never come.
    async fn open_flaky(&self, seed: u64, early: bool) -> Opening {
        let draw = self.0.update(|state| {
            state.draws += 1;
            state.draws
        });
        let mut rng = StdRng::seed_from_u64(seed.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        match rng.random_range(0..10) {
            0..4 if early => Opening::Healthy,
            0..4 => Opening::Go(None),
            4..8 => Opening::Refuse(503, None),
            _ => std::future::pending().await,
        }
    }

    /// Waits until the faults are replaced.
    pub(crate) async fn faults_replaced(&self) {
        let before = self.0.lock().replacements;
        self.faults_after(before).await;
    }

    /// Counts a connection as open until the guard is dropped.
    pub(crate) fn connected(&self) -> Connected<'_> {
        self.0.update(|state| state.counters.connections += 1);
        Connected(self)
    }

    /// Counts a request, whatever becomes of it.
    pub(crate) fn count_request(&self) {
        self.0.update(|state| state.counters.requests += 1);
    }

    /// Starts a task: waits for a slot and returns as soon as the engine has taken it. Dropping the future leaves the
    /// engine's queue.
    ///
    /// # Errors
    /// [`Refusal`] when the engine does not take it.
    pub async fn start(&self, ask: Ask) -> Result<Generation, Refusal> {
        self.start_with(ask, None).await
    }

    pub(crate) async fn start_with(&self, ask: Ask, fault: Option<Inside>) -> Result<Generation, Refusal> {
        self.check_ready()?;
        let prompt = text::tokenize(&ask.prompt);
        let prompt_tokens = self.check_fits(prompt.len())?;
        let lease = Lease::wait(&self.0, prompt, ask.cache_prompt).await;
        Ok(Generation::new(self.clone(), lease, &ask, prompt_tokens, fault))
    }

    /// Vectors for texts, with the number of tokens read.
    ///
    /// # Errors
    /// [`Refusal`] when the engine does not take it.
    pub async fn embed(&self, inputs: &[String]) -> Result<(Vec<Vec<f32>>, u32), Refusal> {
        self.check_ready()?;
        let width = self.config().embedding_width.ok_or(Refusal::NoEmbeddings)?.get();
        let mut tokens = 0;
        for input in inputs {
            tokens += self.check_fits(text::tokenize(input).len())?;
        }
        let mut lease = Lease::wait(&self.0, Vec::new(), false).await;
        tokio::time::sleep(self.prefill_time(tokens)).await;
        lease.ending = Ending::Completed;
        Ok((inputs.iter().map(|input| embed(input, width)).collect(), tokens))
    }

    fn check_ready(&self) -> Result<(), Refusal> {
        match self.condition() {
            Condition::Ready => Ok(()),
            Condition::Loading => Err(Refusal::Loading),
            Condition::Crashed => Err(Refusal::Crashed),
        }
    }

    fn check_fits(&self, tokens: usize) -> Result<u32, Refusal> {
        let ctx = self.config().ctx;
        let prompt_tokens = u32::try_from(tokens).unwrap_or(u32::MAX);
        if prompt_tokens < ctx { Ok(prompt_tokens) } else { Err(Refusal::ContextExceeded { prompt_tokens, ctx }) }
    }

    /// Time it takes to read so many prompt tokens.
    pub(crate) fn prefill_time(&self, tokens: u32) -> Duration {
        let speed = self.config().prefill_tokens_per_second;
        if speed > 0.0 { Duration::from_secs_f64(f64::from(tokens) / speed) } else { Duration::ZERO }
    }
}

/// An open connection.
pub(crate) struct Connected<'a>(&'a Simulation);

impl Drop for Connected<'_> {
    fn drop(&mut self) {
        self.0.0.update(|state| state.counters.connections -= 1);
    }
}
