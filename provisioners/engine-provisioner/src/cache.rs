//! What is kept of engines: a folder for each, with a record of what is in it. All calls block.
//!
//! ```text
//! <cache_dir>/<engine>/src-<source>/tree            sources, as they were fetched
//! <cache_dir>/<engine>/src-<source>/build-<key>     a build of them, with engine.json
//! <cache_dir>/<engine>/bin-<digest>                 a ready-made program, with engine.json
//! <cache_dir>/<engine>/.known                       which source a repository and reference were
//! <cache_dir>/<engine>/.locks, .fetch               work under way
//! ```

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use api_types::Engine;
use catalog_core::{CatalogError, Digest, EngineCatalogStore, EngineEntry};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::EngineError;
use crate::lock::Lock;
use crate::setup::Setup;

/// The record's name.
const RECORD: &str = "engine.json";
const SCHEMA_VERSION: u32 = 1;

/// Size and time of last change of a file, by which it is known to be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    size_bytes: u64,
    modified_s: i64,
    modified_ns: i64,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self { size_bytes: found.len(), modified_s: found.mtime(), modified_ns: found.mtime_nsec() })
    }
}

/// What is in the folder of an engine.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    schema_version: u32,
    pub(crate) id: String,
    pub(crate) engine: Engine,
    pub(crate) version: String,
    pub(crate) build_ref: Option<String>,
    /// Digest of its program.
    pub(crate) digest: Digest,
    /// Its program, below the folder.
    program: PathBuf,
    stamp: Stamp,
    pub(crate) build_flags: Vec<String>,
    created_ms: i64,
}

/// What goes into a record.
pub(crate) struct Finished {
    pub(crate) id: String,
    pub(crate) engine: Engine,
    pub(crate) version: String,
    pub(crate) build_ref: Option<String>,
    pub(crate) program: PathBuf,
    pub(crate) build_flags: Vec<String>,
}

impl Record {
    /// Reads the program and writes down what it is.
    pub(crate) fn write(folder: &Path, finished: Finished) -> Result<Self, EngineError> {
        let program = &finished.program;
        let failed = |action| EngineError::io(action, program);
        let stamp = Stamp::of(program).ok_or_else(|| failed("look at")(io::ErrorKind::NotFound.into()))?;
        let record = Self {
            schema_version: SCHEMA_VERSION,
            digest: digest_of(program)?,
            program: program.strip_prefix(folder).unwrap_or(program).to_owned(),
            stamp,
            id: finished.id,
            engine: finished.engine,
            version: finished.version,
            build_ref: finished.build_ref,
            build_flags: finished.build_flags,
            created_ms: now_ms(),
        };
        write_json(&folder.join(RECORD), &record)?;
        Ok(record)
    }

    /// The engine in a folder, when it is whole: its program is the file that was written down, or has the same content.
    pub(crate) fn find(folder: &Path) -> Option<Self> {
        let place = folder.join(RECORD);
        let mut record: Self = read_json(&place)?;
        let program = record.program(folder);
        if record.schema_version != SCHEMA_VERSION || !crate::host::is_program(&program) {
            return None;
        }
        let stamp = Stamp::of(&program)?;
        if stamp != record.stamp {
            if digest_of(&program).ok()? != record.digest {
                tracing::warn!(program = %program.display(), "an engine's program was changed, and is made anew");
                return None;
            }
            record.stamp = stamp;
            let _ = write_json(&place, &record);
        }
        Some(record)
    }

    /// Forgets the engine in a folder, and says where its program was.
    pub(crate) fn forget(folder: &Path) -> Option<PathBuf> {
        let place = folder.join(RECORD);
        let record: Option<Self> = read_json(&place);
        let _ = fs::remove_file(place);
        record.map(|record| record.program(folder))
    }

    pub(crate) fn program(&self, folder: &Path) -> PathBuf {
        folder.join(&self.program)
    }

    /// Enters it into the catalog, unless it is there.
    pub(crate) fn register(&self, folder: &Path, catalog: &dyn EngineCatalogStore) -> Result<(), EngineError> {
        let entry = EngineEntry {
            id: self.id.clone(),
            engine: self.engine,
            version: self.version.clone(),
            build_ref: self.build_ref.clone(),
            digest: Some(self.digest.clone()),
            build_flags: self.build_flags.clone(),
            artifacts: [self.program(folder), folder.to_owned()].map(|path| path.display().to_string()).into(),
            created_ms: self.created_ms,
        };
        if catalog.get(&self.id)?.as_ref() != Some(&entry) {
            catalog.put(entry)?;
        }
        Ok(())
    }
}

/// An id that stays the same for the same engine: what it is, its version, and what tells it from others of that version.
pub(crate) fn engine_id(engine: Engine, version: &str, distinct: &Digest) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
    let version: String = version.chars().map(plain).take(40).collect();
    format!("{engine}-{version}-{}", short(distinct))
}

/// Enough of a digest for a name.
pub(crate) fn short(digest: &Digest) -> &str {
    &digest.hex()[..16]
}

pub(crate) fn digest_of(path: &Path) -> Result<Digest, EngineError> {
    let file = File::open(path).map_err(EngineError::io("open", path))?;
    Digest::read(file, |_| Ok(())).map_err(EngineError::io("read", path))
}

pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// What a file holds, when it holds that.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// Replaces a file whole.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), EngineError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let fresh = path.with_extension(format!("{}.new", std::process::id()));
    let text = serde_json::to_vec_pretty(value).map_err(|error| EngineError::io("write", path)(error.into()))?;
    let written = fs::create_dir_all(folder)
        .and_then(|()| fs::write(&fresh, text))
        .and_then(|()| File::open(&fresh)?.sync_all())
        .and_then(|()| fs::rename(&fresh, path))
        .and_then(|()| File::open(folder)?.sync_all());
    written.map_err(EngineError::io("write", path))
}

/// Removes a folder and all that is in it, if it is there.
pub(crate) fn clear(folder: &Path) -> Result<(), EngineError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(EngineError::io("remove", folder)(error)),
        _ => Ok(()),
    }
}

/// The lock on what is done in a folder.
pub(crate) fn lock_of(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let root = folder.ancestors().find(|path| !path.file_name().is_some_and(|name| is_ours(&name.to_string_lossy())));
    root.unwrap_or(Path::new("/")).join(".locks").join(format!("{name}.lock"))
}

fn is_ours(name: &str) -> bool {
    ["src-", "build-", "bin-"].iter().any(|beginning| name.starts_with(beginning))
}

/// An engine that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Folders that are gone. None for an engine that is not ours: a package, or an image, which its runtime keeps.
    pub folders: Vec<PathBuf>,
    /// Bytes that they took.
    pub freed_bytes: u64,
}

/// Why an engine is not removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// There is no such engine.
    #[error("the catalog has no engine {0}; see `llama-orch engines list`")]
    Unknown(String),
    /// It is being built or installed.
    #[error("{0} is being prepared just now; try again when that is done")]
    Busy(String),
    /// The catalog cannot be used.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// Its files cannot be removed.
    #[error(transparent)]
    Files(#[from] EngineError),
}

impl Setup {
    /// Removes an engine: its entry, and its folders below ours. Whether a pool uses it is the caller's to know.
    ///
    /// # Errors
    /// [`RemoveError`].
    pub fn remove(&self, id: &str) -> Result<Removed, RemoveError> {
        let entry = self.catalog.get(id)?.ok_or_else(|| RemoveError::Unknown(id.to_owned()))?;
        let mut removed = Removed { folders: Vec::new(), freed_bytes: 0 };
        for folder in entry.artifacts.iter().filter_map(|artifact| self.own_folder(artifact, id)) {
            let lock = Lock::try_take(&lock_of(&folder))?.ok_or_else(|| RemoveError::Busy(id.to_owned()))?;
            for gone in with_its_sources(&folder) {
                removed.freed_bytes += size_of(&gone);
                clear(&gone)?;
                removed.folders.push(gone);
            }
            drop(lock);
        }
        self.catalog.delete(id)?;
        Ok(removed)
    }

    /// The folder, when it lies below ours without any detour, and is the one of this engine.
    fn own_folder(&self, artifact: &str, id: &str) -> Option<PathBuf> {
        let folder = fs::canonicalize(artifact).ok().filter(|path| path.is_dir())?;
        let is_below =
            |root: &Path| fs::canonicalize(root).is_ok_and(|root| folder.starts_with(&root) && folder != root);
        let record: Option<Record> = read_json(&folder.join(RECORD));
        (self.roots().any(is_below) && record.is_some_and(|record| record.id == id)).then_some(folder)
    }
}

/// A build's folder, or that of its sources when it is their only build.
fn with_its_sources(folder: &Path) -> Vec<PathBuf> {
    let sources = folder.parent().filter(|parent| name_of(parent).starts_with("src-"));
    let others = |sources: &Path| {
        let entries = fs::read_dir(sources).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| name_of(&path).starts_with("build-") && path != folder)
    };
    match sources {
        Some(sources) if !others(sources) => vec![sources.to_owned()],
        _ => vec![folder.to_owned()],
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn size_of(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size_of(&entry.path()),
            Ok(found) => found.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
