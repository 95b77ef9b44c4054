//! Errors that the driver reports.

use std::ffi::{c_uint, c_ulonglong};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::library::{self, Status, current, with_device, with_state};
use super::{Handle, Return, put, status};
use crate::State;

/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 8;

/// Gap between two looks at the state.
const LOOK_GAP: Duration = Duration::from_millis(5);

/// `nvmlEventData_t`.
#[repr(C)]
struct EventData {
    device: Handle,
    event_type: c_ulonglong,
    event_data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// What `nvmlEventSet_t` points to.
struct EventSet(Mutex<Listening>);

struct Listening {
    /// Ids of the GPUs whose errors are wanted.
    gpus: Vec<String>,
    /// Those up to this one were delivered, or were there before.
    seen: u64,
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetCreate(set: *mut *mut EventSet) -> Return {
    status(with_state(|state, _| {
        let listening = Listening { gpus: Vec::new(), seen: state.last_xid() };
        unsafe { put(set, Box::into_raw(Box::new(EventSet(Mutex::new(listening))))) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetFree(set: *mut EventSet) -> Return {
    if set.is_null() {
        return Status::InvalidArgument as Return;
    }
    // SAFETY: it comes from `nvmlEventSetCreate` and is freed once, says nvml.h.
    drop(unsafe { Box::from_raw(set) });
    Status::Success as Return
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetSupportedEventTypes(handle: Handle, types: *mut c_ulonglong) -> Return {
    status(with_device(handle, |device| {
        device.whole()?;
        unsafe { put(types, XID) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceRegisterEvents(handle: Handle, types: c_ulonglong, set: *mut EventSet) -> Return {
    status(with_device(handle, |device| {
        let gpu = device.whole()?;
        if types & !XID != 0 {
            return Err(Status::NotSupported);
        }
        // SAFETY: a set that was created and not freed, says nvml.h.
        let set = unsafe { set.as_ref() }.ok_or(Status::InvalidArgument)?;
        set.0.lock().map_err(|_| Status::Unknown)?.gpus.push(gpu.uuid.clone());
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlEventSetWait_v2(set: *mut EventSet, data: *mut EventData, timeout_ms: c_uint) -> Return {
    // SAFETY: a set that was created and not freed, says nvml.h.
    let Some(set) = (unsafe { set.as_ref() }) else { return Status::InvalidArgument as Return };
    let until = Instant::now() + Duration::from_millis(timeout_ms.into());
    status(loop {
        let event = match current().and_then(|state| set.next(&state)) {
            Ok(Some(event)) => event,
            Ok(None) if Instant::now() >= until => break Err(Status::Timeout),
            Ok(None) => {
                std::thread::park_timeout(LOOK_GAP.min(until.saturating_duration_since(Instant::now())));
                continue;
            }
            Err(failure) => break Err(failure),
        };
        break unsafe { put(data, event) };
    })
}

impl EventSet {
    /// The oldest error that was not delivered yet.
    fn next(&self, state: &State) -> Result<Option<EventData>, Status> {
        let mut listening = self.0.lock().map_err(|_| Status::Unknown)?;
        let seen = listening.seen;
        let new = state.xids.iter().filter(|xid| xid.sequence > seen && listening.gpus.contains(&xid.uuid));
        let Some(xid) = new.min_by_key(|xid| xid.sequence) else { return Ok(None) };
        listening.seen = xid.sequence;
        let device = library::find(state, &xid.uuid).ok_or(Status::NotFound)?;
        Ok(Some(EventData {
            device,
            event_type: XID,
            event_data: xid.code,
            gpu_instance: c_uint::MAX,
            compute_instance: c_uint::MAX,
        }))
    }
}
