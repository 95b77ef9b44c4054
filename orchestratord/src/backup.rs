//! A copy of the data directory, taken while the daemon runs.
//!
//! Databases are copied as they stand at one moment; everything else is either replaced whole, such as the indices, or never
//! changes, such as artifacts, so that a plain copy of it is good. To restore, point `server.data_dir` at the copy, or put it
//! where the data directory was. Model files are not in it: they are fetched and verified again by what the catalog says.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context, bail};
use config_schema::Config;
use state_db::snapshot;

/// What is left out: of databases, what belongs to their connections; of the rest, what is of this life or half done.
const LEFT_OUT: [&str; 6] = ["-wal", "-shm", "-journal", ".lock", ".tmp", ".new"];

/// The index of the artifacts beside the folder with them: it is made anew from what it lists, and its daemon has it to itself.
const DERIVED: (&str, &str) = ("index.db", "sha256");

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Copies the data directory to `target`, which must not exist, or be empty.
///
/// # Errors
/// Whatever cannot be read or written; `target` is of no use then.
pub fn run(config: &Config, target: &Path) -> anyhow::Result<Copied> {
    let source = &config.server.data_dir;
    if !source.is_dir() {
        bail!("{} is no directory; say with --data-dir or --config where the data is", source.display());
    }
    if fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is not empty; choose a new directory for the copy", target.display());
    }
    create(target)?;
    let inside = |path: &Path| {
        path.canonicalize().is_ok_and(|path| source.canonicalize().is_ok_and(|source| path.starts_with(source)))
    };
    if inside(target) {
        bail!("{} lies in the data directory itself; choose another", target.display());
    }
    let mut copied = Copied::default();
    copy_folder(source, target, &mut copied)?;
    if let Some(artifacts) = config.artifacts.dir.as_deref().filter(|dir| !inside(dir) && dir.is_dir()) {
        copy_folder(artifacts, &target.join("artifacts"), &mut copied)?;
    }
    Ok(copied)
}

fn create(folder: &Path) -> anyhow::Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    created.with_context(|| format!("cannot create {}", folder.display()))
}

fn copy_folder(from: &Path, to: &Path, copied: &mut Copied) -> anyhow::Result<()> {
    create(to)?;
    let listed = fs::read_dir(from).and_then(|entries| entries.collect::<io::Result<Vec<_>>>());
    let mut entries = listed.with_context(|| format!("cannot read {}", from.display()))?;
    // Databases first: what they name is on the disk before they name it, and is then copied too.
    entries.sort_by_key(|entry| (!is_database(&entry.path()), entry.file_name()));
    for entry in entries {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let name = entry.file_name();
        let is_derived = name == DERIVED.0 && from.join(DERIVED.1).is_dir();
        if is_derived || LEFT_OUT.iter().any(|ending| name.to_string_lossy().ends_with(ending)) {
            continue;
        }
        let kind = entry.file_type().with_context(|| format!("cannot read {}", path.display()))?;
        if kind.is_dir() && name != "run" {
            copy_folder(&path, &target, copied)?;
        } else if kind.is_file() {
            copy_file(&path, &target, copied)?;
        }
    }
    fs::File::open(to).and_then(|folder| folder.sync_all()).with_context(|| format!("cannot sync {}", to.display()))
}

fn is_database(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "db")
}

fn copy_file(from: &Path, to: &Path, copied: &mut Copied) -> anyhow::Result<()> {
    if is_database(from) {
        snapshot(from, to)?;
        copied.bytes += fs::metadata(to).map_or(0, |metadata| metadata.len());
    } else {
        match copy_plain(from, to) {
            Ok(bytes) => copied.bytes += bytes,
            // Retention has removed it since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).with_context(|| format!("cannot copy {}", from.display())),
        }
    }
    copied.files += 1;
    Ok(())
}

/// Copies a file with the time of its last change, from which artifacts tell their age, onto the disk.
fn copy_plain(from: &Path, to: &Path) -> io::Result<u64> {
    let modified = fs::metadata(from)?.modified()?;
    let bytes = fs::copy(from, to)?;
    let copy = fs::File::options().write(true).open(to)?;
    copy.set_modified(modified)?;
    copy.sync_all()?;
    Ok(bytes)
}
