//! Removing files from the models' folder that nothing names.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_types::{ErrorEnvelope, ErrorKind, GcItem, GcReport};
use catalog_core::{CatalogError, CatalogStore, ListFilter};

use crate::app::App;
use crate::wire::long;

/// Age from which a partial file is taken for forgotten.
const FORGOTTEN: Duration = Duration::from_secs(24 * 60 * 60);
/// Entries read at once.
const PAGE: usize = 1000;
/// Folders that are gone into at most.
const DEEPEST: usize = 32;
/// The folders that fetched models lie in; what else is in the models' folder was put there by somebody else.
const OURS: [&str; 5] = ["hf", "https", "http", "s3", "oci"];

impl App {
    /// Removes the files of the models' folder that no entry names and no job writes, or only says which.
    ///
    /// # Errors
    /// `CONFLICT` while a model is being fetched; `INTERNAL` for a folder that cannot be read.
    pub async fn collect_models(self: &Arc<Self>, dry_run: bool) -> Result<GcReport, ErrorEnvelope> {
        if self.models.jobs.any_under_way() {
            let message = "models are being fetched or verified; wait for that to end, or cancel it";
            return Err(ErrorEnvelope::new(ErrorKind::Conflict, message));
        }
        let root = self.config.catalog.models_dir.clone();
        let collect = move |store: &dyn CatalogStore| {
            let named = named(store)?;
            let mut unnamed = Vec::new();
            for scheme in OURS {
                let folder = root.join(scheme);
                let walked = walk(&folder, DEEPEST, &named, &mut unnamed);
                walked.map_err(|source| CatalogError::Io { action: "read", path: folder, source })?;
            }
            Ok(remove(&root, unnamed, dry_run))
        };
        self.models.with_store(collect).await
    }
}

/// The files and folders of all entries.
fn named(store: &dyn CatalogStore) -> Result<HashSet<PathBuf>, CatalogError> {
    let mut named = HashSet::new();
    let mut filter = ListFilter { state: None, tag: None, after: None, limit: PAGE };
    loop {
        let page = store.list(&filter)?;
        filter.after = page.entries.last().map(|entry| entry.id.clone());
        for entry in page.entries {
            named.extend(entry.file_paths().map(|(path, _)| path));
            named.extend(entry.local_path);
        }
        if !page.more {
            return Ok(named);
        }
    }
}

/// A file that nothing names, with its size in bytes.
struct Unnamed {
    path: PathBuf,
    bytes: u64,
}

fn walk(folder: &Path, depth: usize, named: &HashSet<PathBuf>, unnamed: &mut Vec<Unnamed>) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if named.contains(&path) {
            continue;
        }
        // Of a link its own metadata: where it leads is not ours.
        let metadata = entry.metadata()?;
        if metadata.is_dir() && depth > 0 {
            walk(&path, depth - 1, named, unnamed)?;
        } else if metadata.is_file() && is_forgotten(&path, &metadata) {
            unnamed.push(Unnamed { path, bytes: metadata.len() });
        }
    }
    Ok(())
}

/// Partial files and notes are wanted as long as somebody may go on with them.
fn is_forgotten(path: &Path, metadata: &fs::Metadata) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_partial = [".part", ".part.json", ".lock"].iter().any(|ending| name.ends_with(ending));
    let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    !is_partial || age.is_some_and(|age| age > FORGOTTEN)
}

fn remove(root: &Path, unnamed: Vec<Unnamed>, dry_run: bool) -> GcReport {
    let mut removed = Vec::new();
    for Unnamed { path, bytes } in unnamed {
        if !dry_run {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an unnamed file could not be removed");
                continue;
            }
            prune(root, path.parent());
        }
        let path = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        removed.push(GcItem { path, bytes: long(bytes) });
    }
    GcReport { bytes: removed.iter().map(|item| item.bytes).sum(), removed, dry_run }
}

/// Removes folders that have become empty, up to the root.
fn prune(root: &Path, mut folder: Option<&Path>) {
    while let Some(path) = folder.filter(|path| *path != root && path.starts_with(root)) {
        if fs::remove_dir(path).is_err() {
            return;
        }
        folder = path.parent();
    }
}
