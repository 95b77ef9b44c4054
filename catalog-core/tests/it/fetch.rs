//! Models that are on this machine already (LO-CAT-11).

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use catalog_core::{
    CatalogEntry, Digest, FetchContext, FetchError, Fetched, FileFetcher, ModelFetcher as _, default_model_cache_dir,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::{Told, file, write};

struct Fetch {
    dir: TempDir,
    told: Arc<Told>,
    cancel: CancellationToken,
}

impl Fetch {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(dir.path().join("models")).expect("a folder");
        Self { dir, told: Arc::default(), cancel: CancellationToken::new() }
    }

    fn models(&self) -> std::path::PathBuf {
        self.dir.path().join("models")
    }

    fn fetch(&self, model: &str, expected: Option<&Digest>) -> Result<Fetched, FetchError> {
        let context = FetchContext { progress: self.told.clone(), cancel: self.cancel.clone(), configured: false };
        let fetcher = FileFetcher::new(self.models());
        let model = model.parse().expect("a reference");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(fetcher.fetch(&model, expected, &context))
    }
}

fn put(folder: &Path, name: &str) {
    write(&folder.join(name), name.as_bytes());
}

/// LO-CAT-11: a file is itself, a folder is all files below it, by name; where they are they stay.
#[test]
fn files_and_folders_are_taken_where_they_are() {
    let fetch = Fetch::new();
    put(&fetch.models(), "a.gguf");
    for name in ["z.json", "sub/deep/b.safetensors", "sub/a.safetensors"] {
        put(&fetch.models().join("m"), name);
    }
    let one = fetch.fetch("file:a.gguf", Some(&Digest::of(b"a.gguf"))).expect("it is there");
    let local_path = fetch.models().join("a.gguf");
    assert_eq!(one, Fetched { local_path, files: vec![file("a.gguf")], source_url: None, transferred_bytes: 0 });

    let files = vec![file("sub/a.safetensors"), file("sub/deep/b.safetensors"), file("z.json")];
    let digest = CatalogEntry::manifest_digest(&files).expect("there are files");
    let absolute = fetch.models().join("m");
    for model in ["file:m", absolute.to_str().expect("it is text")] {
        let found = fetch.fetch(model, Some(&digest)).expect("it is there");
        assert_eq!((&found.local_path, &found.files), (&absolute, &files));
    }
    let sums = fetch.told.sums();
    assert_eq!(sums.planned, Some((3, Some(45))));
    assert_eq!((sums.bytes, sums.files.len()), (6 + 2 * 45, 7));
}

/// LO-CAT-11, LO-CAT-09: what is not here, or not what was expected, is refused, and nothing is ever fetched.
#[test]
fn what_is_not_here_is_refused() {
    let fetch = Fetch::new();
    put(&fetch.models(), "a.gguf");
    std::fs::create_dir(fetch.models().join("empty")).expect("a folder");
    assert!(matches!(fetch.fetch("hf:a/b", None), Err(FetchError::Unsupported(_))));
    assert!(matches!(fetch.fetch("https://h/a.gguf", None), Err(FetchError::Unsupported(_))));
    assert!(matches!(fetch.fetch("file:b.gguf", None), Err(FetchError::NotFound(_))));
    assert!(matches!(fetch.fetch("/none/b.gguf", None), Err(FetchError::NotFound(_))));
    assert!(matches!(fetch.fetch("file:empty", None), Err(FetchError::NotFound(_))));
    let wrong = fetch.fetch("file:a.gguf", Some(&Digest::of(b"b")));
    assert!(matches!(wrong, Err(FetchError::Digest { found, .. }) if found == Digest::of(b"a.gguf")));
    fetch.cancel.cancel();
    assert!(matches!(fetch.fetch("file:a.gguf", None), Err(FetchError::Canceled)));
}

/// LO-CAT-10: links lead to files of the same folder or nowhere.
#[test]
fn links_do_not_lead_out() {
    let fetch = Fetch::new();
    put(fetch.dir.path(), "secret");
    put(&fetch.models().join("m"), "a.gguf");
    symlink("a.gguf", fetch.models().join("m/b.gguf")).expect("a link");
    symlink(".", fetch.models().join("m/circle")).expect("a link");
    let names: Vec<String> =
        fetch.fetch("file:m", None).expect("it is there").files.into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["a.gguf", "b.gguf"]);
    symlink(fetch.dir.path().join("secret"), fetch.models().join("m/c.gguf")).expect("a link");
    assert!(matches!(fetch.fetch("file:m", None), Err(FetchError::Unsupported(_))));
    assert!(matches!(fetch.fetch("file:m/c.gguf", None), Err(FetchError::Unsupported(_))));
}

/// LO-CAT-11: models are kept in the home folder's cache unless the configuration says otherwise.
#[test]
fn the_default_folder_is_in_the_home_folder() {
    let home = std::env::home_dir().expect("there is one");
    assert_eq!(default_model_cache_dir(), Some(home.join(".cache/models")));
}
