//! What was said, for tests (ORCH-3306).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::span::{Attributes, Id};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

use crate::layer::{add, inherit, remember};
use crate::record::Record;

/// One event as the log would have it: secrets masked, fields of spans included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// Its level.
    pub level: Level,
    /// Where it came from; `narration` for narrated events.
    pub module: String,
    /// Its fields as text.
    pub fields: BTreeMap<String, String>,
}

impl Captured {
    /// A field's value.
    #[must_use]
    pub fn get(&self, field: &str) -> Option<&str> {
        self.fields.get(field).map(String::as_str)
    }

    /// The sentence, or nothing.
    #[must_use]
    pub fn human(&self) -> &str {
        self.get("human").unwrap_or_default()
    }
}

/// Reads what was captured. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    events: Arc<Mutex<Vec<Captured>>>,
    guard: Option<Arc<Restore>>,
}

/// Ends the capture of a thread when the last [`Capture`] of it goes.
struct Restore {
    _guard: DefaultGuard,
}

impl std::fmt::Debug for Restore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Restore")
    }
}

impl Capture {
    /// Everything captured so far.
    #[must_use]
    pub fn events(&self) -> Vec<Captured> {
        self.lock().clone()
    }

    /// The narrated events with this action.
    #[must_use]
    pub fn actions(&self, action: &str) -> Vec<Captured> {
        self.lock().iter().filter(|event| event.get("action") == Some(action)).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Captured>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Captures every event of the current thread until the result is dropped.
#[must_use]
pub fn capture() -> Capture {
    let (layer, mut capture) = capture_layer();
    let guard = tracing::subscriber::set_default(Registry::default().with(layer));
    capture.guard = Some(Arc::new(Restore { _guard: guard }));
    capture
}

/// A layer that captures, to be put into a subscriber of one's own, for code that runs on several threads.
#[must_use]
pub fn capture_layer<S>() -> (impl Layer<S>, Capture)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let capture = Capture::default();
    (CaptureLayer(Arc::clone(&capture.events)), capture)
}

struct CaptureLayer(Arc<Mutex<Vec<Captured>>>);

impl<S> Layer<S> for CaptureLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        remember(attributes, id, &context);
    }

    fn on_record(&self, id: &Id, values: &tracing::span::Record<'_>, context: Context<'_, S>) {
        add(values, id, &context);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        inherit(&mut record, event, &context);
        let captured = Captured {
            level: *event.metadata().level(),
            module: event.metadata().target().to_owned(),
            fields: record.iter().map(|(name, _, value)| (name.to_owned(), value.to_owned())).collect(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(captured);
    }
}
