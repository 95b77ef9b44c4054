//! What engines print when something is wrong.
//!
//! The first pattern of the table that fits a line is its meaning, so the particular stands before the general. Sources are
//! named by repository and file; those of CUDA's texts are `cudaGetErrorString`'s.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::cause::Cause;

/// What a line is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// It says what went wrong.
    Cause,
    /// It says that something did.
    Symptom,
}

/// Words that all stand in a line, and words of which none does.
pub(super) struct Pattern {
    pub(super) weight: Weight,
    pub(super) cause: Cause,
    first: Finder<'static>,
    others: &'static [&'static str],
    none: &'static [&'static str],
}

/// What the line means, if anything.
pub(super) fn find(line: &str) -> Option<&'static Pattern> {
    static TABLE: LazyLock<Vec<Pattern>> = LazyLock::new(table);
    if QUOTES.iter().any(|quote| line.contains(quote)) {
        return None;
    }
    TABLE.iter().find(|pattern| {
        pattern.first.find(line.as_bytes()).is_some()
            && pattern.others.iter().all(|word| line.contains(word))
            && !pattern.none.iter().any(|word| line.contains(word))
    })
}

/// Whether a parent reports that a process of its own was killed. Sources: Python `multiprocessing` and `torch.distributed`
/// (negative exit codes, `Signal 9 (SIGKILL)`), vLLM `vllm/v1/executor/multiproc_executor.py`, TGI `launcher/src/main.rs`.
pub(super) fn tells_of_a_killed_child(line: &str) -> bool {
    const WORDS: &[&str] = &[
        "SIGKILL",
        "exitcode: -9",
        "exitcode -9",
        "exit code: -9",
        "died unexpectedly",
        "signaled to terminate",
        "signal 9",
    ];
    WORDS.iter().any(|word| line.contains(word))
}

/// Lines that repeat what a client has sent. Source: vLLM `vllm/entrypoints/logger.py`.
const QUOTES: &[&str] = &["Received request", "prompt:"];

fn table() -> Vec<Pattern> {
    let rows = [VRAM, HOST_MEMORY, NO_GPU, CUDA, PORT, DISK, LIBRARIES, MODEL, ARGUMENTS, SYMPTOMS];
    rows.into_iter().flatten().map(Pattern::new).collect()
}

/// All of the first words, none of the second, what it means.
type Row = (&'static [&'static str], &'static [&'static str], Cause);

impl Pattern {
    fn new(&(all, none, cause): &Row) -> Self {
        let (first, others) = all.split_first().expect("a pattern has a word");
        Self { weight: cause.weight(), cause, first: Finder::new(first), others, none }
    }
}

const VRAM: &[Row] = &[
    // llama.cpp ggml/src/ggml-cuda/ggml-cuda.cu: `allocating %.2f MiB on device %d: cudaMalloc failed: %s`.
    (&["cudaMalloc failed: out of memory"], &[], Cause::VramAllocation),
    // PyTorch c10/cuda/CUDACachingAllocator.cpp, under whatever class of error.
    (&["CUDA out of memory"], &[], Cause::VramTorch),
    // llama.cpp ggml/src/ggml-backend.cpp, ggml-alloc.c: `failed to allocate %s buffer of size %zu`; `CUDA_Host` is the host's.
    (&["failed to allocate CUDA", "buffer"], &["CUDA_Host"], Cause::VramBuffer),
    // llama.cpp src/llama-model.cpp: `unable to allocate %s buffer`.
    (&["unable to allocate CUDA", "buffer"], &["CUDA_Host"], Cause::VramBuffer),
    // llama.cpp `ggml_cuda_error`, PyTorch c10/cuda/CUDAException.h.
    (&["CUDA error: out of memory"], &[], Cause::Vram),
    (&["CUDA_ERROR_OUT_OF_MEMORY"], &[], Cause::Vram),
    (&["cudaErrorMemoryAllocation"], &[], Cause::Vram),
    (&["CUBLAS_STATUS_ALLOC_FAILED"], &[], Cause::Vram),
    // TensorRT's defaultAllocator, under Triton.
    (&["Cuda Runtime (out of memory)"], &[], Cause::Vram),
    // vLLM vllm/v1/core/kv_cache_utils.py, vllm/v1/worker/gpu_worker.py, vllm/worker/worker.py.
    (&["No available memory for the cache blocks"], &[], Cause::VramNoCache),
    (&["larger than the available KV cache memory"], &[], Cause::VramContext),
    (&["is larger than the maximum number of tokens that can be stored in KV cache"], &[], Cause::VramContext),
    (&["Free memory on device", "is less than desired GPU memory utilization"], &[], Cause::VramInUse),
    // TGI server/text_generation_server/models/flash_causal_lm.py.
    (&["Not enough memory to handle", "prefill tokens"], &[], Cause::VramPrefill),
];

const HOST_MEMORY: &[Row] = &[
    (&["failed to allocate CUDA_Host", "buffer"], &[], Cause::HostMemory),
    (&["unable to allocate CUDA_Host", "buffer"], &[], Cause::HostMemory),
    (&["failed to allocate CPU", "buffer"], &[], Cause::HostMemory),
    (&["unable to allocate CPU", "buffer"], &[], Cause::HostMemory),
    // libstdc++ `operator new`.
    (&["std::bad_alloc"], &[], Cause::HostMemory),
    // PyTorch c10/core/impl/alloc_cpu.cpp.
    (&["DefaultCPUAllocator"], &[], Cause::HostMemory),
    // PyTorch torch/utils/data/_utils/worker.py; also what NCCL and Triton run into in containers.
    (&["insufficient shared memory"], &[], Cause::SharedMemory),
    (&["/dev/shm", "No space left on device"], &[], Cause::SharedMemory),
    // `strerror(ENOMEM)`. llama.cpp does without locked and without pinned memory: src/llama-mmap.cpp, ggml-cuda.cu.
    (&["Cannot allocate memory"], &["mlock", "pinned"], Cause::HostMemory),
    // Rust's and Python's own.
    (&["memory allocation of", "bytes failed"], &[], Cause::HostMemory),
    (&["MemoryError"], &["OutOfMemoryError"], Cause::HostMemory),
];

const NO_GPU: &[Row] = &[
    (&["no CUDA-capable device is detected"], &[], Cause::NoDevice),
    // PyTorch c10/cuda/CUDAFunctions.cpp, torch/csrc/cuda/Module.cpp.
    (&["No CUDA GPUs are available"], &[], Cause::NoDevice),
    (&["invalid device ordinal"], &[], Cause::NoDevice),
    (&["Found no NVIDIA driver on your system"], &[], Cause::NoDriver),
    (&["CUDA driver version is insufficient"], &[], Cause::OldDriver),
    (&["NVIDIA driver on your system is too old"], &[], Cause::OldDriver),
    // vLLM vllm/config/device.py.
    (&["Failed to infer device type"], &[], Cause::NoDevice),
    // llama.cpp common/arg.cpp; it would go on without a GPU.
    (&["no usable GPU found"], &[], Cause::BuiltWithoutCuda),
    (&["compiled without support for GPU offload"], &[], Cause::BuiltWithoutCuda),
    (&["Torch not compiled with CUDA enabled"], &[], Cause::BuiltWithoutCuda),
    // llama.cpp ggml/src/ggml-cuda/ggml-cuda.cu; it would go on without a GPU.
    (&["failed to initialize CUDA"], &[], Cause::CudaUnusable),
    (&["no kernel image is available"], &[], Cause::WrongArchitecture),
    (&["the provided PTX was compiled with an unsupported toolchain"], &[], Cause::OldDriver),
];

const CUDA: &[Row] = &[
    (&["uncorrectable ECC error"], &[], Cause::DeviceError),
    (&["GPU has fallen off the bus"], &[], Cause::DeviceError),
    (&["GPU is lost"], &[], Cause::DeviceError),
    (&["uncorrectable NVLink error"], &[], Cause::DeviceError),
    (&["hardware stack error"], &[], Cause::DeviceError),
    // llama.cpp `ggml_cuda_error`; PyTorch `RuntimeError` and `AcceleratorError`; vLLM and TGI pass PyTorch's on.
    (&["CUDA error: "], &[], Cause::Cuda),
    (&["CUBLAS_STATUS_"], &[], Cause::Cuda),
    (&["CUDNN_STATUS_"], &["SUCCESS"], Cause::Cuda),
    (&["NCCL error"], &[], Cause::Cuda),
    (&["ncclUnhandledCudaError"], &[], Cause::Cuda),
    (&["Cuda failure"], &[], Cause::Cuda),
    // llama.cpp `GGML_ABORT`, which names no reason.
    (&[": CUDA error"], &[], Cause::CudaAbort),
];

const PORT: &[Row] = &[
    // llama.cpp tools/server/server-http.cpp.
    (&["couldn't bind HTTP server socket"], &[], Cause::PortTaken),
    // `strerror(EADDRINUSE)`, as Python, Rust (TGI) and C++ (Triton) print it.
    (&["ddress already in use"], &[], Cause::PortTaken),
    (&["EADDRINUSE"], &[], Cause::PortTaken),
];

const DISK: &[Row] =
    &[(&["No space left on device"], &[], Cause::DiskFull), (&["Disk quota exceeded"], &[], Cause::DiskFull)];

const LIBRARIES: &[Row] = &[
    // glibc elf/rtld.c.
    (&["error while loading shared libraries: libcuda.so"], &[], Cause::NoDriver),
    (&["error while loading shared libraries: libnvidia"], &[], Cause::NoDriver),
    (&["error while loading shared libraries: libcud"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libcub"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libcuf"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libcus"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libcupti"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libcurand"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libnccl"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries: libnv"], &[], Cause::NoCudaLibrary),
    (&["error while loading shared libraries"], &[], Cause::NoLibrary),
    (&["version `GLIBC", "not found"], &[], Cause::OldLibc),
    (&["version `CXXABI", "not found"], &[], Cause::OldLibc),
    // Python.
    (&["No module named"], &[], Cause::NoModule),
    (&["ImportError: libcud"], &[], Cause::NoCudaLibrary),
    (&["ImportError: libcub"], &[], Cause::NoCudaLibrary),
];

const MODEL: &[Row] = &[
    // llama.cpp ggml/src/gguf.cpp.
    (&["invalid magic"], &[], Cause::ModelDamaged),
    (&["failed to read magic"], &[], Cause::ModelDamaged),
    (&["GGUFv1 is no longer supported"], &[], Cause::ModelOld),
    (&["this GGUF file version"], &[], Cause::ModelTooNew),
    (&["failed to open GGUF file"], &[], Cause::ModelMissing),
    // llama.cpp src/llama-model-loader.cpp, src/llama-model.cpp.
    (&["data is not within the file bounds"], &[], Cause::ModelDamaged),
    (&["wrong number of tensors"], &[], Cause::ModelTooNew),
    (&["missing tensor"], &[], Cause::ModelTooNew),
    (&["unknown model architecture"], &[], Cause::ModelTooNew),
    (&["unknown pre-tokenizer type"], &[], Cause::ModelTooNew),
    // transformers src/transformers/models/auto/configuration_auto.py; vLLM vllm/model_executor/models/registry.py.
    (&["does not recognize this architecture"], &[], Cause::ModelTooNew),
    (&["Model architectures", "are not supported"], &[], Cause::ModelTooNew),
    // safetensors safetensors/src/tensor.rs.
    (&["SafetensorError"], &[], Cause::ModelDamaged),
    (&["Error while deserializing header"], &[], Cause::ModelDamaged),
    // transformers src/transformers/utils/hub.py.
    (&["does not appear to have a file named"], &[], Cause::ModelMissing),
    (&["You are trying to access a gated repo"], &[], Cause::ModelGated),
    // vLLM vllm/config/model.py.
    (&["max_model_len", "is greater than the derived max_model_len"], &[], Cause::ContextBeyondModel),
    // Triton src/model_repository_manager/model_lifecycle.cc.
    (&["failed to load '", "version"], &[], Cause::ModelRefused),
];

const ARGUMENTS: &[Row] = &[
    // llama.cpp common/arg.cpp.
    (&["error: invalid argument:"], &[], Cause::Argument),
    (&["error while handling argument"], &[], Cause::Argument),
    (&["error: unknown value for"], &[], Cause::Argument),
    // Python's argparse (vLLM), clap (TGI), getopt (Triton).
    (&["error: unrecognized arguments"], &[], Cause::Argument),
    (&["error: the following arguments are required"], &[], Cause::Argument),
    (&["error: argument "], &[], Cause::Argument),
    (&["error: unexpected argument"], &[], Cause::Argument),
    (&["error: invalid value"], &[], Cause::Argument),
    (&["unrecognized option"], &[], Cause::Argument),
];

const SYMPTOMS: &[Row] = &[
    // llama.cpp src/llama.cpp, common/common.cpp, tools/server/server-context.cpp.
    (&["error loading model"], &[], Cause::ModelRefused),
    (&["failed to load model"], &[], Cause::ModelRefused),
    (&["GGML_ASSERT("], &[], Cause::Assertion),
    (&["terminate called after throwing"], &[], Cause::Uncaught),
    (&["what():  "], &[], Cause::Uncaught),
    // vLLM vllm/v1/engine/core.py: the cause stands above it.
    (&["Engine core initialization failed"], &[], Cause::Uncaught),
];
