//! A slot's cache in a file: `POST /slots/{id}?action=save` and `restore`. Source: llama.cpp `tools/server/README.md`, and
//! `handle_slots_save`, `handle_slots_restore` in `tools/server/server-context.cpp`. Both want a server that was started with
//! `--slot-save-path`; whether `/slots` itself is switched on does not matter to them. A slot number beyond the last is taken
//! modulo the slots, and the answer does not tell: whoever asks must know how many there are.

use adapter_api::{SlotFile, WorkerError};
use serde::Deserialize;

use crate::wire::unusable;

/// What is done with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Save,
    Restore,
}

/// The answer to either.
#[derive(Debug, Deserialize)]
pub(crate) struct Done {
    n_saved: Option<u64>,
    n_written: Option<u64>,
    n_restored: Option<u64>,
    n_read: Option<u64>,
}

impl Action {
    pub(crate) fn path(self, slot: u32) -> String {
        let action = match self {
            Self::Save => "save",
            Self::Restore => "restore",
        };
        format!("/slots/{slot}?action={action}")
    }

    /// # Errors
    /// When the server's answer does not say what it has done.
    pub(crate) fn outcome(self, done: &Done) -> Result<SlotFile, WorkerError> {
        let (tokens, bytes) = match self {
            Self::Save => (done.n_saved, done.n_written),
            Self::Restore => (done.n_restored, done.n_read),
        };
        let (tokens, bytes) =
            tokens.zip(bytes).ok_or_else(|| unusable("it does not say how much of a slot it has moved"))?;
        Ok(SlotFile { tokens, bytes })
    }
}
