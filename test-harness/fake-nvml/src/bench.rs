//! What tests begin with.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::claims::{Claim, ClaimError, claim_in};
use crate::state::{STATE_FILE, STATE_VAR};
use crate::{State, StateError};

/// Variable by which orchestratord learns of the library.
const LIBRARY_VAR: &str = "LLAMA_ORCH_NVML";

/// Fake GPUs in a folder: their state, and a copy of the library that finds it there.
#[derive(Debug)]
pub struct FakeNvml {
    folder: PathBuf,
    /// Held from reading the state to writing it.
    updating: Mutex<()>,
}

impl FakeNvml {
    /// The reference box, 24 GB and 12 GB, in a folder that the caller made and removes. Builds the library if it is not there.
    ///
    /// # Errors
    /// When a file cannot be written, or the library cannot be built.
    pub fn new(folder: &Path) -> io::Result<Self> {
        Self::with(folder, &State::reference_box())
    }

    /// The same with other GPUs.
    ///
    /// # Errors
    /// When a file cannot be written, or the library cannot be built.
    pub fn with(folder: &Path, state: &State) -> io::Result<Self> {
        let fake = Self { folder: std::path::absolute(folder)?, updating: Mutex::new(()) };
        state.write(&fake.state_path()).map_err(io::Error::other)?;
        // A copy, since a library is loaded once however many paths lead to it, and each test wants its own.
        std::fs::copy(built()?, fake.library_path())?;
        Ok(fake)
    }

    /// The library to load.
    #[must_use]
    pub fn library_path(&self) -> PathBuf {
        self.folder.join("libnvidia-ml.so.1")
    }

    /// The state's file.
    #[must_use]
    pub fn state_path(&self) -> PathBuf {
        self.folder.join(STATE_FILE)
    }

    /// The state as it is.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn state(&self) -> Result<State, StateError> {
        State::read(&self.state_path())
    }

    /// Changes the state. Whoever asks the library afterwards sees it.
    ///
    /// # Panics
    /// When the file cannot be read or written, which ends a test.
    pub fn update(&self, change: impl FnOnce(&mut State)) {
        let _updating = self.updating.lock().expect("no update has panicked");
        let mut state = self.state().expect("the state can be read");
        change(&mut state);
        state.write(&self.state_path()).expect("the state can be written");
    }

    /// Claims memory in the name of this process.
    ///
    /// # Errors
    /// [`ClaimError`].
    pub fn claim(&self, bytes_per_device: &[(String, u64)]) -> Result<Claim, ClaimError> {
        claim_in(&self.state_path(), bytes_per_device)
    }

    /// What a process needs in its environment to have these GPUs.
    #[must_use]
    pub fn env(&self) -> [(&'static str, OsString); 2] {
        [(LIBRARY_VAR, self.library_path().into()), (STATE_VAR, self.state_path().into())]
    }
}

/// The library, which lies with the test's own executable or a folder above it. One that is not there is built; one that is
/// there is used as it is, for cargo builds it anew with whatever depends on this crate.
fn built() -> io::Result<PathBuf> {
    let executable = std::env::current_exe()?;
    let folder = executable.parent().ok_or_else(|| io::Error::other("the test has no folder"))?;
    let profile = if folder.ends_with("deps") || folder.ends_with("examples") {
        folder.parent().unwrap_or(folder)
    } else {
        folder
    };
    let name = format!("{}fake_nvml{}", std::env::consts::DLL_PREFIX, std::env::consts::DLL_SUFFIX);
    let places = [profile.join("deps").join(&name), profile.join(&name)];
    if let Some(found) = places.iter().find(|place| place.exists()) {
        return Ok(found.clone());
    }
    build(profile)?;
    places.into_iter().find(|place| place.exists()).ok_or_else(|| io::Error::other(format!("no {name} was built")))
}

fn build(profile: &Path) -> io::Result<()> {
    let target = profile.parent().ok_or_else(|| io::Error::other("the target folder has no parent"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // Run from this crate's folder, so that the workspace is found wherever the test runs.
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "-p", "fake-nvml", "--lib", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    match cargo.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("building fake-nvml failed: {status}"))),
    }
}
