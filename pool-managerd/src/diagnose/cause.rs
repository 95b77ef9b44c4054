//! What the patterns and endings mean: the kind, what happened, and what to do.

use api_types::PoolFault;

use super::Facts;
use super::patterns::Weight;
use crate::failure::Failure;

/// Longest part of a line that is quoted, in characters.
const QUOTE: usize = 300;

/// Why an engine failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    VramAllocation,
    VramTorch,
    VramBuffer,
    Vram,
    VramNoCache,
    VramContext,
    VramInUse,
    VramPrefill,
    HostMemory,
    SharedMemory,
    HostOomKilled,
    HostOomKilledChild,
    NoDevice,
    NoDriver,
    OldDriver,
    BuiltWithoutCuda,
    CudaUnusable,
    WrongArchitecture,
    NoCudaLibrary,
    DeviceError,
    Cuda,
    CudaAbort,
    PortTaken,
    DiskFull,
    NoLibrary,
    OldLibc,
    NoModule,
    ModelDamaged,
    ModelOld,
    ModelTooNew,
    ModelMissing,
    ModelGated,
    ModelRefused,
    ContextBeyondModel,
    Argument,
    Assertion,
    Uncaught,
    IllegalInstruction,
    Killed,
    AskedToEnd,
    GuardLost,
    Crashed(i32),
    ExitedDuringLoad(i32),
    Exited(i32),
}

const LESS_MEMORY: &str =
    "use a smaller ctx, fewer slots or a smaller quantisation; `nvidia-smi` shows who else uses the GPU";

impl Cause {
    pub(super) fn weight(self) -> Weight {
        match self {
            Self::CudaAbort | Self::ModelRefused | Self::Assertion | Self::Uncaught => Weight::Symptom,
            _ => Weight::Cause,
        }
    }

    /// It is the GPU's memory that does not suffice.
    pub(super) fn is_vram(self) -> bool {
        self.fault() == PoolFault::VramExhausted
    }

    /// Whether an engine that says so will never serve again although it lives; `None` where that means nothing until it ends.
    pub(super) fn is_lost(self) -> Option<bool> {
        match self {
            // A context of CUDA is unusable after an error (CUDA C++ Programming Guide, "Error Checking"). An engine that found
            // no GPU would go on with the processor.
            Self::Cuda
            | Self::CudaAbort
            | Self::DeviceError
            | Self::NoDevice
            | Self::BuiltWithoutCuda
            | Self::CudaUnusable
            | Self::WrongArchitecture => Some(true),
            Self::HostMemory | Self::SharedMemory | Self::DiskFull => Some(false),
            cause if cause.is_vram() => Some(false),
            _ => None,
        }
    }

    pub(super) fn fault(self) -> PoolFault {
        match self {
            Self::VramAllocation
            | Self::VramTorch
            | Self::VramBuffer
            | Self::Vram
            | Self::VramNoCache
            | Self::VramContext
            | Self::VramInUse
            | Self::VramPrefill => PoolFault::VramExhausted,
            Self::HostMemory | Self::SharedMemory | Self::HostOomKilled | Self::HostOomKilledChild => {
                PoolFault::HostMemoryExhausted
            }
            Self::NoDevice => PoolFault::NoDevice,
            Self::NoDriver | Self::OldDriver => PoolFault::NoDriver,
            Self::BuiltWithoutCuda | Self::CudaUnusable | Self::WrongArchitecture | Self::NoCudaLibrary => {
                PoolFault::NoCuda
            }
            Self::DeviceError => PoolFault::DeviceError,
            Self::Cuda | Self::CudaAbort => PoolFault::CudaError,
            Self::PortTaken => PoolFault::PortTaken,
            Self::DiskFull => PoolFault::DiskFull,
            Self::NoLibrary | Self::OldLibc | Self::NoModule => PoolFault::SpawnFailed,
            Self::ModelDamaged | Self::ModelOld | Self::ModelTooNew | Self::ModelRefused | Self::ContextBeyondModel => {
                PoolFault::ModelUnusable
            }
            Self::ModelMissing | Self::ModelGated => PoolFault::ModelUnavailable,
            Self::Argument | Self::ExitedDuringLoad(_) => PoolFault::ExitedDuringLoad,
            Self::IllegalInstruction => PoolFault::IllegalInstruction,
            Self::Killed | Self::AskedToEnd => PoolFault::Killed,
            Self::Assertion | Self::Uncaught | Self::GuardLost | Self::Crashed(_) | Self::Exited(_) => {
                PoolFault::Crashed
            }
        }
    }

    /// The whole of it, given the line that said so.
    pub(super) fn diagnosis(self, line: &str, facts: &Facts) -> Failure {
        let message = self.message(line, facts);
        Failure { fault: self.fault(), message, fix: self.fix(line, facts) }
    }

    fn message(self, line: &str, facts: &Facts) -> String {
        let engine = if facts.engine.is_empty() { "the engine" } else { facts.engine.as_str() };
        let said = quote(line);
        match self {
            Self::VramAllocation => {
                match (between(line, "allocating ", " on device"), between(line, "on device ", ":")) {
                    (Some(size), Some(device)) => {
                        format!("GPU {device} has not the {size} of memory that {engine} needs")
                    }
                    _ => format!("the GPU has too little memory: {said}"),
                }
            }
            Self::VramTorch => {
                match (between(line, "Tried to allocate ", ". "), between(line, "of which ", " is free")) {
                    (Some(size), Some(free)) => {
                        let device = between(line, "GPU ", " has")
                            .map_or("the GPU".to_owned(), |device| format!("GPU {device}"));
                        format!("{device} has not the {size} of memory that {engine} needs: {free} are free")
                    }
                    _ => format!("the GPU has too little memory: {said}"),
                }
            }
            Self::VramBuffer => match between(line, "of size ", "").and_then(|bytes| bytes.parse::<u64>().ok()) {
                Some(bytes) => {
                    format!("the GPU has not the {} MiB of memory that {engine} needs", bytes.div_ceil(1 << 20))
                }
                None => format!("the GPU has too little memory: {said}"),
            },
            Self::Vram => format!("the GPU has too little memory: {said}"),
            Self::VramNoCache => "the model leaves no memory of the GPU for its cache".to_owned(),
            Self::VramContext => format!("the GPU has too little memory for a context of this size: {said}"),
            Self::VramInUse => format!("too much of the GPU's memory is in use already: {said}"),
            Self::VramPrefill => format!("the GPU has too little memory for prompts of this size: {said}"),
            Self::HostMemory => format!("the host has too little memory for {engine}: {said}"),
            Self::SharedMemory => format!("{engine} has too little shared memory: {said}"),
            Self::HostOomKilled => format!("the kernel killed {engine} because the host's memory was exhausted"),
            Self::HostOomKilledChild => {
                format!("the kernel killed a process of {engine} because the host's memory was exhausted")
            }
            Self::NoDevice => format!("{engine} finds no GPU: {said}"),
            Self::NoDriver => format!("{engine} finds no NVIDIA driver: {said}"),
            Self::OldDriver => format!("the NVIDIA driver is too old for {engine}: {said}"),
            Self::BuiltWithoutCuda => format!("{engine} was built without CUDA or finds no GPU: {said}"),
            Self::CudaUnusable => format!("{engine} cannot use CUDA: {said}"),
            Self::WrongArchitecture => format!("{engine} was built for other GPUs than this one: {said}"),
            Self::NoCudaLibrary => format!("a library of CUDA is missing: {said}"),
            Self::DeviceError => format!("the GPU is at fault: {said}"),
            Self::Cuda | Self::CudaAbort => format!("{engine} reported a CUDA error: {said}"),
            Self::PortTaken => match port(line, facts) {
                Some(port) => format!("port {port} is in use by another program"),
                None => format!("the port is in use by another program: {said}"),
            },
            Self::DiskFull => format!("a disk is full: {said}"),
            Self::NoLibrary => format!("a library is missing: {said}"),
            Self::OldLibc => format!("{engine} was built for a newer system than this one: {said}"),
            Self::NoModule => format!("a Python package is missing: {said}"),
            Self::ModelDamaged => format!("the model's file is damaged or no model: {said}"),
            Self::ModelOld => format!("the model's file is of a format that {engine} no longer reads: {said}"),
            Self::ModelTooNew => format!("{engine} does not know this kind of model: {said}"),
            Self::ModelMissing => format!("a file of the model is missing: {said}"),
            Self::ModelGated => format!("the model's owner has to grant access first: {said}"),
            Self::ModelRefused => format!("{engine} could not load the model: {said}"),
            Self::ContextBeyondModel => format!("the model does not support a context of this size: {said}"),
            Self::Argument => format!("{engine} refused its arguments: {said}"),
            Self::Assertion => format!("{engine} failed one of its own checks: {said}"),
            Self::Uncaught => format!("{engine} failed: {said}"),
            Self::IllegalInstruction => format!("{engine} uses CPU instructions that this machine refuses"),
            Self::Killed => format!("{engine} was killed (SIGKILL)"),
            Self::AskedToEnd => format!("somebody asked {engine} to end"),
            Self::GuardLost => format!("the process that watches over {engine} was killed, and {engine} with it"),
            Self::Crashed(signal) => with_last_words(format!("{engine} crashed ({})", signal_name(signal)), &said),
            Self::ExitedDuringLoad(code) => {
                with_last_words(format!("{engine} ended while it loaded, with exit code {code}"), &said)
            }
            Self::Exited(code) => with_last_words(format!("{engine} ended by itself, with exit code {code}"), &said),
        }
    }

    fn fix(self, line: &str, facts: &Facts) -> Option<String> {
        let fix = match self {
            Self::VramAllocation | Self::VramTorch | Self::VramBuffer | Self::Vram => LESS_MEMORY.to_owned(),
            Self::VramNoCache => {
                "use a smaller quantisation or more GPUs, or raise `--gpu-memory-utilization` in the pool's flags".to_owned()
            }
            Self::VramContext => match between(line, "estimated maximum model length is ", ".") {
                Some(most) => format!("set ctx to {most} or less"),
                None => "use a smaller ctx, or raise `--gpu-memory-utilization` in the pool's flags".to_owned(),
            },
            Self::VramInUse => "stop what else uses the GPU, which `nvidia-smi` shows, or lower `--gpu-memory-utilization` in \
                                the pool's flags"
                .to_owned(),
            Self::VramPrefill => "lower `--max-batch-prefill-tokens` in the pool's flags, or use a smaller ctx".to_owned(),
            Self::HostMemory | Self::HostOomKilled | Self::HostOomKilledChild => {
                "free memory of the host, use a smaller model, or raise the memory limit of the service; `free -h` shows what is \
                 left"
                    .to_owned()
            }
            Self::SharedMemory => "give the container more of it, as with `--shm-size=8g`, or enlarge /dev/shm".to_owned(),
            Self::NoDevice => "see whether `nvidia-smi` lists the GPU, and whether the pool's devices name one that exists".to_owned(),
            Self::NoDriver => "install the NVIDIA driver, or give it to the container; `nvidia-smi` shows whether it works".to_owned(),
            Self::OldDriver => "update the NVIDIA driver, or use a build for an older CUDA".to_owned(),
            Self::BuiltWithoutCuda => "rebuild it with -DGGML_CUDA=ON, or use a build with CUDA".to_owned(),
            Self::CudaUnusable => "see whether `nvidia-smi` works, and whether /dev/nvidia-uvm exists; restart the host after an \
                                   update of the driver"
                .to_owned(),
            Self::WrongArchitecture => "rebuild it with -DCMAKE_CUDA_ARCHITECTURES=native on this machine".to_owned(),
            Self::NoCudaLibrary => "install the CUDA runtime of the version that the engine was built with, or name its folder in \
                                    LD_LIBRARY_PATH in the pool's env"
                .to_owned(),
            Self::DeviceError => "look for Xid messages in `dmesg` and at `nvidia-smi -q -d ECC,PAGE_RETIREMENT`; reset the GPU or \
                                  restart the host"
                .to_owned(),
            Self::Cuda | Self::CudaAbort => "it is started again; if it stays, look for Xid messages in `dmesg`".to_owned(),
            Self::PortTaken => match port(line, facts) {
                Some(port) => format!("`lsof -i :{port}` shows which; end it, or give the pool another port"),
                None => "`ss -ltnp` shows which; end it, or give the pool another port".to_owned(),
            },
            Self::DiskFull => "free space; `df -h` shows which disk is full".to_owned(),
            Self::NoLibrary => "install the package that has it; `ldd` on the program shows what else is missing".to_owned(),
            Self::OldLibc => "build it on this machine, or use a container".to_owned(),
            Self::NoModule => "install it into the engine's environment, or prepare the engine again".to_owned(),
            Self::ModelDamaged => "fetch the model again".to_owned(),
            Self::ModelOld => "use a newer file of this model".to_owned(),
            Self::ModelTooNew => "use a newer version of the engine, or another model".to_owned(),
            Self::ModelMissing => "fetch the model again, or name another".to_owned(),
            Self::ModelGated => "accept its terms on its page and set HF_TOKEN, or name another model".to_owned(),
            Self::ContextBeyondModel => "use a smaller ctx".to_owned(),
            Self::Argument => "correct the pool's flags, or use another version of the engine".to_owned(),
            Self::IllegalInstruction => "build it on this machine, or with -DGGML_NATIVE=OFF".to_owned(),
            Self::Killed => "find out who did; `journalctl -k` and `journalctl -u systemd-oomd` tell of memory pressure".to_owned(),
            Self::Crashed(_) | Self::Assertion | Self::Uncaught | Self::ModelRefused => {
                "see the engine's log; another version of the engine may not do this".to_owned()
            }
            Self::ExitedDuringLoad(_) | Self::Exited(_) => "see the engine's log".to_owned(),
            Self::AskedToEnd | Self::GuardLost => return None,
        };
        Some(fix)
    }
}

/// What stands between two words; up to the end of the line if the second is empty.
fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = line.split_once(before)?.1;
    let found = if after.is_empty() { rest } else { rest.split_once(after)?.0 };
    Some(found.trim()).filter(|found| !found.is_empty())
}

fn port(line: &str, facts: &Facts) -> Option<u16> {
    let digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
    between(line, "port: ", "").and_then(digits).or(facts.port)
}

fn quote(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(QUOTE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

fn with_last_words(message: String, said: &str) -> String {
    if said.is_empty() { message } else { format!("{message}; its last words: {said}") }
}

/// Source: signal(7).
fn signal_name(signal: i32) -> String {
    let name = match signal {
        3 => "SIGQUIT",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        31 => "SIGSYS",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
