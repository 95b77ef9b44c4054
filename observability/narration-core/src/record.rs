//! One event or span as a list of fields, in buffers that are used again.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Range;

use tracing::field::{Field, Visit};

use crate::redact::{REDACTED, is_secret_name, redact};

/// Fields in the order they came. All values share one text, so that a record costs no allocation once it has grown.
#[derive(Debug, Default)]
pub(crate) struct Record {
    text: String,
    fields: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    name: &'static str,
    kind: Kind,
    value: Range<usize>,
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In quotes.
    Text,
    /// As it is: a number or a boolean.
    Bare,
}

impl Record {
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.fields.clear();
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static str, Kind, &str)> {
        self.fields.iter().map(|entry| (entry.name, entry.kind, &self.text[entry.value.clone()]))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(known, ..)| *known == name).map(|(.., value)| value)
    }

    /// Adds those fields of another record whose names are not here yet.
    pub(crate) fn inherit(&mut self, outer: &Self) {
        for (name, kind, value) in outer.iter() {
            if self.get(name).is_none() {
                self.push(name, kind, |text| text.push_str(value));
            }
        }
    }

    /// Adds a field; a later value of the same name replaces the earlier one, as when a span's field is recorded again.
    fn push(&mut self, name: &'static str, kind: Kind, write: impl FnOnce(&mut String)) {
        let start = self.text.len();
        write(&mut self.text);
        let value = start..self.text.len();
        match self.fields.iter_mut().find(|entry| entry.name == name) {
            Some(entry) => (entry.kind, entry.value) = (kind, value),
            None => self.fields.push(Entry { name, kind, value }),
        }
    }

    fn push_text(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        self.push(name, Kind::Text, |text| {
            let start = text.len();
            if is_secret_name(name) {
                text.push_str(REDACTED);
                return;
            }
            write(text);
            if let Cow::Owned(clean) = redact(&text[start..]) {
                text.truncate(start);
                text.push_str(&clean);
            }
        });
    }

    fn push_bare(&mut self, name: &'static str, value: fmt::Arguments<'_>) {
        self.push(name, Kind::Bare, |text| text.write_fmt(value).expect("a String takes any text"));
    }
}

impl Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_text(field.name(), |text| {
            // A `Display` that fails leaves what it wrote so far; a log line is no place to panic.
            let _ = write!(text, "{value:?}");
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field.name(), |text| text.push_str(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.push_text(field.name(), |text| {
            let _ = write!(text, "{value}");
            let mut source = value.source();
            while let Some(cause) = source {
                let _ = write!(text, ": {cause}");
                source = cause.source();
            }
        });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push_bare(field.name(), format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push_bare(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push_bare(field.name(), format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.push_bare(field.name(), format_args!("{value}"));
        } else {
            // JSON has no such numbers.
            self.push_text(field.name(), |text| text.push_str(if value.is_nan() { "NaN" } else { "infinite" }));
        }
    }
}
