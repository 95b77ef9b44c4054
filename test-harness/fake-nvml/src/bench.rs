//! What tests begin with.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::claims::{Claim, ClaimError, Refused, Release, change, claim_in, held, refused_in};
use crate::memory::processes;
use crate::state::{STATE_FILE, STATE_VAR};
use crate::{Gpu, Process, State, StateError};

/// Variable by which orchestratord learns of the library.
const LIBRARY_VAR: &str = "LLAMA_ORCH_NVML";

/// Fake GPUs in a folder: their state, and a copy of the library that finds it there.
#[derive(Debug)]
pub struct FakeNvml {
    folder: PathBuf,
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
        let fake = Self { folder: std::path::absolute(folder)? };
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

    /// Changes the state. Whoever asks the library afterwards sees it, and whoever claims memory meanwhile waits.
    ///
    /// # Panics
    /// When the file cannot be read or written, which ends a test.
    pub fn update(&self, how: impl FnOnce(&mut State)) {
        let changed = change(&self.state_path(), |state, _| {
            how(state);
            Ok(())
        });
        changed.expect("the state can be read and written");
    }

    /// A process that is no engine of ours takes memory of a GPU: what it wants, or what is free at that moment when that is
    /// less, so that it never takes what others have. What it took before it keeps. The driver shows it like any other process,
    /// until it [returns](Self::foreign_returns) all of it. Gives what it has taken now, in bytes.
    ///
    /// # Errors
    /// [`ClaimError`]; also when the device is a MIG instance.
    pub fn foreign(&self, pid: u32, device: &str, bytes: u64) -> Result<u64, ClaimError> {
        change(&self.state_path(), |state, free| {
            let taken = bytes.min(free(state, device)?);
            let processes = processes_of(state, device)?;
            match processes.iter_mut().find(|process| process.pid == pid) {
                Some(known) => known.bytes = Some(known.bytes.unwrap_or(0) + taken),
                None => processes.push(Process { pid, bytes: Some(taken) }),
            }
            Ok(taken)
        })
    }

    /// A process that is no engine of ours gives back so much memory of a GPU, or all that it has when that is less; without
    /// any left it is gone. Gives what it has given back, in bytes.
    ///
    /// # Errors
    /// [`ClaimError`]; also when the device is a MIG instance.
    pub fn foreign_returns(&self, pid: u32, device: &str, bytes: u64) -> Result<u64, ClaimError> {
        change(&self.state_path(), |state, _| {
            let processes = processes_of(state, device)?;
            let Some(place) = processes.iter().position(|process| process.pid == pid) else { return Ok(0) };
            let held = processes[place].bytes.unwrap_or(0);
            let back = bytes.min(held);
            if back == held {
                processes.remove(place);
            } else {
                processes[place].bytes = Some(held - back);
            }
            Ok(back)
        })
    }

    /// The processes that hold memory of a GPU or MIG instance, as the driver shows them.
    ///
    /// # Panics
    /// When there is no such device, or the files cannot be read, which ends a test.
    #[must_use]
    pub fn processes(&self, device: &str) -> Vec<Process> {
        let state = self.state().expect("the state can be read");
        let held = held(&self.state_path(), Release::of(&state)).expect("the claims can be read");
        let has = |gpu: &&Gpu| gpu.uuid == device || gpu.mig.iter().flatten().any(|mig| mig.uuid == device);
        processes(state.devices.iter().find(has).expect("there is that device"), device, &held)
    }

    /// Every claim, of whatever process, that did not fit: what would have been an out-of-memory on a real card. The first one
    /// first.
    ///
    /// # Panics
    /// When they cannot be read, which ends a test.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        refused_in(&self.state_path()).expect("what was refused can be read")
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

fn processes_of<'a>(state: &'a mut State, device: &str) -> Result<&'a mut Vec<Process>, ClaimError> {
    let gpu = state.devices.iter_mut().find(|gpu| gpu.uuid == device);
    Ok(&mut gpu.ok_or_else(|| ClaimError::NoDevice { device: device.to_owned() })?.processes)
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
