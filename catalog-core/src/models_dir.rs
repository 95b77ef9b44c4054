//! The models' folder: which paths an index may name, where local models are, and what is removed with an entry (LO-CAT-10).

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::json_file::failed_to;
use crate::{CatalogEntry, CatalogError, ModelRef, ResolvedModel, model_ref};

/// The folder that fetched models are in.
pub(crate) struct ModelsDir(PathBuf);

impl ModelsDir {
    /// The folder need not be there yet.
    pub(crate) fn new(path: &Path) -> Result<Self, CatalogError> {
        std::path::absolute(path).map(Self).map_err(failed_to("find", path))
    }

    /// An entry whose path is absolute and plain: a relative one is meant below the models' folder.
    pub(crate) fn checked(&self, mut entry: CatalogEntry) -> Result<CatalogEntry, CatalogError> {
        let unsafe_path = |path: &Path| CatalogError::UnsafePath { id: entry.id.clone(), path: path.to_owned() };
        for file in &entry.files {
            model_ref::plain(&file.name, "name").map_err(|_| unsafe_path(Path::new(&file.name)))?;
        }
        if let Some(path) = &entry.local_path {
            if path.components().any(|part| part == Component::ParentDir) {
                return Err(unsafe_path(path));
            }
            entry.local_path = Some(self.0.join(path).components().collect());
        }
        Ok(entry)
    }

    /// Where a model is: where its entry says, if all of it is there; else, of a local one, where its reference says.
    pub(crate) fn locate(&self, model: &ModelRef, entry: Option<&CatalogEntry>) -> Option<ResolvedModel> {
        let indexed = entry.filter(|entry| entry.is_here()).and_then(|entry| entry.local_path.clone());
        let local_path = match model {
            ModelRef::File { path } => indexed.or_else(|| self.local(path)),
            _ => indexed,
        };
        local_path.map(|local_path| ResolvedModel { id: model.id(), local_path })
    }

    /// A file or folder that a reference names; a relative one must be below the models' folder, links resolved.
    pub(crate) fn local(&self, path: &Path) -> Option<PathBuf> {
        let full = self.0.join(path);
        let real = full.canonicalize().ok()?;
        let inside = || self.0.canonicalize().is_ok_and(|root| real.starts_with(root));
        (path.is_absolute() || inside()).then_some(full)
    }

    /// The folder in which other entries may share files with this one.
    pub(crate) fn scope(entry: &CatalogEntry) -> Option<PathBuf> {
        let path = entry.local_path.as_deref()?;
        if path.is_dir() { Some(path.to_owned()) } else { path.parent().map(ToOwned::to_owned) }
    }

    /// Removes an entry's files below the models' folder, but for those that `others` have too, and the folders that become
    /// empty. What lies elsewhere is the operator's and stays; links are removed and never followed.
    pub(crate) fn remove(&self, entry: &CatalogEntry, others: &[CatalogEntry]) -> Result<(), CatalogError> {
        let Some(local_path) = &entry.local_path else { return Ok(()) };
        let Ok(root) = self.0.canonicalize() else { return Ok(()) };
        let shared = |path: &Path| others.iter().any(|other| other.has_file(path));
        let parts = entry.file_paths().map(|(path, _)| path).filter(|path| !path.starts_with(local_path));
        for path in parts.chain([local_path.clone()]) {
            if !is_inside(&path, &root) {
                continue;
            }
            remove_tree(&path, &shared)
                .and_then(|()| prune(&path, &root))
                .map_err(|source| CatalogError::Files { path, source })?;
        }
        Ok(())
    }
}

/// Whether a name, not what it may link to, is below a folder.
fn is_inside(path: &Path, root: &Path) -> bool {
    let Some((parent, name)) = path.parent().zip(path.file_name()) else { return false };
    parent.canonicalize().is_ok_and(|parent| parent.join(name).starts_with(root) && parent.join(name) != root)
}

fn remove_tree(path: &Path, shared: &dyn Fn(&Path) -> bool) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !kind.is_dir() {
        return if shared(path) { Ok(()) } else { gone(fs::remove_file(path)) };
    }
    for child in fs::read_dir(path)? {
        remove_tree(&child?.path(), shared)?;
    }
    gone(fs::remove_dir(path))
}

/// Removes the empty folders above a path.
fn prune(path: &Path, root: &Path) -> io::Result<()> {
    for folder in path.ancestors().skip(1).take_while(|folder| is_inside(folder, root)) {
        gone(fs::remove_dir(folder))?;
    }
    Ok(())
}

/// A file that somebody else removed is gone too, and a folder that holds something has to stay.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Err(error),
        _ => Ok(()),
    }
}
