//! Catalogs in temporary folders, and entries to put into them.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use api_types::ModelId;
use catalog_core::{CatalogEntry, CatalogStore, Digest, FsCatalog, ListFilter, Progress, SqliteCatalog, StoredFile};
use tempfile::TempDir;

/// Everything, as one page.
pub(crate) const ALL: ListFilter = ListFilter { state: None, tag: None, after: None, limit: usize::MAX };

/// The stores that have to behave the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Fs,
    Sqlite,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Fs, Self::Sqlite];

    pub(crate) fn index_name(self) -> &'static str {
        match self {
            Self::Fs => "models.json",
            Self::Sqlite => "models.db",
        }
    }

    pub(crate) fn open(self, dir: &Path) -> Result<Box<dyn CatalogStore>, catalog_core::CatalogError> {
        let (root, models_dir) = (dir.join("catalog"), dir.join("models"));
        Ok(match self {
            Self::Fs => Box::new(FsCatalog::open(root, models_dir)?),
            Self::Sqlite => Box::new(SqliteCatalog::open(root, models_dir)?),
        })
    }
}

/// A folder with an index and models.
pub(crate) struct Place {
    dir: TempDir,
    pub(crate) kind: Kind,
}

impl Place {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { dir: tempfile::tempdir().expect("a folder"), kind }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.dir().join("catalog").join(self.kind.index_name())
    }

    pub(crate) fn model(&self, name: &str) -> PathBuf {
        self.dir().join("models").join(name)
    }

    pub(crate) fn open(&self) -> Box<dyn CatalogStore> {
        self.kind.open(self.dir()).expect("it opens")
    }

    /// A model of some files that are there; one file without `/` is the model itself.
    pub(crate) fn stored(&self, id: &str, local_path: &str, files: &[&str]) -> CatalogEntry {
        let local_path = self.model(local_path);
        let mut entry = CatalogEntry { local_path: Some(local_path), ..entry(id) };
        entry.files = files.iter().map(|name| file(name)).collect();
        entry.digest = CatalogEntry::manifest_digest(&entry.files);
        for (path, file) in entry.file_paths() {
            write(&path, file.name.as_bytes());
        }
        entry
    }
}

/// A file whose content is its name.
pub(crate) fn file(name: &str) -> StoredFile {
    StoredFile { name: name.to_owned(), size_bytes: name.len() as u64, digest: Digest::of(name.as_bytes()) }
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
    std::fs::write(path, bytes).expect("it is written");
}

pub(crate) fn entry(id: &str) -> CatalogEntry {
    CatalogEntry::new(id.into(), 7)
}

pub(crate) fn ids(store: &dyn CatalogStore, filter: &ListFilter) -> Vec<String> {
    store.list(filter).expect("it is read").entries.iter().map(|entry| entry.id.to_string()).collect()
}

pub(crate) fn id(text: &str) -> ModelId {
    text.into()
}

/// Adds up what it is told.
#[derive(Default)]
pub(crate) struct Told(Mutex<Sums>);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    pub(crate) planned: Option<(usize, Option<u64>)>,
    pub(crate) bytes: u64,
    pub(crate) files: Vec<String>,
}

impl Told {
    pub(crate) fn sums(&self) -> Sums {
        self.0.lock().expect("nobody panics with it").clone()
    }
}

impl Progress for Told {
    fn planned(&self, files: usize, bytes: Option<u64>) {
        self.0.lock().expect("nobody panics with it").planned = Some((files, bytes));
    }

    fn advanced(&self, bytes: u64) {
        self.0.lock().expect("nobody panics with it").bytes += bytes;
    }

    fn lost(&self, bytes: u64) {
        self.0.lock().expect("nobody panics with it").bytes -= bytes;
    }

    fn file_done(&self, name: &str) {
        self.0.lock().expect("nobody panics with it").files.push(name.to_owned());
    }
}
