//! Where the documents themselves are.

mod files;
mod memory;

use std::io;

use bytes::Bytes;

use crate::key::Key;

pub(crate) use files::FsArtifacts;
pub(crate) use memory::MemoryArtifacts;

/// Bytes by key. Nothing here knows what they mean, or compares them with their key.
pub(crate) trait Blobs: Send + Sync {
    /// Writes a document, but not to its place yet; `durable` waits for the disk.
    fn stage(&self, key: Key, json: Bytes, durable: bool) -> io::Result<Staged>;

    /// Brings what was staged to its place.
    fn publish(&self, staged: Staged, durable: bool) -> io::Result<()>;

    /// Drops what was staged.
    fn discard(&self, staged: Staged);

    /// What is in its place; `None` when nothing is.
    fn read(&self, key: Key) -> io::Result<Option<Bytes>>;

    /// Removes what is in its place, if anything is.
    fn remove(&self, key: Key) -> io::Result<()>;

    /// Keeps what is in its place where nothing looks for it.
    fn set_aside(&self, key: Key) -> io::Result<()>;

    /// Waits until all that was published is on the disk.
    fn sync(&self) -> io::Result<()>;
}

/// A document that is not in its place yet.
pub(crate) struct Staged {
    pub(crate) key: Key,
    /// Tells two of the same key apart.
    number: u64,
    json: Bytes,
}
