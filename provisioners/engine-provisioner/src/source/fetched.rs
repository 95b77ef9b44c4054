//! Sources that are here: fetched once for each repository and reference, and kept under what they are.

use std::fs;
use std::path::{Path, PathBuf};

use catalog_core::Digest;
use serde::{Deserialize, Serialize};

use super::SourceProvisioner;
use crate::cache::{Stamp, clear, lock_of, read_json, short, write_json};
use crate::error::EngineError;
use crate::fetch;
use crate::git::Git;
use crate::lock::Lock;
use crate::plan::StepKind;
use crate::step::Step;
use crate::unpack::{Kind, Limits, UnpackError, unpack};

/// Sources that are here.
pub(super) struct Fetched {
    /// What they are: a commit, or the digest of an archive.
    pub(super) id: String,
    /// Their folder, in which builds lie, too.
    pub(super) folder: PathBuf,
    /// Where the project is.
    pub(super) tree: PathBuf,
}

/// What a repository and a reference were when they were fetched. A branch that has moved since is fetched anew when its engine
/// has been removed.
#[derive(Debug, Serialize, Deserialize)]
struct Known {
    repo: String,
    reference: String,
    submodules: bool,
    id: String,
    /// Of an archive of this machine.
    stamp: Option<Stamp>,
}

impl SourceProvisioner {
    /// The sources, when they are here.
    pub(super) async fn known(&self) -> Result<Option<Fetched>, EngineError> {
        let (place, root, archive) = (self.known_place(), self.root.clone(), self.local_archive());
        let (checksum, is_archive) = (self.checksum.clone(), self.archive().is_some());
        crate::blocking(move || {
            let known: Option<Known> = read_json(&place);
            let known = known.filter(|known| match (&checksum, archive) {
                (Some(checksum), _) if is_archive => known.id == checksum.hex(),
                (_, Some(archive)) => known.stamp == Stamp::of(&archive),
                _ => true,
            });
            Ok(known.and_then(|known| Fetched::at(&root, known.id)))
        })
        .await
    }

    fn local_archive(&self) -> Option<PathBuf> {
        let path = self.source.repo.as_str().strip_prefix("file://")?;
        self.archive().map(|_| PathBuf::from(path))
    }

    fn request(&self) -> Digest {
        let source = &self.source;
        Digest::of(format!("{}\0{}\0{}", source.repo, source.reference, source.submodules).as_bytes())
    }

    fn known_place(&self) -> PathBuf {
        self.root.join(".known").join(format!("{}.json", short(&self.request())))
    }

    /// Fetches the sources.
    pub(super) async fn fetch(&self, step: &Step<'_>) -> Result<Fetched, EngineError> {
        let name = short(&self.request()).to_owned();
        let _lock =
            Lock::take(&self.root.join(".locks").join(format!("{name}.lock")), step.progress.as_ref(), step.cancel)
                .await?;
        if let Some(source) = self.known().await? {
            return Ok(source);
        }
        let fresh = self.root.join(".fetch").join(name);
        let cleared = fresh.clone();
        crate::blocking(move || clear(&cleared)).await?;
        let id = match self.archive() {
            Some(kind) => self.unpack(kind, &fresh, step).await?,
            None => self.clone_into(&fresh, step).await?,
        };
        let known = Known {
            repo: fetch::shown(self.source.repo.as_str()),
            reference: self.source.reference.clone(),
            submodules: self.source.submodules,
            stamp: self.local_archive().as_deref().and_then(Stamp::of),
            id: id.clone(),
        };
        let (place, root) = (self.known_place(), self.root.clone());
        let source = crate::blocking(move || {
            keep(&fresh, &root, &id)?;
            write_json(&place, &known)?;
            Fetched::at(&root, id).ok_or_else(|| EngineError::NoProgram {
                place: root.clone(),
                wanted: "CMakeLists.txt in what was fetched".to_owned(),
            })
        });
        source.await
    }

    async fn clone_into(&self, folder: &Path, step: &Step<'_>) -> Result<String, EngineError> {
        let source = &self.source;
        step.begin(StepKind::Clone, &format!("{} at {}", source.repo, source.reference));
        let git = Git {
            repo: &source.repo,
            host: &self.setup.host,
            web: &self.setup.web,
            progress: step.progress.as_ref(),
            cancel: step.cancel,
        };
        git.check_out(&source.reference, source.submodules, folder).await
    }

    async fn unpack(&self, kind: Kind, folder: &Path, step: &Step<'_>) -> Result<String, EngineError> {
        let url = self.source.repo.as_str();
        step.begin(StepKind::Download, &fetch::shown(url));
        let downloads = self.root.join(".fetch/downloads");
        let archive =
            fetch::file(url, self.checksum.as_ref(), &downloads, &self.setup.web, step.progress, step.cancel).await?;
        step.begin(StepKind::Unpack, &archive.path.display().to_string());
        let (path, folder, cancel) = (archive.path.clone(), folder.to_owned(), step.cancel.clone());
        let result = crate::blocking(move || unpack(&path, kind, &folder, Limits::ENGINE, &cancel)).await;
        match result {
            Ok(()) => {
                archive.discard();
                Ok(archive.digest.hex().to_owned())
            }
            Err(UnpackError::Canceled) => Err(EngineError::Canceled),
            Err(source) => Err(EngineError::Unpack { path: archive.path, source }),
        }
    }
}

/// Gives fetched sources their place, unless they are there already.
fn keep(fresh: &Path, root: &Path, id: &str) -> Result<(), EngineError> {
    let folder = folder_of(root, id);
    let tree = folder.join("tree");
    let lock = Lock::try_take(&lock_of(&folder))?;
    // Whoever has it puts the same there.
    if tree.exists() || lock.is_none() {
        return clear(fresh);
    }
    fs::create_dir_all(&folder).map_err(EngineError::io("create", &folder))?;
    fs::rename(fresh, &tree).map_err(EngineError::io("rename", fresh))
}

fn folder_of(root: &Path, id: &str) -> PathBuf {
    root.join(format!("src-{}", &id[..id.len().min(16)]))
}

impl Fetched {
    fn at(root: &Path, id: String) -> Option<Self> {
        let folder = folder_of(root, &id);
        let tree = project(&folder.join("tree"))?;
        Some(Self { id, folder, tree })
    }
}

/// How deep an archive's project may lie.
const DEEPEST: usize = 3;

/// The folder of the project: the only one of the highest level that has any.
fn project(tree: &Path) -> Option<PathBuf> {
    let mut level = vec![tree.to_owned()];
    for _ in 0..=DEEPEST {
        let mut found = level.iter().filter(|folder| folder.join("CMakeLists.txt").is_file());
        match (found.next(), found.next()) {
            (Some(folder), None) => return Some(folder.clone()),
            (Some(_), Some(_)) => return None,
            (None, _) => level = level.iter().flat_map(|folder| folders(folder)).collect(),
        }
    }
    None
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}
