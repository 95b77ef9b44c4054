//! Documents in memory, for as long as the process lives.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::{Blobs, Staged};
use crate::key::Key;

/// Keeps documents in a map.
#[derive(Default)]
pub(crate) struct MemoryArtifacts(Mutex<HashMap<Key, Bytes>>);

impl MemoryArtifacts {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blobs for MemoryArtifacts {
    fn stage(&self, key: Key, json: Bytes, _durable: bool) -> io::Result<Staged> {
        Ok(Staged { key, number: 0, json })
    }

    fn publish(&self, staged: Staged, _durable: bool) -> io::Result<()> {
        self.lock().insert(staged.key, staged.json);
        Ok(())
    }

    fn discard(&self, _staged: Staged) {}

    fn read(&self, key: Key) -> io::Result<Option<Bytes>> {
        Ok(self.lock().get(&key).cloned())
    }

    fn remove(&self, key: Key) -> io::Result<()> {
        self.lock().remove(&key);
        Ok(())
    }

    fn set_aside(&self, key: Key) -> io::Result<()> {
        self.remove(key)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}
