//! Memory that simulated engines hold.
//!
//! Each claim is a file in a folder beside the state's. Its claimant keeps it locked, so that the system itself lets go of it when
//! the process ends, however it ends, and also where process ids mean something else, as in a container. Whoever looks at or changes
//! the claims holds the folder's lock meanwhile, so that claims made at the same time cannot take the same memory.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::memory::Memory;
use crate::state::{STATE_VAR, replace};
use crate::{Driver, State, StateError};

/// Memory of GPUs that this process holds until it is dropped or the process ends.
#[derive(Debug)]
pub struct Claim {
    /// Its lock says that the claimant lives.
    _file: File,
}

/// Memory cannot be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It does not fit.
    #[error("{wanted} bytes do not fit on {device}, which has {free} left")]
    DoesNotFit {
        /// Id of the device.
        device: String,
        /// What was wanted of it, in bytes.
        wanted: u64,
        /// What is free, in bytes.
        free: u64,
    },
    /// There is no such device, or it does not answer.
    #[error("there is no device {device} that answers")]
    NoDevice {
        /// Its id.
        device: String,
    },
    /// The driver does not work.
    #[error("the driver is {0:?}")]
    Driver(Driver),
    /// [`STATE_VAR`] is not set.
    #[error("{STATE_VAR} does not name the fake GPUs' file")]
    NoState,
    /// The state's file cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The claims' folder cannot be used.
    #[error("cannot use the fake GPUs' claims")]
    Io(#[from] io::Error),
}

/// Claims so many bytes of devices, GPUs or MIG instances named by their ids: all of it, or nothing. The state's file is the one
/// that [`STATE_VAR`] names.
///
/// # Errors
/// [`ClaimError`].
pub fn claim(bytes_per_device: &[(String, u64)]) -> Result<Claim, ClaimError> {
    let path = std::env::var_os(STATE_VAR).ok_or(ClaimError::NoState)?;
    claim_in(Path::new(&path), bytes_per_device)
}

/// The same with a state's file that the caller knows.
///
/// # Errors
/// [`ClaimError`].
pub fn claim_in(state_path: &Path, bytes_per_device: &[(String, u64)]) -> Result<Claim, ClaimError> {
    let folder = Folder::open(state_path)?;
    // Read under the lock: what a test writes before a claim begins counts for it.
    let state = State::read(state_path)?;
    if state.driver != Driver::Ok {
        return Err(ClaimError::Driver(state.driver));
    }
    let held = folder.held(Release::of(&state))?;
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    for (device, bytes) in bytes_per_device {
        *wanted.entry(device).or_default() += bytes;
    }
    for (device, wanted) in &wanted {
        let no_device = || ClaimError::NoDevice { device: (*device).to_owned() };
        let free = Memory::of(&state, device, &held).ok_or_else(no_device)?.free;
        if *wanted > free {
            let pid = std::process::id();
            folder.note_refusal(&Refused { pid, device: (*device).to_owned(), wanted: *wanted, free })?;
            return Err(ClaimError::DoesNotFit { device: (*device).to_owned(), wanted: *wanted, free });
        }
    }
    let bytes = wanted.into_iter().map(|(device, bytes)| (device.to_owned(), bytes)).collect();
    Ok(folder.add(&Held { pid: std::process::id(), bytes, ended_ms: None })?)
}

/// What is free of a device, in bytes.
///
/// # Errors
/// [`ClaimError`].
pub fn free_in(state_path: &Path, device: &str) -> Result<u64, ClaimError> {
    let folder = Folder::open(state_path)?;
    let state = State::read(state_path)?;
    folder.free(&state, device)
}

/// A claim that did not fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Id of the process that wanted it, as it knows itself.
    pub pid: u32,
    /// Id of the device.
    pub device: String,
    /// What was wanted of it, in bytes.
    pub wanted: u64,
    /// What was free, in bytes.
    pub free: u64,
}

/// Every claim that did not fit since the claims' folder was made, the first one first.
///
/// # Errors
/// When the file in which they are noted cannot be read.
pub fn refused_in(state_path: &Path) -> io::Result<Vec<Refused>> {
    let folder = Folder::open(state_path)?;
    let text = match std::fs::read_to_string(folder.path.join(REFUSED)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Changes the state while nobody claims anything; the change is told what is free of a device.
pub(crate) fn change<T>(
    state_path: &Path,
    change: impl FnOnce(&mut State, &dyn Fn(&State, &str) -> Result<u64, ClaimError>) -> Result<T, ClaimError>,
) -> Result<T, ClaimError> {
    let folder = Folder::open(state_path)?;
    let mut state = State::read(state_path)?;
    let changed = change(&mut state, &|state, device| folder.free(state, device))?;
    state.write(state_path)?;
    Ok(changed)
}

/// Every claim that counts now. Without a folder there is none.
pub(crate) fn held(state_path: &Path, release: Release) -> io::Result<Vec<Held>> {
    if folder_of(state_path).exists() { Folder::open(state_path)?.held(release) } else { Ok(Vec::new()) }
}

/// A claim as its file says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    pub(crate) pid: u32,
    /// By device.
    pub(crate) bytes: BTreeMap<String, u64>,
    /// When its end was noticed, since the Unix epoch.
    ended_ms: Option<u64>,
}

impl Held {
    pub(crate) const fn lives(&self) -> bool {
        self.ended_ms.is_none()
    }
}

/// When the memory of what has ended is free again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Release {
    least_ms: u64,
    jitter_ms: u64,
}

impl Release {
    pub(crate) const fn of(state: &State) -> Self {
        Self { least_ms: state.release_ms, jitter_ms: state.release_jitter_ms }
    }

    /// The time that a claim's memory takes, the same for whoever looks: the name is as good as a die (FNV-1a).
    fn delay_ms(self, name: &str) -> u64 {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        // The low bits of this hash depend on little more than the last bytes; the high ones on all.
        self.least_ms.saturating_add((hash >> 16) % self.jitter_ms.saturating_add(1))
    }
}

/// In the claims' folder, one line of JSON for each claim that did not fit.
const REFUSED: &str = "refused.jsonl";

/// The claims' folder, locked.
struct Folder {
    path: PathBuf,
    _lock: File,
}

fn folder_of(state_path: &Path) -> PathBuf {
    state_path.with_extension("claims")
}

impl Folder {
    fn open(state_path: &Path) -> io::Result<Self> {
        let path = folder_of(state_path);
        std::fs::create_dir_all(&path)?;
        let lock = File::create(path.join("lock"))?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    fn add(&self, held: &Held) -> io::Result<Claim> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Process ids repeat between containers, so the moment is part of the name.
        let name = format!("{}-{}-{}", held.pid, now_ms(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temporary = self.path.join(format!("{name}.new"));
        let mut file = File::create_new(&temporary)?;
        file.try_lock()?;
        file.write_all(&serde_json::to_vec(held)?)?;
        std::fs::rename(&temporary, self.path.join(format!("{name}.json")))?;
        Ok(Claim { _file: file })
    }

    fn note_refusal(&self, refused: &Refused) -> io::Result<()> {
        let mut line = serde_json::to_vec(refused)?;
        line.push(b'\n');
        File::options().create(true).append(true).open(self.path.join(REFUSED))?.write_all(&line)
    }

    fn free(&self, state: &State, device: &str) -> Result<u64, ClaimError> {
        let memory = Memory::of(state, device, &self.held(Release::of(state))?);
        Ok(memory.ok_or_else(|| ClaimError::NoDevice { device: device.to_owned() })?.free)
    }

    /// The claims of living processes, and of those that have ended and whose memory is not back yet. Others are removed.
    fn held(&self, release: Release) -> io::Result<Vec<Held>> {
        let mut all = Vec::new();
        // Once for all of them: each process with a model holds several.
        let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
        let holders = holders(&locks);
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(held) = look_at(&path, release, &holders)?
            {
                all.push(held);
            }
        }
        Ok(all)
    }
}

fn look_at(path: &Path, release: Release, holders: &BTreeMap<u64, u32>) -> io::Result<Option<Held>> {
    let mut file = File::open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let mut held: Held = serde_json::from_slice(&text)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            held.pid = holders.get(&file.metadata()?.ino()).copied().unwrap_or(held.pid);
            return Ok(Some(held));
        }
        Err(TryLockError::Error(error)) => return Err(error),
        Ok(()) => {}
    }
    let now = now_ms();
    let ended = *held.ended_ms.get_or_insert(now);
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    if now.saturating_sub(ended) >= release.delay_ms(&name) {
        std::fs::remove_file(path)?;
        return Ok(None);
    }
    if ended == now {
        replace(path, &serde_json::to_vec(&held)?)?;
    }
    Ok(Some(held))
}

/// The processes that have files locked, by the files, each by the number that it has here: a driver counts as the host does, and a
/// claimant in a container does not know that number.
fn holders(locks: &str) -> BTreeMap<u64, u32> {
    let holder = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (kind, pid, place) = (fields.next()?, fields.nth(2)?, fields.next()?);
        let inode = place.rsplit(':').next()?.parse().ok()?;
        // Zero is somebody whom this process cannot see.
        let pid = pid.parse().ok().filter(|pid| *pid != 0)?;
        (kind == "FLOCK").then_some((inode, pid))
    };
    locks.lines().filter_map(holder).collect()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
