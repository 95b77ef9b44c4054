//! Files compared with what is registered (ORCH-3703, ORCH-3267, LO-CAT-06).

use api_types::VerificationOutcome::{Fail, Pass, Warn};
use catalog_core::{CatalogEntry, Digest, FilesVerdict, VerifyError, verify_digest, verify_files};
use tokio_util::sync::CancellationToken;

use crate::support::{Kind, Place, Told, entry, write};

fn verify(entry: &CatalogEntry) -> FilesVerdict {
    verify_files(entry, &Told::default(), &CancellationToken::new()).expect("it is read")
}

/// LO-CAT-06: one digest against another.
#[test]
fn digests_are_compared() {
    let (one, other) = (Digest::of(b"1"), Digest::of(b"2"));
    assert_eq!(verify_digest(Some(&one), &one), Pass);
    assert_eq!(verify_digest(Some(&one), &other), Fail);
    assert_eq!(verify_digest(None, &one), Warn);
}

/// ORCH-3703, ORCH-3267: files that are what is registered pass, and the bytes that are read are told.
#[test]
fn what_is_registered_passes() {
    let place = Place::new(Kind::Fs);
    let names = ["a.safetensors", "sub/b.safetensors"];
    let folder = place.stored("hf:a/b", "hf/a/b", &names);
    let told = Told::default();
    let found = verify_files(&folder, &told, &CancellationToken::new()).expect("it is read");
    assert_eq!((found.verdict.outcome, found.verdict.findings.len()), (Pass, 0));
    assert_eq!((&found.files, &found.digest), (&folder.files, &folder.digest));
    let sums = told.sums();
    assert_eq!((sums.planned, sums.bytes), (Some((2, Some(30))), 30));
    assert_eq!(sums.files, names);

    let one = place.stored("hf:c/d/e.gguf", "hf/c/d/e.gguf", &["e.gguf"]);
    assert_eq!(verify(&one).verdict.outcome, Pass);
    assert_eq!(verify(&CatalogEntry { digest: None, ..one.clone() }).verdict.outcome, Pass);
    assert_eq!(verify(&CatalogEntry { files: Vec::new(), ..one }).verdict.outcome, Pass);
    assert_eq!(verify(&CatalogEntry { files: Vec::new(), ..folder }).verdict.outcome, Pass);
}

/// ORCH-3703, ORCH-3267: without any digest nothing is proved, and what was found is told.
#[test]
fn what_has_no_digest_is_warned_of() {
    let place = Place::new(Kind::Fs);
    let known = place.stored("hf:a/b", "hf/a/b", &["a.safetensors", "b.safetensors"]);
    let found = verify(&CatalogEntry { files: Vec::new(), digest: None, ..known.clone() });
    assert_eq!((found.verdict.outcome, found.files, found.digest), (Warn, known.files, known.digest.clone()));
    assert!(found.verdict.findings[0].contains(known.digest.expect("it has one").as_str()));
}

/// ORCH-3703, ORCH-3267, ORCH-3037.3: what is missing or another fails, and each file is named.
#[test]
fn what_is_not_registered_fails() {
    let place = Place::new(Kind::Fs);
    let model = place.stored("hf:a/b", "hf/a/b", &["gone", "size", "same", "good"]);
    std::fs::remove_file(place.model("hf/a/b/gone")).expect("it is there");
    write(&place.model("hf/a/b/size"), b"longer");
    write(&place.model("hf/a/b/same"), b"four");
    let found = verify(&model);
    assert_eq!((found.verdict.outcome, found.digest), (Fail, None));
    let starts = found.verdict.findings.iter().map(|finding| finding.split(' ').next().expect("a word"));
    assert_eq!(starts.collect::<Vec<_>>(), ["gone", "size", "same"]);

    let one = place.stored("hf:c/d/e.gguf", "hf/c/d/e.gguf", &["e.gguf"]);
    let wrong = CatalogEntry { digest: Some(Digest::of(b"other")), ..one.clone() };
    assert_eq!(verify(&wrong).verdict.outcome, Fail);
    let wrong = CatalogEntry { files: Vec::new(), ..wrong };
    assert_eq!(verify(&wrong).verdict.outcome, Fail);
    std::fs::remove_file(place.model("hf/c/d/e.gguf")).expect("it is there");
    assert_eq!(verify(&one).verdict.outcome, Fail);
    assert_eq!(verify(&wrong).verdict.outcome, Fail);
}

/// A model that was never here cannot fail, and a cancel ends the reading.
#[test]
fn nothing_is_said_about_what_was_not_read() {
    let place = Place::new(Kind::Fs);
    let (told, cancel) = (Told::default(), CancellationToken::new());
    assert!(matches!(verify_files(&entry("hf:a/b"), &told, &cancel), Err(VerifyError::NotHere)));
    cancel.cancel();
    let model = place.stored("hf:a/b", "hf/a/b", &["a", "b"]);
    assert!(matches!(verify_files(&model, &told, &cancel), Err(VerifyError::Canceled)));
    assert!(told.sums().files.is_empty());
}
