//! Looks at the GPUs again and again, and tells what happens to them.
//!
//! NVML blocks, so it has a thread of its own. A driver that was reset is not found again by a library that was loaded before:
//! after a loss the library is shut down and loaded anew.

mod changes;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{EventSet, Nvml};
use tokio::sync::{broadcast, watch};

use self::changes::Changes;
use super::read::Library;
use super::{Devices, NoDevices};

/// What the last look found.
pub type Reading = Arc<Result<Devices, NoDevices>>;

/// Something happened to the GPUs. What the last look found is published before the event is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceEvent {
    /// No GPU can be used any more.
    Lost {
        /// Why, and what to do.
        reason: String,
    },
    /// GPUs can be used again.
    Back,
    /// The driver reports an error; [`Xid::explain`](super::Xid::explain) says what it means.
    Xid {
        /// The GPU, if it still tells.
        uuid: Option<String>,
        /// The error's number.
        code: u64,
    },
    /// Memory errors were found that could not be corrected.
    EccUncorrected {
        /// The GPU.
        uuid: String,
        /// How many since the last look.
        count: u64,
    },
    /// One GPU does not answer any more, or is gone.
    DeviceFailed {
        /// The GPU.
        uuid: String,
        /// What NVML says.
        reason: String,
    },
    /// One GPU answers again.
    DeviceBack {
        /// The GPU.
        uuid: String,
    },
}

/// Events that a slow receiver may be behind; it is told how many it missed.
const EVENTS: usize = 256;

/// Gap between two looks while somebody waits for memory, and the longest until it is noticed that somebody does.
const HURRIED: Duration = Duration::from_millis(50);

/// Longest wait before the library is loaded again.
const RELOAD_MAX: Duration = Duration::from_secs(5);

/// Watches the GPUs until it is dropped.
#[derive(Debug)]
pub struct Monitor {
    state: watch::Receiver<Reading>,
    events: broadcast::Sender<DeviceEvent>,
    hurries: Arc<AtomicBool>,
    /// Dropping it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Looks at the GPUs for the first time, and from then on each `interval`, by the library at `library`, or the driver's own.
    ///
    /// The first look loads the library, which takes up to a second: call it where blocking is allowed. Without GPUs it goes on
    /// looking for them.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(library: Option<&Path>, interval: Duration) -> io::Result<Self> {
        let library = Library::at(library);
        let (events, _) = broadcast::channel(EVENTS);
        let (stop, stopped) = sync_channel(0);
        let (first, first_look) = sync_channel(1);
        let (out, hurries) = (events.clone(), Arc::<AtomicBool>::default());
        let hurry = Arc::clone(&hurries);
        let run =
            move || Watch { library, interval, hurry, stopped, events: out, first: Some(first), state: None }.run();
        let thread = std::thread::Builder::new().name("gpus".to_owned()).spawn(run)?;
        let state = first_look.recv().map_err(|_| io::Error::other("the thread that watches the GPUs has ended"))?;
        Ok(Self { state, events, hurries, stop: Some(stop), thread: Some(thread) })
    }

    /// What the last look found, now and whenever it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<Reading> {
        self.state.clone()
    }

    /// What the last look found.
    #[must_use]
    pub fn now(&self) -> Reading {
        self.state.borrow().clone()
    }

    /// Whether somebody waits for memory, so that the GPUs are looked at more often.
    pub fn hurry(&self, wanted: bool) {
        self.hurries.store(wanted, Ordering::Relaxed);
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<DeviceEvent> {
        self.events.subscribe()
    }

    /// Ends it and waits until the library is unloaded, which takes up to an interval: call it where blocking is allowed.
    pub fn stop(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has ended as well.
            let _ended = thread.join();
        }
    }
}

/// The thread.
struct Watch {
    library: Library,
    interval: Duration,
    hurry: Arc<AtomicBool>,
    stopped: Receiver<()>,
    events: broadcast::Sender<DeviceEvent>,
    /// Takes the receiver of the state with the first look.
    first: Option<SyncSender<watch::Receiver<Reading>>>,
    state: Option<watch::Sender<Reading>>,
}

/// Why a loaded library is used no longer.
enum Over {
    /// The monitor is dropped.
    Stopped,
    /// To be loaded again; whether it had read anything.
    Reload { read: bool },
}

impl Watch {
    fn run(mut self) {
        let mut changes = Changes::default();
        let mut backoff = Backoff::new(self.interval);
        loop {
            match self.library.load() {
                Ok(nvml) => match self.watch(&nvml, &mut changes, &mut backoff) {
                    Over::Stopped => return,
                    Over::Reload { read: true } => continue,
                    Over::Reload { read: false } => {}
                },
                Err(absent) => self.publish(&mut changes, Err(absent)),
            }
            if self.pause(backoff.next()) {
                return;
            }
        }
    }

    /// Uses a loaded library for as long as it is of use.
    fn watch(&mut self, nvml: &Nvml, changes: &mut Changes, backoff: &mut Backoff) -> Over {
        let mut xids = xids(nvml);
        // While a device is missing, the library is loaded anew now and then, since only that may find it.
        let mut reload_at = None;
        loop {
            let reading = self.library.read(nvml);
            let lost = reading.is_err();
            self.publish(changes, reading);
            if lost {
                return Over::Reload { read: false };
            }
            if changes.all_there() {
                backoff.reset();
                reload_at = None;
            } else {
                let at = *reload_at.get_or_insert_with(|| Instant::now() + backoff.next());
                if Instant::now() >= at {
                    return Over::Reload { read: true };
                }
            }
            if self.wait(&mut xids) {
                return Over::Stopped;
            }
        }
    }

    fn publish(&mut self, changes: &mut Changes, reading: Result<Devices, NoDevices>) {
        let (reading, events) = changes.take(reading);
        let reading = Arc::new(reading);
        match &self.state {
            None => {
                let (state, receiver) = watch::channel(reading);
                self.state = Some(state);
                if let Some(first) = self.first.take() {
                    // Nobody waits if the monitor was given up.
                    let _given_up = first.send(receiver);
                }
            }
            Some(state) => {
                state.send_replace(reading);
            }
        }
        for event in events {
            self.tell(event);
        }
    }

    fn tell(&self, event: DeviceEvent) {
        // Without receivers nobody wants to know.
        let _unheard = self.events.send(event);
    }

    /// Waits for an interval, telling what the driver reports meanwhile; whether it is all over.
    fn wait(&self, xids: &mut Option<EventSet<'_>>) -> bool {
        let begun = Instant::now();
        while let (Some(set), Some(left)) = (&xids, self.left(begun)) {
            if self.is_stopped() {
                return true;
            }
            match set.wait(u32::try_from(left.min(HURRIED).as_millis()).unwrap_or(u32::MAX).max(1)) {
                Ok(event) => {
                    let code = match event.event_data {
                        Some(XidError::Value(code)) => code,
                        // As NVML writes it.
                        Some(XidError::Unknown) => 999,
                        None => continue,
                    };
                    self.tell(DeviceEvent::Xid { uuid: event.device.uuid().ok(), code });
                }
                Err(NvmlError::Timeout) => {}
                // The next look will find out what is the matter.
                Err(_) => *xids = None,
            }
        }
        while let Some(left) = self.left(begun) {
            if self.pause(left.min(HURRIED)) {
                return true;
            }
        }
        self.is_stopped()
    }

    /// Time until the next look, if it is not due.
    fn left(&self, begun: Instant) -> Option<Duration> {
        let gap = if self.hurry.load(Ordering::Relaxed) { HURRIED.min(self.interval) } else { self.interval };
        (begun + gap).checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    }

    /// Whether the monitor was dropped meanwhile.
    fn pause(&self, time: Duration) -> bool {
        !matches!(self.stopped.recv_timeout(time), Err(RecvTimeoutError::Timeout))
    }

    fn is_stopped(&self) -> bool {
        self.pause(Duration::ZERO)
    }
}

/// A set that reports errors of every device that can report them; `None` when there is none.
fn xids(nvml: &Nvml) -> Option<EventSet<'_>> {
    let count = nvml.device_count().unwrap_or(0);
    let reports = |index: &u32| {
        let types = nvml.device_by_index(*index).and_then(|device| device.supported_event_types());
        types.is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR))
    };
    let mut indices: Vec<u32> = (0..count).filter(reports).collect();
    // A device that refuses takes the set with it: once more without it.
    while !indices.is_empty() {
        match register(nvml, &indices) {
            Ok(set) => return Some(set),
            Err(refused) => indices.retain(|index| *index != refused),
        }
    }
    None
}

/// The first device that refuses is the error.
fn register<'a>(nvml: &'a Nvml, indices: &[u32]) -> Result<EventSet<'a>, u32> {
    let first = indices[0];
    let mut set = nvml.create_event_set().map_err(|_| first)?;
    for index in indices {
        let device = nvml.device_by_index(*index).map_err(|_| *index)?;
        set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).map_err(|_| *index)?;
    }
    Ok(set)
}

/// Waits that double from the interval up to a limit.
struct Backoff {
    first: Duration,
    wait: Duration,
}

impl Backoff {
    fn new(interval: Duration) -> Self {
        let first = interval.min(RELOAD_MAX);
        Self { first, wait: first }
    }

    fn next(&mut self) -> Duration {
        let wait = self.wait;
        self.wait = (wait * 2).min(RELOAD_MAX);
        wait
    }

    fn reset(&mut self) {
        self.wait = self.first;
    }
}
