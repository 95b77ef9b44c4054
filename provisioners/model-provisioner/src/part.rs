//! A file that is not complete yet: `<name>.part`, and what is known about it in `<name>.part.json`.
//!
//! Its lock says that somebody is at work on it, so there is no other lock file to clean up. All calls block.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalog_core::{Digest, FetchError, Progress};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::disk::{Disk, is_full};

/// Bytes that are read at once while a kept part is hashed again.
const CHUNK: usize = 1 << 20;

/// Where a file, its part and the knowledge about the part are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) dest: PathBuf,
    part: PathBuf,
    known: PathBuf,
}

impl Paths {
    pub(crate) fn new(dest: PathBuf) -> Self {
        let with = |end: &str| {
            let mut path = dest.clone().into_os_string();
            path.push(end);
            PathBuf::from(path)
        };
        Self { part: with(".part"), known: with(".part.json"), dest }
    }

    /// Bytes of an earlier try.
    pub(crate) fn kept_bytes(&self) -> u64 {
        fs::metadata(&self.part).map_or(0, |found| found.len())
    }
}

/// What a part is a part of. Holds no credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Known {
    /// Where it comes from.
    pub(crate) url: String,
    /// What it will be.
    pub(crate) digest: Option<Digest>,
    /// See [`RemoteFile::version`](crate::RemoteFile::version).
    pub(crate) version: Option<String>,
    /// How long it will be.
    pub(crate) size: Option<u64>,
    /// The source's strong validator.
    pub(crate) validator: Option<String>,
}

/// What a part is written with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) progress: Arc<dyn Progress>,
    pub(crate) cancel: CancellationToken,
}

/// A part that is ours.
pub(crate) struct Part {
    paths: Paths,
    file: File,
    tools: Tools,
    hasher: Sha256,
    length: u64,
}

/// A part whose content has been hashed.
pub(crate) struct Whole {
    part: Part,
    pub(crate) digest: Digest,
}

pub(crate) fn failed_to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::Io { action, path, source }
}

impl Part {
    /// Opens a part and locks it; `None` while somebody else has it.
    pub(crate) fn open(paths: &Paths, tools: &Tools) -> Result<Option<Self>, FetchError> {
        let failed = |action| failed_to(action, &paths.part);
        let folder = paths.part.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(failed_to("create", folder))?;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).truncate(false).open(&paths.part).map_err(failed("write"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("lock")(error)),
        }
        // Whoever had it may have given it its final name meanwhile, or removed it.
        let ours = file.metadata().map_err(failed("read"))?;
        let is_same =
            fs::metadata(&paths.part).is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino()));
        let part = Self { paths: paths.clone(), file, tools: tools.clone(), hasher: Sha256::new(), length: 0 };
        Ok(is_same.then_some(part))
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// What an earlier try knew about it, if it left anything.
    pub(crate) fn known(&self) -> Option<Known> {
        serde_json::from_slice(&fs::read(&self.paths.known).ok()?).ok()
    }

    /// Keeps what is there of the first `length` bytes and drops the rest.
    pub(crate) fn keep(&mut self, length: u64) -> Result<(), FetchError> {
        let failed = |action| failed_to(action, &self.paths.part);
        self.file.set_len(length).map_err(failed("write"))?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk).map_err(failed("read"))? {
                0 => return Ok(()),
                read => {
                    self.hasher.update(&chunk[..read]);
                    self.length += read as u64;
                    self.tools.progress.advanced(read as u64);
                }
            }
            if self.tools.cancel.is_cancelled() {
                return Err(FetchError::Canceled);
            }
        }
    }

    /// Drops everything and begins with what is known now.
    pub(crate) fn restart(&mut self, known: &Known) -> Result<(), FetchError> {
        self.forget()?;
        let text = serde_json::to_vec(known).map_err(|error| failed_to("write", &self.paths.known)(error.into()))?;
        self.full_or("write", fs::write(&self.paths.known, text), known.size)?;
        self.check_room(known.size)
    }

    fn forget(&mut self) -> Result<(), FetchError> {
        let failed = |action| failed_to(action, &self.paths.part);
        self.file.set_len(0).map_err(failed("write"))?;
        self.file.seek(SeekFrom::Start(0)).map_err(failed("write"))?;
        if self.length > 0 {
            self.tools.progress.lost(self.length);
        }
        (self.hasher, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    fn check_room(&self, size: Option<u64>) -> Result<(), FetchError> {
        let folder = self.paths.part.parent().unwrap_or(Path::new("/"));
        match (size, self.tools.disk.free_bytes(folder)) {
            (Some(size), Ok(free)) if size > free => Err(self.no_room(size, free)),
            _ => Ok(()),
        }
    }

    fn no_room(&self, needed_bytes: u64, free_bytes: u64) -> FetchError {
        let path = self.paths.part.parent().unwrap_or(Path::new("/")).to_owned();
        FetchError::NoSpace { path, needed_bytes, free_bytes }
    }

    fn full_or(&self, action: &'static str, result: io::Result<()>, size: Option<u64>) -> Result<(), FetchError> {
        let Err(error) = result else { return Ok(()) };
        if !is_full(&error) {
            return Err(failed_to(action, &self.paths.part)(error));
        }
        let free = self.tools.disk.free_bytes(&self.paths.part).unwrap_or(0);
        Err(self.no_room(size.unwrap_or(0).saturating_sub(self.length).max(1), free))
    }

    /// Appends; `size` is how long the file will be, if that is known.
    pub(crate) fn append(&mut self, bytes: &[u8], size: Option<u64>) -> Result<(), FetchError> {
        let written = self.tools.disk.write(&mut self.file, bytes);
        self.full_or("write", written, size)?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        self.tools.progress.advanced(bytes.len() as u64);
        Ok(())
    }

    /// The digest of what is there.
    pub(crate) fn whole(self) -> Whole {
        let digest = Digest::finish(self.hasher.clone());
        Whole { part: self, digest }
    }

    /// Removes it and what is known about it.
    pub(crate) fn remove(mut self) -> Result<(), FetchError> {
        self.forget()?;
        let _ = fs::remove_file(&self.paths.known);
        fs::remove_file(&self.paths.part).map_err(failed_to("remove", &self.paths.part))
    }
}

impl Whole {
    pub(crate) fn into_part(self) -> Part {
        self.part
    }

    pub(crate) fn length(&self) -> u64 {
        self.part.length
    }

    /// Puts it on disk for good.
    pub(crate) fn sync(&self) -> Result<(), FetchError> {
        let synced = self.part.file.sync_all();
        self.part.full_or("write", synced, Some(self.part.length))
    }

    /// Gives it its name. Its lock is held until `before_unlock` is done.
    pub(crate) fn publish<T>(self, before_unlock: impl FnOnce(&Path) -> T) -> Result<T, FetchError> {
        let Paths { dest, part, known } = &self.part.paths;
        fs::rename(part, dest).map_err(failed_to("rename", part))?;
        let _ = fs::remove_file(known);
        let folder = dest.parent().unwrap_or(Path::new("/"));
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed_to("write", folder))?;
        Ok(before_unlock(dest))
    }
}
