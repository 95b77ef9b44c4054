//! Finding and reading the files of a model on this machine.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use crate::{Digest, Progress, StoredFile};

/// A file that was found.
pub(crate) struct FoundFile {
    /// Its path below the folder, with `/`; its own name where it was asked for itself.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) size_bytes: u64,
}

#[derive(Debug)]
pub(crate) enum LocalFilesError {
    Io { path: PathBuf, source: io::Error },
    LinkOutside { path: PathBuf },
    Canceled,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> LocalFilesError {
    let path = path.to_owned();
    move |source| LocalFilesError::Io { path, source }
}

/// The file at a path, or all files below it, by name. Links are followed to files inside of the folder only.
pub(crate) fn find(path: &Path) -> Result<Vec<FoundFile>, LocalFilesError> {
    let metadata = fs::metadata(path).map_err(failed(path))?;
    if !metadata.is_dir() {
        let name = path.file_name().unwrap_or(path.as_os_str());
        return Ok(vec![FoundFile {
            name: text(path, Path::new(name))?,
            path: path.to_owned(),
            size_bytes: metadata.len(),
        }]);
    }
    let root = path.canonicalize().map_err(failed(path))?;
    let mut found = Vec::new();
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        for child in fs::read_dir(&folder).map_err(failed(&folder))? {
            let child = child.map_err(failed(&folder))?;
            let kind = child.file_type().map_err(failed(&child.path()))?;
            if kind.is_dir() {
                folders.push(child.path());
            } else {
                found.extend(inside(child.path(), path, &root)?);
            }
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

/// A file of a folder. Sockets and the like are no part of a model; a link to a folder would lead in circles.
fn inside(path: PathBuf, folder: &Path, root: &Path) -> Result<Option<FoundFile>, LocalFilesError> {
    let real = path.canonicalize().map_err(failed(&path))?;
    if !real.starts_with(root) {
        return Err(LocalFilesError::LinkOutside { path });
    }
    let metadata = fs::metadata(&path).map_err(failed(&path))?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let name = text(&path, path.strip_prefix(folder).unwrap_or(&path))?;
    Ok(Some(FoundFile { name, path, size_bytes: metadata.len() }))
}

fn text(path: &Path, name: &Path) -> Result<String, LocalFilesError> {
    let invalid = || failed(path)(io::Error::new(io::ErrorKind::InvalidData, "its name is not UTF-8"));
    name.to_str().map(ToOwned::to_owned).ok_or_else(invalid)
}

/// Reads a file, reports the bytes, and stops when it is told to.
pub(crate) fn hash(
    file: &FoundFile,
    opened: File,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<StoredFile, LocalFilesError> {
    let mut size_bytes = 0;
    let digest = Digest::read(opened, |bytes| {
        size_bytes += bytes;
        progress.advanced(bytes);
        if cancel.is_cancelled() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    });
    match digest {
        Err(_) if cancel.is_cancelled() => Err(LocalFilesError::Canceled),
        digest => Ok(StoredFile { name: file.name.clone(), size_bytes, digest: digest.map_err(failed(&file.path))? }),
    }
}
