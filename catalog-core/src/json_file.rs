//! Records in a JSON file that several processes read and change (LO-CAT-02).
//!
//! ```json
//! {"schema_version":1,"revision":7,"entries":[
//! {"id":"hf:org/repo/model.gguf", …},
//! …
//! ]}
//! ```
//!
//! A change takes the advisory lock on `<name>.lock`, writes all of `<name>.tmp`, syncs it, renames it over the file and syncs
//! the folder: the file is always a whole one, the old or the new, and a `.tmp` that a crash has left is replaced by the next
//! change. Readers take no lock: they keep what they have read for as long as the file is the same.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::CatalogError;

#[cfg(test)]
mod tests;

/// What such a file holds.
pub trait Record: Serialize + DeserializeOwned {
    /// The only version of the file that is read and written.
    const SCHEMA_VERSION: u64;

    /// What it is found by.
    fn key(&self) -> &str;
}

/// Records by key. Copying shares them.
pub type Records<R> = BTreeMap<Arc<str>, Arc<R>>;

/// What a file held at one moment.
pub struct Snapshot<R> {
    revision: u64,
    /// Another one after every change, also after one by hand.
    pub version: String,
    /// The records.
    pub records: Records<R>,
}

impl<R> Default for Snapshot<R> {
    fn default() -> Self {
        Self { revision: 0, version: "0".to_owned(), records: BTreeMap::new() }
    }
}

/// The file. Where there is none, there are no records.
pub struct JsonFile<R> {
    path: PathBuf,
    cached: Mutex<Option<Cached<R>>>,
}

struct Cached<R> {
    /// Kept open, so that no later file can have its inode.
    _file: File,
    stamp: Stamp,
    snapshot: Arc<Snapshot<R>>,
}

/// What tells one state of a file from another: each change makes a new file, and an editor may write into it.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }

    fn version(self, revision: u64) -> String {
        format!("{revision}-{:x}{:08x}", self.modified.0, self.modified.1)
    }
}

#[derive(Deserialize)]
struct Document<R> {
    schema_version: u64,
    revision: u64,
    entries: Vec<R>,
}

#[derive(Deserialize)]
struct Header {
    schema_version: u64,
}

/// How far a write has come; tests stop there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Created,
    Written,
    Synced,
    Renamed,
    FolderSynced,
}

#[cfg(not(test))]
fn reached(_: Step, _: &Path) {}
#[cfg(test)]
use tests::reached;

impl<R: Record> JsonFile<R> {
    /// The file `name` in `folder`, which is created with mode 0700 where it is missing.
    ///
    /// # Errors
    /// It cannot be read, or is of an unknown version.
    pub fn open(folder: &Path, name: &str) -> Result<Self, CatalogError> {
        create_folder(folder)?;
        let file = Self { path: folder.join(name), cached: Mutex::new(None) };
        file.read()?;
        Ok(file)
    }

    /// What it holds now.
    ///
    /// # Errors
    /// It cannot be read, or is of an unknown version.
    pub fn read(&self) -> Result<Arc<Snapshot<R>>, CatalogError> {
        let now = match fs::metadata(&self.path) {
            Ok(metadata) => Stamp::of(&metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Arc::default()),
            Err(error) => return Err(failed_to("read", &self.path)(error)),
        };
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cached.as_ref().filter(|cached| cached.stamp == now) {
            return Ok(Arc::clone(&cached.snapshot));
        }
        let loaded = self.load()?;
        Ok(Arc::clone(&cached.insert(loaded).snapshot))
    }

    /// Changes it while nobody else does. `change` answers whether the records are others now; only then they are written.
    ///
    /// # Errors
    /// It cannot be read or written; it is as it was then.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Records<R>) -> Result<(T, bool), CatalogError>,
    ) -> Result<T, CatalogError> {
        let _lock = lock(&self.path)?;
        let before = self.read()?;
        let mut records = before.records.clone();
        let (result, changed) = change(&mut records)?;
        if changed {
            self.replace(records, before.revision + 1)?;
        }
        Ok(result)
    }

    fn load(&self) -> Result<Cached<R>, CatalogError> {
        let read = || {
            let mut file = File::open(&self.path)?;
            let stamp = Stamp::of(&file.metadata()?);
            let mut text = Vec::new();
            io::Read::read_to_end(&mut file, &mut text)?;
            Ok((file, stamp, text))
        };
        let (file, stamp, text) = read().map_err(failed_to("read", &self.path))?;
        let document = self.parse(&text)?;
        let count = document.entries.len();
        let records: Records<R> =
            document.entries.into_iter().map(|record| (Arc::from(record.key()), Arc::new(record))).collect();
        if records.len() < count {
            return Err(self.damaged("an id occurs twice"));
        }
        let (revision, version) = (document.revision, stamp.version(document.revision));
        Ok(Cached { _file: file, stamp, snapshot: Arc::new(Snapshot { revision, version, records }) })
    }

    fn parse(&self, text: &[u8]) -> Result<Document<R>, CatalogError> {
        let unknown = |found| CatalogError::UnknownVersion { path: self.path.clone(), found, known: R::SCHEMA_VERSION };
        match serde_json::from_slice::<Document<R>>(text) {
            Ok(document) if document.schema_version == R::SCHEMA_VERSION => Ok(document),
            Ok(document) => Err(unknown(document.schema_version)),
            // Another version may well look different.
            Err(error) => match serde_json::from_slice::<Header>(text) {
                Ok(header) if header.schema_version != R::SCHEMA_VERSION => Err(unknown(header.schema_version)),
                _ => Err(self.damaged(&error.to_string())),
            },
        }
    }

    fn damaged(&self, problem: &str) -> CatalogError {
        CatalogError::Damaged { path: self.path.clone(), problem: problem.to_owned() }
    }

    fn replace(&self, records: Records<R>, revision: u64) -> Result<(), CatalogError> {
        let temporary = with_suffix(&self.path, ".tmp");
        let file = write_whole(&temporary, &records, revision).map_err(|error| {
            // What is left of it is replaced by the next write at the latest.
            let _ = fs::remove_file(&temporary);
            failed_to("write", &temporary)(error)
        })?;
        let stamp = file.metadata().map(|metadata| Stamp::of(&metadata)).map_err(failed_to("read", &temporary))?;
        fs::rename(&temporary, &self.path).map_err(failed_to("rename", &temporary))?;
        reached(Step::Renamed, &temporary);
        sync_folder(&self.path).map_err(failed_to("sync the folder of", &self.path))?;
        reached(Step::FolderSynced, &temporary);
        let snapshot = Arc::new(Snapshot { revision, version: stamp.version(revision), records });
        let cached = Cached { _file: file, stamp, snapshot };
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached);
        Ok(())
    }
}

fn write_whole<R: Record>(path: &Path, records: &Records<R>, revision: u64) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    reached(Step::Created, path);
    let mut text = BufWriter::with_capacity(1 << 20, &file);
    write!(text, "{{\"schema_version\":{},\"revision\":{revision},\"entries\":[", R::SCHEMA_VERSION)?;
    for (index, record) in records.values().enumerate() {
        text.write_all(if index == 0 { b"\n" } else { b",\n" })?;
        serde_json::to_writer(&mut text, record.as_ref())?;
    }
    text.write_all(b"\n]}\n")?;
    text.flush()?;
    drop(text);
    reached(Step::Written, path);
    file.sync_all()?;
    reached(Step::Synced, path);
    Ok(file)
}

/// Creates a folder with mode 0700 where it is missing.
pub(crate) fn create_folder(folder: &Path) -> Result<(), CatalogError> {
    if folder.is_dir() {
        return Ok(());
    }
    let create = || {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        sync_folder(folder)
    };
    create().map_err(failed_to("create", folder))
}

/// Takes the advisory lock of a file, `<name>.lock`; waits for it. It goes with the value, and with the process.
pub(crate) fn lock(path: &Path) -> Result<File, CatalogError> {
    let path = with_suffix(path, ".lock");
    let open = || {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(failed_to("lock", &path))
}

/// Makes sure that the name of a file is on the disk.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

pub(crate) fn failed_to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CatalogError {
    let path = path.to_owned();
    move |source| CatalogError::Io { action, path, source }
}
