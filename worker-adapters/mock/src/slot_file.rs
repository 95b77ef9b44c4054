//! What a slot remembers, in a file, as llama.cpp's `POST /slots/{id}?action=save` and `restore` have it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::simulation::Simulation;
use crate::slots::SlotMemory;

/// What such a file holds. llama.cpp finds out when another kind of model has written it, and so does this.
#[derive(Debug, Serialize, Deserialize)]
struct SlotFile {
    model: String,
    memory: SlotMemory,
}

/// How many tokens and bytes were written or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) tokens: usize,
    pub(crate) bytes: usize,
}

/// Why a slot cannot be saved or restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SlotFileError {
    #[error("This server does not support slots action. Start it with `--slot-save-path`")]
    NoFolder,
    #[error("Invalid filename")]
    Name,
    #[error("Unable to save slot")]
    Save,
    #[error("Unable to restore slot: No available space in KV cache or invalid slot save file")]
    Restore,
}

impl Simulation {
    /// Writes what a slot remembers to a file, once the slot is idle.
    pub(crate) async fn save_slot(&self, slot: usize, file: &str) -> Result<Moved, SlotFileError> {
        let path = self.slot_file(file)?;
        let memory = self.when_changed(|state| state.slots.memory(slot)).await;
        let tokens = memory.tokens();
        let file = SlotFile { model: self.config().model.clone(), memory };
        let text = serde_json::to_vec(&file).map_err(|_| SlotFileError::Save)?;
        std::fs::write(path, &text).map_err(|_| SlotFileError::Save)?;
        Ok(Moved { tokens, bytes: text.len() })
    }

    /// Has a slot remember what a file holds, once it is idle; nothing when that cannot be.
    pub(crate) async fn restore_slot(&self, slot: usize, file: &str) -> Result<Moved, SlotFileError> {
        let path = self.slot_file(file)?;
        let text = std::fs::read(path).unwrap_or_default();
        let found = serde_json::from_slice::<SlotFile>(&text).ok().filter(|found| {
            found.model == self.config().model
                && u32::try_from(found.memory.tokens()).is_ok_and(|tokens| tokens <= self.config().ctx)
        });
        let memory = found.as_ref().map(|found| found.memory.clone()).unwrap_or_default();
        self.when_changed(|state| state.slots.remember(slot, &memory).then_some(())).await;
        match found {
            Some(_) => Ok(Moved { tokens: memory.tokens(), bytes: text.len() }),
            None => Err(SlotFileError::Restore),
        }
    }

    fn slot_file(&self, name: &str) -> Result<PathBuf, SlotFileError> {
        let folder = self.config().slot_save_path.as_ref().ok_or(SlotFileError::NoFolder)?;
        let is_plain = !name.is_empty() && !name.contains(['/', '\\']) && name != "." && name != "..";
        if is_plain { Ok(folder.join(name)) } else { Err(SlotFileError::Name) }
    }
}
