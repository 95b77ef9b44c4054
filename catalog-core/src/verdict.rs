//! What a verification finds, and the comparison of a model's files with what is registered (LO-CAT-06, ORCH-3703).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use api_types::{Verification, VerificationOutcome};
use tokio_util::sync::CancellationToken;

use crate::local_files::{self, FoundFile, LocalFilesError};
use crate::{CatalogEntry, Digest, Progress, StoredFile};

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The worst of all that was found.
    pub outcome: VerificationOutcome,
    /// What was missing or wrong, one sentence each; what was missing and nobody had asked for, too.
    pub findings: Vec<String>,
}

impl Verdict {
    /// Nothing is missing or wrong.
    #[must_use]
    pub const fn pass() -> Self {
        Self { outcome: VerificationOutcome::Pass, findings: Vec::new() }
    }

    /// Something that would prove it is missing.
    #[must_use]
    pub fn warn(finding: impl Into<String>) -> Self {
        Self { outcome: VerificationOutcome::Warn, findings: vec![finding.into()] }
    }

    /// Adds a finding.
    pub(crate) fn add(&mut self, outcome: VerificationOutcome, finding: String) {
        self.outcome = worse(self.outcome, outcome);
        self.findings.push(finding);
    }

    /// Both together: the worse outcome, all findings.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.outcome = worse(self.outcome, other.outcome);
        self.findings.extend(other.findings);
        self
    }

    /// The verdict as the catalog remembers it.
    #[must_use]
    pub fn at(self, verified_at_ms: i64) -> Verification {
        Verification { outcome: self.outcome, findings: self.findings, verified_at_ms }
    }
}

fn worse(one: VerificationOutcome, other: VerificationOutcome) -> VerificationOutcome {
    use VerificationOutcome::{Fail, Pass, Warn};
    match (one, other) {
        (Fail, _) | (_, Fail) => Fail,
        (Warn, _) | (_, Warn) => Warn,
        (Pass, Pass) => Pass,
    }
}

/// Compares a digest with the one that is expected: it passes or fails, and without one there is a warning.
#[must_use]
pub fn verify_digest(expected: Option<&Digest>, found: &Digest) -> VerificationOutcome {
    match expected {
        None => VerificationOutcome::Warn,
        Some(expected) if expected == found => VerificationOutcome::Pass,
        Some(_) => VerificationOutcome::Fail,
    }
}

/// What the files of a model turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilesVerdict {
    /// Pass: they are what is registered. Warn: no digest is registered. Fail: they are not, or one is missing.
    pub verdict: Verdict,
    /// The files that are there and were read, by name.
    pub files: Vec<StoredFile>,
    /// The digest of them all, when none is missing.
    pub digest: Option<Digest>,
}

/// Why files could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The model has no files on this machine.
    #[error("the model is not on this machine; pull it first")]
    NotHere,
    /// A file could not be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A link in the model's folder leads out of it.
    #[error("{} leads out of the model's folder; put the file itself there", path.display())]
    LinkOutside {
        /// The link.
        path: PathBuf,
    },
    /// It was canceled.
    #[error("the verification was canceled")]
    Canceled,
}

/// Reads all files of a model and compares sizes and digests with what its entry says; of a folder whose files are not
/// registered, all files below it. Reports the bytes it reads. Blocks for as long as reading takes.
///
/// # Errors
/// [`VerifyError`] when nothing could be found out.
pub fn verify_files(
    entry: &CatalogEntry,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<FilesVerdict, VerifyError> {
    let local_path = entry.local_path.as_deref().ok_or(VerifyError::NotHere)?;
    let expected: Vec<_> = match entry.files.as_slice() {
        [] if !local_path.exists() => return Ok(missing(local_path)),
        [] => local_files::find(local_path)?.into_iter().map(|file| (file, None)).collect(),
        _ => entry
            .file_paths()
            .map(|(path, file)| {
                let size_bytes = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                (FoundFile { name: file.name.clone(), path, size_bytes }, Some(file))
            })
            .collect(),
    };
    progress.planned(expected.len(), Some(expected.iter().map(|(file, _)| file.size_bytes).sum()));
    let mut verdict = Verdict::pass();
    let mut files = Vec::new();
    for (file, registered) in &expected {
        let found = check_file(file, *registered, &mut verdict, progress, cancel)?;
        files.extend(found);
    }
    let digest = (files.len() == expected.len()).then(|| CatalogEntry::manifest_digest(&files)).flatten();
    compare_digest(entry, digest.as_ref(), &mut verdict);
    Ok(FilesVerdict { verdict, files, digest })
}

fn missing(path: &Path) -> FilesVerdict {
    let mut verdict = Verdict::pass();
    verdict.add(VerificationOutcome::Fail, format!("{} is missing; pull the model again", path.display()));
    FilesVerdict { verdict, files: Vec::new(), digest: None }
}

/// One file, read if it is there and may be the right one.
fn check_file(
    file: &FoundFile,
    registered: Option<&StoredFile>,
    verdict: &mut Verdict,
    progress: &dyn Progress,
    cancel: &CancellationToken,
) -> Result<Option<StoredFile>, VerifyError> {
    let mut fail = |what: String| verdict.add(VerificationOutcome::Fail, format!("{} {what}", file.name));
    let opened = match File::open(&file.path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            fail("is missing; pull the model again".to_owned());
            return Ok(None);
        }
        opened => opened.map_err(|source| VerifyError::Io { path: file.path.clone(), source })?,
    };
    if let Some(registered) = registered.filter(|registered| registered.size_bytes != file.size_bytes) {
        fail(format!("has {} bytes and {} are registered", file.size_bytes, registered.size_bytes));
        progress.advanced(file.size_bytes);
        return Ok(None);
    }
    let stored = local_files::hash(file, opened, progress, cancel)?;
    if let Some(registered) = registered.filter(|registered| registered.digest != stored.digest) {
        fail(format!("has the digest {} and {} is registered", stored.digest, registered.digest));
    }
    progress.file_done(&file.name);
    Ok(Some(stored))
}

fn compare_digest(entry: &CatalogEntry, found: Option<&Digest>, verdict: &mut Verdict) {
    let Some(found) = found else { return };
    match (&entry.digest, verify_digest(entry.digest.as_ref(), found)) {
        (Some(expected), outcome @ VerificationOutcome::Fail) => {
            verdict.add(outcome, format!("the model has the digest {found} and {expected} is registered"));
        }
        (None, outcome) if entry.files.is_empty() => {
            verdict.add(outcome, format!("no digest is registered, so nothing is proved; register {found} to pin it"));
        }
        _ => {}
    }
}

impl From<LocalFilesError> for VerifyError {
    fn from(error: LocalFilesError) -> Self {
        match error {
            LocalFilesError::Io { path, source } => Self::Io { path, source },
            LocalFilesError::LinkOutside { path } => Self::LinkOutside { path },
            LocalFilesError::Canceled => Self::Canceled,
        }
    }
}
