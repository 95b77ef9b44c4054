//! The library as a whole: whether it is in use, and the state that it answers from.

use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Handle;
use crate::claims::{self, Held, Release};
use crate::memory::Memory;
use crate::state::{STATE_FILE, STATE_VAR};
use crate::{Driver, Gpu, State};

/// `nvmlReturn_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Success = 0,
    Uninitialized = 1,
    InvalidArgument = 2,
    NotSupported = 3,
    NotFound = 6,
    InsufficientSize = 7,
    DriverNotLoaded = 9,
    Timeout = 10,
    GpuIsLost = 15,
    DriverMismatch = 18,
    VersionMismatch = 25,
    Unknown = 999,
}

/// What lives as long as the library is loaded.
#[derive(Debug, Default)]
struct Library {
    /// How often it was initialised and not shut down.
    uses: u32,
    /// The driver was lost since it was initialised.
    broken: bool,
    cached: Option<Cached>,
}

#[derive(Debug)]
struct Cached {
    /// The file's content.
    text: Vec<u8>,
    state: Arc<State>,
}

static LIBRARY: Mutex<Library> = Mutex::new(Library { uses: 0, broken: false, cached: None });

fn lock() -> MutexGuard<'static, Library> {
    // Nothing below leaves it half changed.
    LIBRARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Between `nvmlInit` and `nvmlShutdown`.
pub(super) struct Use;

impl Use {
    pub(super) fn begin() -> Result<(), Status> {
        let mut library = lock();
        match library.state()?.driver {
            Driver::Ok => {}
            Driver::Lost => return Err(Status::Unknown),
            Driver::NotLoaded => return Err(Status::DriverNotLoaded),
            Driver::Mismatch => return Err(Status::DriverMismatch),
        }
        // A library that somebody else still uses stays as broken as it is.
        if library.uses == 0 {
            library.broken = false;
        }
        library.uses += 1;
        Ok(())
    }

    pub(super) fn end() -> Result<(), Status> {
        let mut library = lock();
        library.uses = library.uses.checked_sub(1).ok_or(Status::Uninitialized)?;
        Ok(())
    }
}

impl Library {
    /// The file is parsed again when it says something else. Its number and time do not tell that: a state that is replaced
    /// twice within one tick of the file system's clock may have both of what it had before.
    fn state(&mut self) -> Result<Arc<State>, Status> {
        let text = std::fs::read(state_path()).map_err(|_| Status::DriverNotLoaded)?;
        if let Some(cached) = &self.cached
            && cached.text == text
        {
            return Ok(cached.state.clone());
        }
        let state: Arc<State> = Arc::new(serde_json::from_slice(&text).map_err(|_| Status::Unknown)?);
        self.cached = Some(Cached { text, state: state.clone() });
        Ok(state)
    }
}

/// The state, if the library is in use and the driver works.
pub(super) fn current() -> Result<Arc<State>, Status> {
    let mut library = lock();
    if library.uses == 0 {
        return Err(Status::Uninitialized);
    }
    let state = library.state()?;
    let failure = match state.driver {
        Driver::Ok if library.broken => Status::GpuIsLost,
        Driver::Ok => return Ok(state),
        Driver::Lost => Status::GpuIsLost,
        Driver::NotLoaded => Status::DriverNotLoaded,
        Driver::Mismatch => Status::DriverMismatch,
    };
    library.broken = true;
    Err(failure)
}

/// Answers from the state.
pub(super) fn with_state<T>(answer: impl FnOnce(&State, &Path) -> Result<T, Status>) -> Result<T, Status> {
    answer(&*current()?, &state_path())
}

/// A GPU, or a MIG instance of it.
pub(super) struct Device<'a> {
    pub(super) place: usize,
    pub(super) gpu: &'a Gpu,
    state: &'a State,
    state_path: &'a Path,
    instance: Option<usize>,
}

impl Device<'_> {
    pub(super) fn uuid(&self) -> &str {
        let instance = self.instance.and_then(|place| self.gpu.mig.as_ref()?.get(place));
        instance.map_or(&self.gpu.uuid, |mig| &mig.uuid)
    }

    /// The GPU, unless this is a part of it.
    pub(super) fn whole(&self) -> Result<&Gpu, Status> {
        if self.instance.is_some() { Err(Status::NotSupported) } else { Ok(self.gpu) }
    }

    /// The GPU, unless this is a part of it or it has parts.
    pub(super) fn unsplit(&self) -> Result<&Gpu, Status> {
        let gpu = self.whole()?;
        if gpu.mig.is_some() { Err(Status::NotSupported) } else { Ok(gpu) }
    }

    pub(super) fn held(&self) -> Result<Vec<Held>, Status> {
        claims::held(self.state_path, Release::of(self.state)).map_err(|_| Status::Unknown)
    }

    pub(super) fn memory(&self) -> Result<Memory, Status> {
        Memory::of(self.state, self.uuid(), &self.held()?).ok_or(Status::GpuIsLost)
    }
}

/// Answers about a device that works.
pub(super) fn with_device<T>(
    handle: Handle,
    answer: impl FnOnce(&Device<'_>) -> Result<T, Status>,
) -> Result<T, Status> {
    with_any_device(handle, |device| if device.gpu.failed { Err(Status::GpuIsLost) } else { answer(device) })
}

/// Answers about a device, also about one that has failed.
pub(super) fn with_any_device<T>(
    handle: Handle,
    answer: impl FnOnce(&Device<'_>) -> Result<T, Status>,
) -> Result<T, Status> {
    with_state(|state, state_path| {
        let (place, instance) = place(handle).ok_or(Status::InvalidArgument)?;
        let gpu = state.devices.get(place).ok_or(Status::InvalidArgument)?;
        if instance.is_some_and(|instance| gpu.mig.as_ref().is_none_or(|mig| mig.len() <= instance)) {
            return Err(Status::NotFound);
        }
        answer(&Device { place, gpu, state, state_path, instance })
    })
}

/// So many handles belong to a GPU: its own, and one for each of its instances. None is zero, since null is no handle.
const PLACES: usize = 64;

pub(super) const fn handle(gpu: usize, instance: Option<usize>) -> Handle {
    let instance = match instance {
        Some(place) => place + 1,
        None => 0,
    };
    (gpu + 1) * PLACES + instance
}

fn place(handle: Handle) -> Option<(usize, Option<usize>)> {
    Some(((handle / PLACES).checked_sub(1)?, (handle % PLACES).checked_sub(1)))
}

/// The handle of the device with this id.
pub(super) fn find(state: &State, uuid: &str) -> Option<Handle> {
    state.devices.iter().enumerate().find_map(|(index, gpu)| {
        if gpu.uuid == uuid {
            return Some(handle(index, None));
        }
        let instance = gpu.mig.iter().flatten().position(|mig| mig.uuid == uuid)?;
        Some(handle(index, Some(instance)))
    })
}

/// The file that the environment names, or the one beside this library.
fn state_path() -> PathBuf {
    match std::env::var_os(STATE_VAR) {
        Some(path) => path.into(),
        None => own_folder().unwrap_or_default().join(STATE_FILE),
    }
}

fn own_folder() -> Option<PathBuf> {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let inside: fn() -> Option<PathBuf> = own_folder;
    // SAFETY: the address is that of a function in this library, and `info` may be written.
    let found = unsafe { libc::dladdr(inside as *const libc::c_void, info.as_mut_ptr()) };
    // SAFETY: zeroes are a valid value.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a text with its end, which stays as long as this library is loaded.
    let file = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(Path::new(OsStr::from_bytes(file.to_bytes())).parent()?.to_owned())
}
