//! The program that runs in the containers of tests.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/programs/resident.rs");

/// Its path. Built statically, so that its image holds nothing else; once, unless its source is newer.
pub(crate) fn program() -> PathBuf {
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join("resident");
    let time = |path: &Path| std::fs::metadata(path).and_then(|found| found.modified()).ok();
    if time(&built) > time(Path::new(SOURCE)) {
        return built;
    }
    // Tests run side by side: each builds under a name of its own, and the last one wins.
    let mine = built.with_extension(std::process::id().to_string());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let options = ["--edition=2024", "-Ctarget-feature=+crt-static", "-Copt-level=1", "-Cstrip=symbols"];
    let status = Command::new(rustc).args(options).arg("-o").arg(&mine).arg(SOURCE).status().expect("rustc starts");
    assert!(status.success(), "the tests' program does not build");
    std::fs::rename(&mine, &built).expect("a folder of ours");
    built
}
