//! The folders of saved slots, one for each pool, and the files in them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api_types::PoolId;
use pool_managerd::workshop::kv_folder;

/// Names of files that somebody still has to do with.
type Names = Arc<Mutex<HashSet<PathBuf>>>;

/// All of them.
#[derive(Debug)]
pub(super) struct Folders {
    run_dir: PathBuf,
    names: Names,
}

/// A file that an engine writes or has written. It is deleted when this is dropped.
#[derive(Debug)]
pub(super) struct KvFile {
    name: String,
    path: PathBuf,
    names: Names,
}

impl Folders {
    pub(super) fn new(run_dir: &Path) -> Self {
        Self { run_dir: run_dir.to_owned(), names: Names::default() }
    }

    /// A name for a file of a pool, which says nothing of what will be in it.
    pub(super) fn new_file(&self, pool: &PoolId) -> KvFile {
        let name = format!("{:032x}.kv", rand::random::<u128>());
        let path = kv_folder(&self.run_dir, pool).join(&name);
        lock(&self.names).insert(path.clone());
        KvFile { name, path, names: Arc::clone(&self.names) }
    }

    /// Deletes the files of a pool that nobody has to do with: what an engine has written too late.
    pub(super) fn tidy(&self, pool: &PoolId) {
        let known = lock(&self.names).clone();
        for file in files_in(&kv_folder(&self.run_dir, pool)) {
            if !known.contains(&file) {
                remove(&file);
            }
        }
    }

    /// Deletes all files. Their folders stay: a container that runs may have one of them.
    pub(super) fn clear(&self) {
        for folder in files_in(&self.run_dir.join("kv")) {
            for file in files_in(&folder) {
                remove(&file);
            }
        }
    }
}

impl KvFile {
    /// Its name in its pool's folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for KvFile {
    fn drop(&mut self) {
        let (path, names) = (std::mem::take(&mut self.path), Arc::clone(&self.names));
        let delete = move || {
            remove(&path);
            lock(&names).remove(&path);
        };
        // A large file takes a while.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(delete)),
            Err(_) => delete(),
        }
    }
}

fn lock(names: &Names) -> MutexGuard<'_, HashSet<PathBuf>> {
    names.lock().unwrap_or_else(PoisonError::into_inner)
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

/// What cannot be deleted now is tried again at the next occasion.
fn remove(file: &Path) {
    match fs::remove_file(file) {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => tracing::warn!(%error, "a saved slot cannot be deleted from run/kv"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Folders, files_in, kv_folder};

    /// LO-SWP-07: a file goes with whoever has to do with it, one that nobody knows goes when its pool is tidied, and all go in
    /// the end.
    #[test]
    fn no_file_outlives_its_use() {
        let dir = tempfile::tempdir().expect("a folder");
        let folders = Folders::new(dir.path());
        let pool = kv_folder(dir.path(), &"a".into());
        std::fs::create_dir_all(&pool).expect("a folder");
        let (one, two) = (folders.new_file(&"a".into()), folders.new_file(&"a".into()));
        assert_ne!(one.name(), two.name());
        for name in [one.name(), two.name(), "late"] {
            std::fs::write(pool.join(name), "x").expect("it is written");
        }
        drop(one);
        folders.tidy(&"b".into());
        assert_eq!(files_in(&pool).len(), 2);
        folders.tidy(&"a".into());
        assert_eq!(files_in(&pool), [pool.join(two.name())]);
        folders.clear();
        assert!(pool.is_dir() && files_in(&pool).is_empty());
        drop(two);
    }
}
