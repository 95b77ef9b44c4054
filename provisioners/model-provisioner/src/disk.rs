//! The disk that models are written to, as far as tests want another one.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// A disk.
pub trait Disk: Send + Sync {
    /// Bytes that are free for us where a folder is, or will be.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self, folder: &Path) -> io::Result<u64>;

    /// Appends to a file.
    ///
    /// # Errors
    /// As the system says; a part may have been written.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
}

/// The disks of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalDisk;

impl Disk for LocalDisk {
    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let there = folder.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        let found = rustix::fs::statvfs(there)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

/// Whether a write failed because there is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
