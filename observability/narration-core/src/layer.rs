//! The `tracing` layer that writes lines.

use std::cell::RefCell;

use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::record::Record;
use crate::render;
use crate::sink::Sink;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Json,
    Pretty { colour: bool },
}

/// Formats events and hands the lines to a [`Sink`].
#[derive(Debug)]
pub struct LineLayer {
    style: Style,
    sink: Sink,
}

/// What a thread formats with. It grows to the largest event and is used again.
#[derive(Default)]
struct Scratch {
    record: Record,
    line: String,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl LineLayer {
    /// JSON lines.
    #[must_use]
    pub fn json(sink: Sink) -> Self {
        Self { style: Style::Json, sink }
    }

    pub(crate) fn new(style: Style, sink: Sink) -> Self {
        Self { style, sink }
    }

    fn write<S>(&self, scratch: &mut Scratch, event: &Event<'_>, context: &Context<'_, S>)
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let Scratch { record, line } = scratch;
        record.clear();
        line.clear();
        event.record(record);
        inherit(record, event, context);
        match self.style {
            Style::Json => render::json(line, event.metadata(), record),
            Style::Pretty { colour } => render::pretty(line, event.metadata(), record, colour),
        }
        self.sink.push(line.as_bytes(), *event.metadata().level() == Level::ERROR);
    }
}

impl<S> Layer<S> for LineLayer
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
        SCRATCH.with(|scratch| match scratch.try_borrow_mut() {
            Ok(mut scratch) => self.write(&mut scratch, event, &context),
            // An event from inside a value's own `Display`: rare, and worth an allocation.
            Err(_) => self.write(&mut Scratch::default(), event, &context),
        });
    }
}

/// Adds the fields of the spans around an event, innermost first; inner values win.
pub(crate) fn inherit<S>(record: &mut Record, event: &Event<'_>, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    for span in context.event_scope(event).into_iter().flatten() {
        if let Some(outer) = span.extensions().get::<Record>() {
            record.inherit(outer);
        }
    }
}

/// Keeps a new span's fields with it.
pub(crate) fn remember<S>(attributes: &Attributes<'_>, id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(span) = context.span(id) else { return };
    let mut record = Record::default();
    attributes.record(&mut record);
    span.extensions_mut().replace(record);
}

/// Adds fields that a span got later.
pub(crate) fn add<S>(values: &tracing::span::Record<'_>, id: &Id, context: &Context<'_, S>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let Some(span) = context.span(id) else { return };
    if let Some(record) = span.extensions_mut().get_mut::<Record>() {
        values.record(record);
    }
}
