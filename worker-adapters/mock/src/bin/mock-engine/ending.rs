//! Ways in which the process ends.

use std::io::Write as _;

use mock::{Death, Ending};
use rustix::process::{Signal, getpid, kill_process};

/// As llama.cpp dies of a CUDA error, or as asked for.
pub(crate) fn die(death: Death) {
    match death {
        Death::Exit(code) => std::process::exit(code.into()),
        Death::CudaError => abort(CUDA_ERROR),
    }
}

/// Fails as a fault says. Returns where that leaves the process alive: at once, or when somebody lets it go on.
pub(crate) fn strike(stderr: Option<&str>, end: Ending) {
    if let Some(line) = stderr {
        report(&format!("{line}\n"));
    }
    match end {
        Ending::Exit(code) => std::process::exit(code.into()),
        Ending::BadAlloc => abort(BAD_ALLOC),
        Ending::CudaError => abort(CUDA_ERROR),
        Ending::CudaOutOfMemory => abort(CUDA_OUT_OF_MEMORY),
        Ending::Killed => signal(Signal::KILL),
        Ending::Freeze => signal(Signal::STOP),
        Ending::Hang | Ending::Nothing => {}
    }
}

fn abort(text: &str) -> ! {
    report(text);
    std::process::abort()
}

fn report(text: &str) {
    // A report that nobody can read changes nothing.
    let _unread = std::io::stderr().write_all(text.as_bytes());
}

fn signal(signal: Signal) {
    kill_process(getpid(), signal).expect("a process may signal itself");
}

/// Source: `ggml_cuda_error` and `ggml_abort` of llama.cpp.
const CUDA_ERROR: &str = "\
/src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error
CUDA error: an illegal memory access was encountered
  current device: 0, in function ggml_backend_cuda_synchronize at /src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:2780
  cudaStreamSynchronize(cuda_ctx->stream())
";

/// The same when the pool of a running engine cannot grow.
const CUDA_OUT_OF_MEMORY: &str = "\
/src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:98: CUDA error
CUDA error: out of memory
  current device: 0, in function alloc at /src/llama.cpp/ggml/src/ggml-cuda/ggml-cuda.cu:476
  cuMemCreate(&handle, reserve_size, &prop, 0)
";

/// Source: `std::terminate` of libstdc++.
const BAD_ALLOC: &str = "\
terminate called after throwing an instance of 'std::bad_alloc'
  what():  std::bad_alloc
";
