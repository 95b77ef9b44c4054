use std::sync::Arc;

use api_types::PoolFault;
use proptest::prelude::*;

use super::{Facts, Failure, Phase, diagnose, diagnose_line};
use crate::logs::{LogLine, Source};
use crate::process::{Ended, Exit};

const ABORTED: Exit = Exit::Signal(6);
const KILLED: Exit = Exit::Signal(9);

fn tail(lines: &[&str]) -> Vec<Arc<LogLine>> {
    lines.iter().map(|text| Arc::new(LogLine::new(Source::Stderr, text))).collect()
}

fn facts() -> Facts {
    Facts { engine: "llama-server".to_owned(), port: Some(18080) }
}

fn ended(exit: Exit) -> Ended {
    Ended { exit, oom_killed: false, complete: true }
}

fn loading(exit: Exit, lines: &[&str]) -> Failure {
    diagnose(Phase::Loading, &ended(exit), &tail(lines), &facts())
}

fn serving(exit: Exit, lines: &[&str]) -> Failure {
    diagnose(Phase::Serving, &ended(exit), &tail(lines), &facts())
}

/// The fault, with all of these words in message or fix.
#[track_caller]
fn check(diagnosis: &Failure, fault: PoolFault, words: &[&str]) {
    assert_eq!(diagnosis.fault, fault, "{diagnosis:?}");
    let said = format!("{} | {}", diagnosis.message, diagnosis.fix.as_deref().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}

/// As llama-server prints it when the weights do not fit.
const LLAMACPP_VRAM: &[&str] = &[
    "ggml_cuda_init: found 1 CUDA devices:",
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 20480.00 MiB on device 1: cudaMalloc failed: out of memory",
    "alloc_tensor_range: failed to allocate CUDA1 buffer of size 21474836480",
    "llama_model_load: error loading model: unable to allocate CUDA1 buffer",
    "llama_model_load_from_file_impl: failed to load model",
    "srv    load_model: failed to load model, '/models/a.gguf'",
    "main: exiting due to model loading error",
];

/// ORCH-3039: exhausted memory of a GPU, as each engine tells it, with how much was missing where it says so.
#[test]
fn vram_is_exhausted() {
    check(&loading(Exit::Code(1), LLAMACPP_VRAM), PoolFault::VramExhausted, &["GPU 1", "20480.00 MiB", "smaller ctx"]);
    check(&loading(Exit::Code(1), &LLAMACPP_VRAM[2..]), PoolFault::VramExhausted, &["20480 MiB"]);
    let torch = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.43 GiB \
                 of which 1.10 GiB is free. Including non-PyTorch memory, this process has 22.32 GiB memory in use.";
    let lines = [torch, "RuntimeError: Engine core initialization failed. See root cause above."];
    check(&loading(Exit::Code(1), &lines), PoolFault::VramExhausted, &["GPU 0", "2.00 GiB", "1.10 GiB are free"]);
    let vllm = [
        "ValueError: To serve at least one request with the models's max seq len (32768), (4.00 GiB KV cache is needed, which is \
         larger than the available KV cache memory (1.00 GiB). Based on the available memory, the estimated maximum model length \
         is 8192. Try increasing `gpu_memory_utilization`",
    ];
    check(&loading(Exit::Code(1), &vllm), PoolFault::VramExhausted, &["set ctx to 8192 or less"]);
    for line in [
        "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when initializing the engine.",
        "ValueError: Free memory on device (3.27/15.98 GiB) on startup is less than desired GPU memory utilization (0.9, 14.39 GiB).",
        "RuntimeError: Not enough memory to handle 4096 prefill tokens. You need to decrease `--max-batch-prefill-tokens`",
        "CUDA error: out of memory",
        "E1122 [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)",
    ] {
        check(&loading(Exit::Code(1), &[line]), PoolFault::VramExhausted, &[]);
        check(&serving(ABORTED, &[line]), PoolFault::VramExhausted, &[]);
    }
}

/// ORCH-3039: exhausted memory of the host is another fault, whatever words it shares.
#[test]
fn host_memory_is_exhausted() {
    for line in [
        "terminate called after throwing an instance of 'std::bad_alloc'",
        "alloc_tensor_range: failed to allocate CUDA_Host buffer of size 21474836480",
        "llama_model_load: error loading model: unable to allocate CUDA_Host buffer",
        "ggml_gallocr_reserve_n: failed to allocate CPU buffer of size 123",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
         allocate 8589934592 bytes.",
        "mmap failed: Cannot allocate memory",
        "memory allocation of 8589934592 bytes failed",
        "MemoryError",
    ] {
        check(&loading(ABORTED, &[line, "failed to load model"]), PoolFault::HostMemoryExhausted, &["free -h"]);
    }
    let line = "RuntimeError: DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are \
                out of shared memory; insufficient shared memory (shm)";
    check(&loading(Exit::Code(1), &[line]), PoolFault::HostMemoryExhausted, &["--shm-size"]);
    // What engines do without.
    for line in [
        "warning: failed to mlock 123-byte buffer (after previously locking 0 bytes): Cannot allocate memory",
        "ggml_cuda_host_malloc: failed to allocate 512.00 MiB of pinned memory: out of memory",
    ] {
        check(&loading(Exit::Code(1), &[line]), PoolFault::ExitedDuringLoad, &[]);
    }
}

/// ORCH-3039: a kill is the kernel's for want of memory only where its counters say so; nothing that was said before matters.
#[test]
fn kills_are_told_apart() {
    let killed = |exit, oom_killed| {
        diagnose(Phase::Serving, &Ended { exit, oom_killed, complete: true }, &tail(LLAMACPP_VRAM), &facts())
    };
    for exit in [KILLED, Exit::Code(137)] {
        check(&killed(exit, true), PoolFault::HostMemoryExhausted, &["kernel killed llama-server"]);
        check(&killed(exit, false), PoolFault::Killed, &["SIGKILL", "journalctl -k"]);
    }
    // The kernel's victim may be one of the engine's processes.
    let lines = ["Worker proc VllmWorker-0 died unexpectedly, shutting down executor."];
    let end = |oom_killed| {
        let ended = Ended { exit: Exit::Code(1), oom_killed, complete: true };
        diagnose(Phase::Serving, &ended, &tail(&lines), &facts())
    };
    check(&end(true), PoolFault::HostMemoryExhausted, &["a process of llama-server"]);
    check(&end(false), PoolFault::Crashed, &["exit code 1"]);
    check(&serving(Exit::Signal(15), &[]), PoolFault::Killed, &["asked"]);
    check(&serving(Exit::Lost, &[]), PoolFault::Crashed, &["watches over"]);
}

/// ORCH-3038.2: a CUDA error is one whether the engine ends by it or not; one that is for want of memory is not.
#[test]
fn cuda_errors() {
    let lines = [
        "/src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error",
        "CUDA error: an illegal memory access was encountered",
        "  current device: 0, in function ggml_backend_cuda_synchronize at ggml-cuda.cu:2780",
    ];
    check(&serving(ABORTED, &lines), PoolFault::CudaError, &["illegal memory access"]);
    check(&serving(ABORTED, &lines[..1]), PoolFault::CudaError, &[]);
    check(&serving(ABORTED, &[lines[0], "CUDA error: out of memory"]), PoolFault::VramExhausted, &[]);
    check(
        &serving(ABORTED, &["torch.AcceleratorError: CUDA error: unspecified launch failure"]),
        PoolFault::CudaError,
        &[],
    );
    check(
        &serving(ABORTED, &["RuntimeError: CUDA error: uncorrectable ECC error encountered"]),
        PoolFault::DeviceError,
        &["dmesg"],
    );
    check(&loading(ABORTED, &["CUDA error: no CUDA-capable device is detected"]), PoolFault::NoDevice, &["nvidia-smi"]);
    let line = "CUDA error: CUDA driver version is insufficient for CUDA runtime version";
    check(&loading(ABORTED, &[line]), PoolFault::NoDriver, &["update"]);
    let line = "CUDA error: no kernel image is available for execution on the device";
    check(&loading(ABORTED, &[line]), PoolFault::NoCuda, &["CMAKE_CUDA_ARCHITECTURES"]);
}

/// ORCH-3038.2, ORCH-1102: lines that tell of a lost engine while it lives: CUDA errors, and no GPU, without which it would go on
/// with the processor.
#[test]
fn alarms() {
    let lost = |line| diagnose_line(line).map(|alarm| (alarm.diagnosis.fault, alarm.lost));
    assert_eq!(lost("CUDA error: unspecified launch failure"), Some((PoolFault::CudaError, true)));
    assert_eq!(
        lost("warning: no usable GPU found, --gpu-layers option will be ignored"),
        Some((PoolFault::NoCuda, true))
    );
    assert_eq!(lost("ggml_cuda_init: failed to initialize CUDA: unknown error"), Some((PoolFault::NoCuda, true)));
    assert_eq!(lost(LLAMACPP_VRAM[1]), Some((PoolFault::VramExhausted, false)));
    assert_eq!(lost("error: invalid argument: --x"), None);
    assert_eq!(lost("ggml_cuda_init: found 1 CUDA devices:"), None);
    assert_eq!(lost("INFO Received request cmpl-1: prompt: 'what is CUDA error: out of memory?'"), None);
}

/// ORCH-3039: memory that was refused and then not needed is not why an engine ended.
#[test]
fn recovered_allocations_do_not_count() {
    let lines = [
        LLAMACPP_VRAM[1],
        "sched_reserve: compute buffer allocation failed, retrying without pipeline parallelism",
        "srv    load_model: failed to load model, '/models/a.gguf'",
    ];
    check(&loading(Exit::Code(1), &lines), PoolFault::ModelUnusable, &[]);
    let again = [lines[0], lines[1], LLAMACPP_VRAM[2], lines[2]];
    check(&loading(Exit::Code(1), &again), PoolFault::VramExhausted, &[]);
    // Nor is what it survived long before it died in service.
    let mut lines = vec![LLAMACPP_VRAM[1]];
    lines.resize(200, "slot released");
    check(&serving(Exit::Signal(11), &lines), PoolFault::Crashed, &["SIGSEGV", "slot released"]);
}

/// LO-POOL-05: what else stops an engine from starting, each with what to do.
#[test]
fn other_reasons() {
    let cases: &[(&str, PoolFault, &[&str])] = &[
        (
            "main: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080",
            PoolFault::PortTaken,
            &["port 8080 is in use", "lsof -i :8080"],
        ),
        ("OSError: [Errno 98] Address already in use", PoolFault::PortTaken, &["lsof -i :18080"]),
        ("OSError: [Errno 28] No space left on device: '/root/.cache'", PoolFault::DiskFull, &["df -h"]),
        (
            "llama-server: error while loading shared libraries: libcudart.so.12: cannot open shared object file",
            PoolFault::NoCuda,
            &["libcudart.so.12", "LD_LIBRARY_PATH"],
        ),
        ("x: error while loading shared libraries: libcuda.so.1: cannot open", PoolFault::NoDriver, &["driver"]),
        (
            "x: error while loading shared libraries: libcurl.so.4: cannot open",
            PoolFault::SpawnFailed,
            &["libcurl.so.4"],
        ),
        ("x: /lib/libc.so.6: version `GLIBC_2.38' not found (required by x)", PoolFault::SpawnFailed, &["GLIBC_2.38"]),
        ("ModuleNotFoundError: No module named 'vllm'", PoolFault::SpawnFailed, &["'vllm'"]),
        (
            "gguf_init_from_file_impl: invalid magic characters: '<htm', expected 'GGUF'",
            PoolFault::ModelUnusable,
            &["fetch"],
        ),
        (
            "error loading model architecture: unknown model architecture: 'gemma9'",
            PoolFault::ModelUnusable,
            &["newer", "gemma9"],
        ),
        (
            "tensor 'blk.3.w' data is not within the file bounds, model is corrupted",
            PoolFault::ModelUnusable,
            &["fetch"],
        ),
        (
            "failed to open GGUF file '/m/a.gguf' (No such file or directory)",
            PoolFault::ModelUnavailable,
            &["/m/a.gguf"],
        ),
        ("error: invalid argument: --no-such-flag", PoolFault::ExitedDuringLoad, &["--no-such-flag", "flags"]),
        ("vllm: error: unrecognized arguments: --nope", PoolFault::ExitedDuringLoad, &["--nope"]),
        ("srv    load_model: failed to load model, '/models/a.gguf'", PoolFault::ModelUnusable, &["/models/a.gguf"]),
    ];
    for (line, fault, words) in cases {
        check(&loading(Exit::Code(1), &["starting", line, "main: exiting"]), *fault, words);
    }
}

/// LO-POOL-05: where nothing was said, the way it ended says it.
#[test]
fn endings_without_words() {
    for exit in [Exit::Signal(4), Exit::Code(132)] {
        check(&loading(exit, &[]), PoolFault::IllegalInstruction, &["CPU instructions", "-DGGML_NATIVE=OFF"]);
    }
    check(&loading(Exit::Signal(11), &[]), PoolFault::Crashed, &["SIGSEGV"]);
    check(&loading(Exit::Code(134), &["GGML_ASSERT(n > 0) failed"]), PoolFault::Crashed, &["n > 0"]);
    check(&loading(Exit::Code(7), &["bye", " "]), PoolFault::ExitedDuringLoad, &["exit code 7", "last words: bye"]);
    check(&serving(Exit::Code(0), &[]), PoolFault::Crashed, &["exit code 0"]);
}

/// Our own lines are not the engine's words.
#[test]
fn notes_say_nothing() {
    let note = vec![Arc::new(LogLine::new(Source::Note, "started CUDA error: x"))];
    check(&diagnose(Phase::Loading, &ended(Exit::Code(1)), &note, &facts()), PoolFault::ExitedDuringLoad, &[]);
}

proptest! {
    /// No output breaks it, and what it quotes stays short.
    #[test]
    fn any_output_is_taken(lines in prop::collection::vec("\\PC{0,40}(allocating |of size |on device |port: |cudaMalloc failed: out of memory|Tried to allocate |GPU |CUDA out of memory)?\\PC{0,600}", 0..4), code in 0..256) {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let diagnosis = loading(Exit::Code(code), &lines);
        prop_assert!(diagnosis.message.chars().count() < 1000);
    }
}
