//! NVML's C ABI.
//!
//! Source: `nvml.h`. Of each function there is the version that current drivers' users call, and no other. A device handle is a
//! number in disguise: the place of the GPU, and that of its MIG instance. Pointers that are null are refused; others are
//! trusted, as the real library does.
#![expect(unsafe_code, reason = "the crate exists for it")]

mod events;
mod library;

use std::ffi::{CStr, c_char, c_int, c_uint, c_ulonglong};

use self::library::{Device, Status, Use, with_device, with_state};
use crate::memory;

/// A device as callers hold it.
type Handle = usize;

/// A status as NVML writes it.
type Return = c_uint;

/// `nvmlMemory_v2_t`.
#[repr(C)]
struct MemoryInfo {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

/// `nvmlUtilization_t`.
#[repr(C)]
struct Utilization {
    gpu: c_uint,
    memory: c_uint,
}

/// `nvmlProcessInfo_t`.
#[repr(C)]
struct ProcessInfo {
    pid: c_uint,
    used_memory: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// `NVML_VALUE_NOT_AVAILABLE`.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;
/// An instance's id where there is none.
const NO_INSTANCE: c_uint = c_uint::MAX;
/// Places for MIG instances on a GPU that can be split.
const MIG_PLACES: c_uint = 7;
/// `NVML_TEMPERATURE_GPU`.
const TEMPERATURE_GPU: c_uint = 0;
/// `NVML_MEMORY_ERROR_TYPE_UNCORRECTED`.
const UNCORRECTED: c_uint = 1;
/// `NVML_VOLATILE_ECC`.
const VOLATILE: c_uint = 0;

fn status(result: Result<(), Status>) -> Return {
    result.map_or_else(|status| status as Return, |()| Status::Success as Return)
}

/// Writes through a caller's pointer.
///
/// # Safety
/// A pointer that is not null must be valid for writing.
unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Status> {
    if to.is_null() {
        return Err(Status::InvalidArgument);
    }
    // SAFETY: the caller vouches for it.
    unsafe { to.write(value) };
    Ok(())
}

/// Writes a text with its end.
///
/// # Safety
/// A pointer that is not null must be valid for writing so many bytes.
unsafe fn put_text(to: *mut c_char, length: c_uint, text: &str) -> Result<(), Status> {
    if to.is_null() {
        return Err(Status::InvalidArgument);
    }
    if text.len() >= length as usize {
        return Err(Status::InsufficientSize);
    }
    // SAFETY: the caller vouches for so many bytes, of which the text and its end are fewer.
    unsafe {
        to.cast::<u8>().copy_from_nonoverlapping(text.as_ptr(), text.len());
        to.add(text.len()).write(0);
    }
    Ok(())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlInit_v2() -> Return {
    status(Use::begin())
}

#[unsafe(no_mangle)]
extern "C" fn nvmlShutdown() -> Return {
    status(Use::end())
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) -> Return {
    status(with_state(|state, _| unsafe { put_text(version, length, &format!("{} simulated", state.driver_version)) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) -> Return {
    status(with_state(|state, _| unsafe { put(version, state.cuda_version) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCount_v2(count: *mut c_uint) -> Return {
    status(with_state(|state, _| unsafe { put(count, c_uint::try_from(state.devices.len()).unwrap_or(c_uint::MAX)) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, handle: *mut Handle) -> Return {
    status(with_state(|state, _| {
        if state.devices.len() <= index as usize {
            return Err(Status::InvalidArgument);
        }
        unsafe { put(handle, library::handle(index as usize, None)) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, handle: *mut Handle) -> Return {
    status(with_state(|state, _| {
        if uuid.is_null() {
            return Err(Status::InvalidArgument);
        }
        // SAFETY: a text with its end, says nvml.h.
        let uuid = unsafe { CStr::from_ptr(uuid) }.to_str().map_err(|_| Status::InvalidArgument)?;
        let place = library::find(state, uuid).ok_or(Status::NotFound)?;
        unsafe { put(handle, place) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetName(handle: Handle, name: *mut c_char, length: c_uint) -> Return {
    status(with_device(handle, |device| unsafe { put_text(name, length, &device.gpu.name) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUUID(handle: Handle, uuid: *mut c_char, length: c_uint) -> Return {
    // A card that has fallen off the bus is still known by its id.
    status(library::with_any_device(handle, |device| unsafe { put_text(uuid, length, device.uuid()) }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMemoryInfo_v2(handle: Handle, info: *mut MemoryInfo) -> Return {
    status(with_device(handle, |device| {
        const VERSION: usize = size_of::<MemoryInfo>() | 2 << 24;
        // SAFETY: whoever calls has set the version in a structure that it may write.
        let version = unsafe { info.as_ref() }.ok_or(Status::InvalidArgument)?.version;
        if version as usize != VERSION {
            return Err(Status::VersionMismatch);
        }
        let memory = device.memory()?;
        let used = memory.total - memory.free;
        unsafe { put(info, MemoryInfo { version, total: memory.total, reserved: 0, free: memory.free, used }) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetCudaComputeCapability(
    handle: Handle,
    major: *mut c_int,
    minor: *mut c_int,
) -> Return {
    status(with_device(handle, |device| unsafe {
        put(major, device.gpu.compute_capability.0)?;
        put(minor, device.gpu.compute_capability.1)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetUtilizationRates(handle: Handle, rates: *mut Utilization) -> Return {
    // As on real cards: not while a card is split, and not for its parts.
    status(with_device(handle, |device| {
        let gpu = device.unsplit()?.utilization_percent.ok_or(Status::NotSupported)?;
        unsafe { put(rates, Utilization { gpu, memory: 0 }) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTemperature(handle: Handle, sensor: c_uint, celsius: *mut c_uint) -> Return {
    status(with_device(handle, |device| {
        if sensor != TEMPERATURE_GPU {
            return Err(Status::InvalidArgument);
        }
        unsafe { put(celsius, device.whole()?.temperature_c.ok_or(Status::NotSupported)?) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetPowerUsage(handle: Handle, milliwatts: *mut c_uint) -> Return {
    status(with_device(handle, |device| unsafe {
        put(milliwatts, device.whole()?.power_mw.ok_or(Status::NotSupported)?)
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetTotalEccErrors(
    handle: Handle,
    kind: c_uint,
    counter: c_uint,
    count: *mut c_ulonglong,
) -> Return {
    status(with_device(handle, |device| {
        let uncorrected = device.whole()?.ecc_uncorrected.ok_or(Status::NotSupported)?;
        unsafe { put(count, if (kind, counter) == (UNCORRECTED, VOLATILE) { uncorrected } else { 0 }) }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    handle: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    status(with_device(handle, |device| {
        let processes = memory::processes(device.gpu, device.uuid(), &device.held()?);
        let length = c_uint::try_from(processes.len()).unwrap_or(c_uint::MAX);
        // SAFETY: a count that whoever calls has set.
        let room = *unsafe { count.as_ref() }.ok_or(Status::InvalidArgument)?;
        unsafe { put(count, length)? };
        if room < length {
            return Err(Status::InsufficientSize);
        }
        for (index, process) in processes.iter().enumerate() {
            let info = ProcessInfo {
                pid: process.pid,
                used_memory: process.bytes.unwrap_or(NOT_AVAILABLE),
                gpu_instance: NO_INSTANCE,
                compute_instance: NO_INSTANCE,
            };
            unsafe { put(infos.wrapping_add(index), info)? };
        }
        Ok(())
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigMode(handle: Handle, current: *mut c_uint, pending: *mut c_uint) -> Return {
    status(with_device(handle, |device| {
        // Cards that cannot be split say so; of those that are not split there is none here.
        device.whole()?.mig.as_ref().ok_or(Status::NotSupported)?;
        unsafe {
            put(current, 1)?;
            put(pending, 1)
        }
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMaxMigDeviceCount(handle: Handle, count: *mut c_uint) -> Return {
    status(with_device(handle, |device| unsafe {
        put(count, if device.whole()?.mig.is_some() { MIG_PLACES } else { 0 })
    }))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    handle: Handle,
    index: c_uint,
    instance: *mut Handle,
) -> Return {
    status(with_device(handle, |Device { place, gpu, .. }| {
        let mig = gpu.mig.as_ref().ok_or(Status::NotSupported)?;
        if mig.len() <= index as usize {
            return Err(Status::NotFound);
        }
        unsafe { put(instance, library::handle(*place, Some(index as usize))) }
    }))
}
