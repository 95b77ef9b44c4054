//! A fact about an engine, asked for at most once at a time and remembered for a while.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use adapter_api::WorkerError;
use tokio::time::Instant;

/// A fact with its age. A value outlives the failure of a later question, so whoever acts on it looks at both.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed<T> {
    /// What the engine said last.
    pub value: T,
    /// Time since it said so.
    pub age: Duration,
    /// Why it could not be asked again since.
    pub refresh_error: Option<WorkerError>,
}

/// The cache of one fact.
#[derive(Debug)]
pub(crate) struct Cached<T> {
    state: Mutex<State<T>>,
    /// Held by the one caller who asks.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State<T> {
    good: Option<(T, Instant)>,
    /// The last question, answered or not.
    asked: Option<Asked>,
    questions: u64,
}

#[derive(Debug)]
struct Asked {
    at: Instant,
    error: Option<WorkerError>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { good: None, asked: None, questions: 0 }), turn: tokio::sync::Mutex::new(()) }
    }
}

impl<T: Clone> Cached<T> {
    /// The fact, asked for unless that was done within `fresh_for`. Callers who come while somebody asks share that answer,
    /// a failure included. When a caller who asks is dropped, the next one asks again.
    pub(crate) async fn get<F>(&self, fresh_for: Duration, ask: impl FnOnce() -> F) -> Result<Observed<T>, WorkerError>
    where
        F: Future<Output = Result<T, WorkerError>>,
    {
        let questions = {
            let state = self.lock();
            if state.asked.as_ref().is_some_and(|asked| asked.at.elapsed() < fresh_for) {
                return state.observed();
            }
            state.questions
        };
        let _turn = self.turn.lock().await;
        if self.lock().questions == questions {
            let answer = ask().await;
            self.lock().record(answer);
        }
        self.lock().observed()
    }

    /// The last good answer, without asking.
    pub(crate) fn last(&self) -> Option<Observed<T>> {
        self.lock().observed().ok()
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Every change is one assignment after another that cannot panic in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> State<T> {
    fn record(&mut self, answer: Result<T, WorkerError>) {
        let at = Instant::now();
        self.questions += 1;
        let error = match answer {
            Ok(value) => {
                self.good = Some((value, at));
                None
            }
            Err(error) => Some(error),
        };
        self.asked = Some(Asked { at, error });
    }

    fn observed(&self) -> Result<Observed<T>, WorkerError> {
        let refresh_error = self.asked.as_ref().and_then(|asked| asked.error.clone());
        match (&self.good, refresh_error) {
            (Some((value, at)), refresh_error) => {
                Ok(Observed { value: value.clone(), age: at.elapsed(), refresh_error })
            }
            (None, Some(error)) => Err(error),
            (None, None) => Err(WorkerError::PoolUnavailable("the engine has not been asked yet".to_owned())),
        }
    }
}
