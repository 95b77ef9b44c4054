//! Documents in files.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Blobs, Staged};
use crate::key::Key;

/// Keeps each document in a file of its own.
pub(crate) struct FsArtifacts {
    places: PathBuf,
    tmp: PathBuf,
    /// Stands for the file system when all of it is to be synced.
    root: File,
    next: AtomicU64,
}

/// A file that was found, with when it was written, in milliseconds since the Unix epoch.
pub(crate) struct Found {
    pub(crate) key: Key,
    pub(crate) json: Vec<u8>,
    pub(crate) written_ms: i64,
}

impl FsArtifacts {
    /// Makes the directories where they are missing.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let (places, tmp) = (dir.join("sha256"), dir.join("tmp"));
        private_dir(&places)?;
        private_dir(&tmp)?;
        Ok(Self { places, tmp, root: File::open(dir)?, next: AtomicU64::new(0) })
    }

    /// What a crash has left in `tmp`: each file, with what is in it if it is named like a document.
    pub(crate) fn leftovers(&self) -> io::Result<impl Iterator<Item = io::Result<(Option<Found>, PathBuf)>>> {
        Ok(fs::read_dir(&self.tmp)?.map(|file| {
            let path = file?.path();
            let Some(key) = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()) else {
                return Ok((None, path));
            };
            let (json, written_ms) = (fs::read(&path)?, written_ms(&fs::metadata(&path)?));
            Ok((Some(Found { key, json, written_ms }), path))
        }))
    }

    /// Brings a file that is whole to its place.
    pub(crate) fn adopt(&self, file: &Path, key: Key) -> io::Result<()> {
        self.rename(file, key)
    }

    /// Every file in its place whose name is a key, oldest first.
    pub(crate) fn all(&self) -> io::Result<Vec<(i64, Key)>> {
        let mut all = Vec::new();
        for shard in fs::read_dir(&self.places)? {
            let shard = shard?;
            if !shard.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(shard.path())? {
                let file = file?;
                let name = file.file_name();
                if let Some(key) = name.to_str().and_then(|name| name.strip_suffix(".json")?.parse().ok()) {
                    all.push((written_ms(&file.metadata()?), key));
                }
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn shard(&self, key: Key) -> PathBuf {
        self.places.join(&key.to_string()[..2])
    }

    fn place(&self, key: Key) -> PathBuf {
        let name = key.to_string();
        let mut place = self.places.join(&name[..2]);
        place.push(name + ".json");
        place
    }

    fn staged(&self, key: Key, number: u64) -> PathBuf {
        self.tmp.join(format!("{key}.{number}"))
    }

    fn rename(&self, from: &Path, key: Key) -> io::Result<()> {
        let place = self.place(key);
        match fs::rename(from, &place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private_dir(&self.shard(key))?;
                fs::rename(from, &place)
            }
            renamed => renamed,
        }
    }
}

impl Blobs for FsArtifacts {
    fn stage(&self, key: Key, json: Bytes, durable: bool) -> io::Result<Staged> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.staged(key, number);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let written = file.write_all(&json).and_then(|()| if durable { file.sync_data() } else { Ok(()) });
        if written.is_err() {
            // A full disk must not be fuller for it.
            let _ = fs::remove_file(&path);
        }
        written.map(|()| Staged { key, number, json })
    }

    fn publish(&self, staged: Staged, durable: bool) -> io::Result<()> {
        self.rename(&self.staged(staged.key, staged.number), staged.key)?;
        if durable { File::open(self.shard(staged.key))?.sync_all() } else { Ok(()) }
    }

    fn discard(&self, staged: Staged) {
        // The next start tidies up what stays.
        let _ = fs::remove_file(self.staged(staged.key, staged.number));
    }

    fn read(&self, key: Key) -> io::Result<Option<Bytes>> {
        match fs::read(self.place(key)) {
            Ok(json) => Ok(Some(json.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn remove(&self, key: Key) -> io::Result<()> {
        match fs::remove_file(self.place(key)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    fn set_aside(&self, key: Key) -> io::Result<()> {
        let place = self.place(key);
        let mut aside = OsString::from(&place);
        aside.push(".damaged");
        fs::rename(place, aside)
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }
}

fn private_dir(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn written_ms(metadata: &fs::Metadata) -> i64 {
    let written = metadata.modified().unwrap_or(UNIX_EPOCH);
    let since = written.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
