//! What clients saw.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use api_types::TaskState;
use serde::Serialize;

use super::visit::Behaviour;

/// The counts of all visits.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Counts>);

/// What clients saw, in numbers.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Counts {
    /// Visits by what they did.
    pub(super) visits: BTreeMap<Behaviour, u64>,
    /// Tasks that were accepted.
    pub(super) accepted: u64,
    /// Their ends, as their records tell.
    pub(super) ended: BTreeMap<&'static str, u64>,
    /// Requests that were refused, bad ones included, by status.
    pub(super) refused: BTreeMap<u16, u64>,
    /// What must not be.
    pub(super) wrong: BTreeMap<Wrong, u64>,
    /// The first few of these, in words.
    pub(super) examples: Vec<String>,
}

/// What must not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Wrong {
    /// An accepted task without an end.
    NeverEnded,
    /// Something after a stream's last event.
    WentOn,
    /// A stream that tells another end than the task's record.
    Contradicted,
    /// A token that is missing, doubled or out of order.
    TokenLost,
    /// A stream that broke off.
    BrokeOff,
    /// A bad request that was not refused as one.
    BadRequestTaken,
    /// A good request with an answer that none should have.
    BadAnswer,
}

/// Most examples that are kept.
const EXAMPLES: usize = 20;

impl Ledger {
    /// Changes the counts.
    pub(super) fn note(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts what must not be.
    pub(super) fn wrong(&self, what: Wrong, example: impl FnOnce() -> String) {
        self.note(|counts| {
            *counts.wrong.entry(what).or_default() += 1;
            if counts.examples.len() < EXAMPLES {
                counts.examples.push(format!("{what:?}: {}", example()));
            }
        });
    }

    /// Counts an end.
    pub(super) fn ended(&self, state: TaskState) {
        self.note(|counts| *counts.ended.entry(state.as_str()).or_default() += 1);
    }

    /// The counts so far.
    pub(super) fn counts(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Counts {
    /// Tasks that have ended.
    pub(super) fn ended_in_all(&self) -> u64 {
        self.ended.values().sum()
    }

    /// Refused requests.
    pub(super) fn refused_in_all(&self) -> u64 {
        self.refused.values().sum()
    }
}
