//! Equal fetches share one: the first does the work, those that come while it is under way wait for its outcome. When the
//! first is canceled, the next goes on where it stopped.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use api_types::ModelId;
use catalog_core::{Digest, FetchContext, FetchError, Fetched, Progress};

/// What makes two fetches equal: the model, what it must be, and whether the operator named it.
pub(crate) type Key = (ModelId, Option<Digest>, bool);

/// The fetches under way.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Key, Weak<Flight>>>);

/// One fetch and all who wait for it.
#[derive(Default)]
struct Flight {
    /// The outcome once there is one; held by whoever does the work.
    outcome: tokio::sync::Mutex<Option<Result<Fetched, FetchError>>>,
    told: Mutex<Told>,
}

/// What was told so far, for those who come late.
#[derive(Default)]
struct Told {
    listeners: Vec<Arc<dyn Progress>>,
    planned: Option<(usize, Option<u64>)>,
    bytes: u64,
    files: Vec<String>,
}

impl Flights {
    /// Does `work`, or waits for somebody who does the same.
    pub(crate) async fn share<F: Future<Output = Result<Fetched, FetchError>>>(
        &self,
        key: Key,
        context: &FetchContext,
        work: impl FnOnce(FetchContext) -> F,
    ) -> Result<Fetched, FetchError> {
        let flight = self.join(key);
        let _seat = Seat::take(&flight, &context.progress);
        let mut outcome = tokio::select! {
            biased;
            () = context.cancel.cancelled() => return Err(FetchError::Canceled),
            outcome = flight.outcome.lock() => outcome,
        };
        match &*outcome {
            Some(Ok(fetched)) => return Ok(Fetched { transferred_bytes: 0, ..fetched.clone() }),
            Some(Err(error)) => return Err(copy_of(error)),
            None => {}
        }
        flight.begin();
        let shared = FetchContext {
            progress: Arc::clone(&flight) as Arc<dyn Progress>,
            cancel: context.cancel.clone(),
            configured: context.configured,
        };
        let done = work(shared).await;
        // What one of several did not want any more may still be wanted by the others.
        if !matches!(done, Err(FetchError::Canceled)) {
            *outcome = Some(done.as_ref().map(Clone::clone).map_err(copy_of));
        }
        done
    }

    fn join(&self, key: Key) -> Arc<Flight> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.retain(|_, flight| flight.strong_count() > 0);
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade).filter(|flight| !flight.is_over()) {
            return flight;
        }
        let flight = Arc::default();
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }
}

impl Flight {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is an outcome, which is for those who waited for it and nobody else.
    fn is_over(&self) -> bool {
        self.outcome.try_lock().is_ok_and(|outcome| outcome.is_some())
    }

    /// Whoever takes over counts from the beginning.
    fn begin(&self) {
        let told = &mut *self.told();
        told.listeners.iter().filter(|_| told.bytes > 0).for_each(|listener| listener.lost(told.bytes));
        (told.planned, told.bytes) = (None, 0);
        told.files.clear();
    }
}

/// A listener for as long as it waits.
struct Seat<'a>(&'a Flight, &'a Arc<dyn Progress>);

impl<'a> Seat<'a> {
    fn take(flight: &'a Flight, progress: &'a Arc<dyn Progress>) -> Self {
        let mut told = flight.told();
        if let Some((files, bytes)) = told.planned {
            progress.planned(files, bytes);
        }
        if told.bytes > 0 {
            progress.advanced(told.bytes);
        }
        told.files.iter().for_each(|name| progress.file_done(name));
        told.listeners.push(Arc::clone(progress));
        drop(told);
        Self(flight, progress)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let listeners = &mut self.0.told().listeners;
        if let Some(place) = listeners.iter().position(|listener| Arc::ptr_eq(listener, self.1)) {
            listeners.swap_remove(place);
        }
    }
}

impl Progress for Flight {
    fn waiting(&self) {
        self.told().listeners.iter().for_each(|listener| listener.waiting());
    }

    fn planned(&self, files: usize, bytes: Option<u64>) {
        let mut told = self.told();
        told.planned = Some((files, bytes));
        told.listeners.iter().for_each(|listener| listener.planned(files, bytes));
    }

    fn advanced(&self, bytes: u64) {
        let mut told = self.told();
        told.bytes += bytes;
        told.listeners.iter().for_each(|listener| listener.advanced(bytes));
    }

    fn lost(&self, bytes: u64) {
        let mut told = self.told();
        told.bytes = told.bytes.saturating_sub(bytes);
        told.listeners.iter().for_each(|listener| listener.lost(bytes));
    }

    fn file_done(&self, name: &str) {
        let mut told = self.told();
        told.files.push(name.to_owned());
        told.listeners.iter().for_each(|listener| listener.file_done(name));
    }
}

/// The same error for one more who waited; an error of the system keeps its kind and text.
fn copy_of(error: &FetchError) -> FetchError {
    match error {
        FetchError::Denied(text) => FetchError::Denied(text.clone()),
        FetchError::Unsupported(text) => FetchError::Unsupported(text.clone()),
        FetchError::NotFound(text) => FetchError::NotFound(text.clone()),
        FetchError::Unauthorized(text) => FetchError::Unauthorized(text.clone()),
        FetchError::Source(text) => FetchError::Source(text.clone()),
        FetchError::Canceled => FetchError::Canceled,
        FetchError::Digest { file, expected, found } => {
            FetchError::Digest { file: file.clone(), expected: expected.clone(), found: found.clone() }
        }
        FetchError::NoSpace { path, needed_bytes, free_bytes } => {
            FetchError::NoSpace { path: path.clone(), needed_bytes: *needed_bytes, free_bytes: *free_bytes }
        }
        FetchError::Io { action, path, source } => {
            let source = std::io::Error::new(source.kind(), source.to_string());
            FetchError::Io { action, path: path.clone(), source }
        }
    }
}
