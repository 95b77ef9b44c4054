//! The time from the start until a model is loaded, as llama-server shows it.
//!
//! Lines and their order are llama.cpp's. A bare simulation, without a model's file and without GPUs, says nothing.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use mock::{Ending, FaultKind, Simulation};

use crate::args::Args;
use crate::ending::strike;
use crate::gpu::{GpuError, Gpus, Part, mib};

/// Steps in which a model is loaded.
const STEPS: u64 = 8;

/// What a model's file begins with.
const MAGIC: [u8; 4] = *b"GGUF";

/// A model to be loaded.
#[derive(Debug)]
pub(crate) struct Load {
    sim: Simulation,
    file: Option<PathBuf>,
    any_model: bool,
    gpus: Option<Gpus>,
    host_bytes: usize,
}

/// What a loaded engine holds.
#[derive(Debug)]
pub(crate) struct Loaded {
    _gpus: Option<Gpus>,
    _host: Vec<u8>,
}

/// The engine says why, and ends.
fn exit(lines: &[String]) -> ! {
    for line in lines {
        eprintln!("{line}");
    }
    std::process::exit(1)
}

fn with_cause(error: &GpuError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl Load {
    /// Looks for GPUs, before anything else. A build for CUDA without CUDA ends here.
    pub(crate) fn begin(args: &Args, sim: Simulation) -> Self {
        let gpus = match Gpus::find(args) {
            Ok(gpus) => gpus,
            Err(error) => exit(&[with_cause(&error)]),
        };
        let host_bytes = usize::try_from(args.host_mb << 20).unwrap_or(usize::MAX);
        let load = Self { sim, file: args.model_file(), any_model: args.any_model, gpus, host_bytes };
        load.sim.hold_loading();
        if let Some(gpus) = &load.gpus {
            eprintln!("ggml_cuda_init: found {} CUDA devices:", gpus.visible.len());
            for (index, gpu) in gpus.visible.iter().enumerate() {
                let (major, minor) = gpu.compute_capability;
                eprintln!("  Device {index}: {}, compute capability {major}.{minor}, VMM: yes", gpu.name);
            }
        }
        let (number, commit) = args.build().split_once('-').unwrap_or((args.build(), ""));
        load.say(|| format!("build: {number} ({commit}) with cc (mock) for x86_64-linux-gnu"));
        load
    }

    /// Whether it talks as llama-server does.
    pub(crate) const fn talks(&self) -> bool {
        self.file.is_some() || self.gpus.is_some()
    }

    fn say(&self, line: impl FnOnce() -> String) {
        if self.talks() {
            eprintln!("{}", line());
        }
    }

    /// Whether it takes no time and nothing holds it up.
    pub(crate) fn is_instant(&self) -> bool {
        let in_load = |fault: &mock::Fault| matches!(fault.fault, FaultKind::InLoad { .. });
        self.sim.loading_left().is_zero() && !self.sim.faults().faults.iter().any(in_load)
    }

    /// Loads. What keeps it from that ends the process.
    pub(crate) async fn run(mut self, url: &str) -> Loaded {
        let pace = self.sim.loading_left() / u32::try_from(STEPS).expect("a few");
        self.allocate(Part::Overhead);
        self.say(|| "main: loading model".to_owned());
        if let Some(file) = &self.file {
            eprintln!("srv    load_model: loading model '{}'", file.display());
            if let Err(problem) = check(file, self.any_model) {
                self.fail(&[problem, unloaded(file)]);
            }
            eprintln!("load_tensors: loading model tensors, this can take a while... (mmap = true)");
        }
        if let Some(gpus) = &self.gpus {
            for (device, bytes) in gpus.weights.iter().enumerate() {
                eprintln!("load_tensors:        CUDA{device} model buffer size = {:8.2} MiB", mib(*bytes));
            }
        }
        let mut host = Vec::new();
        for step in 0..STEPS {
            self.meet_faults(step * 100 / STEPS).await;
            self.allocate(Part::Weights { step, of: STEPS });
            // Written, or the system would not count it.
            host.resize(self.host_bytes / usize::try_from(STEPS - step).expect("a few"), 1);
            if self.talks() {
                eprint!(".");
            }
            tokio::time::sleep(pace).await;
        }
        self.say(String::new);
        self.meet_faults(100).await;
        self.allocate(Part::Context);
        if let Some(gpus) = &self.gpus {
            for (device, bytes) in gpus.context.iter().enumerate() {
                eprintln!("llama_kv_cache:      CUDA{device} KV buffer size = {:8.2} MiB", mib(*bytes));
            }
        }
        self.allocate(Part::Compute);
        if let Some(gpus) = &self.gpus {
            for (device, bytes) in gpus.compute.iter().enumerate().filter(|(_, bytes)| **bytes > 0) {
                eprintln!("sched_reserve:      CUDA{device} compute buffer size = {:8.2} MiB", mib(*bytes));
            }
        }
        let config = self.sim.config();
        self.say(|| format!("llama_context: n_ctx_per_seq = {}", config.ctx));
        self.say(|| format!("srv          init: initializing slots, n_slots = {}", config.slots));
        self.sim.loaded();
        self.say(|| "main: model loaded".to_owned());
        self.say(|| format!("main: server is listening on {url} - starting the main loop"));
        self.say(|| "srv  update_slots: all slots are idle".to_owned());
        Loaded { _gpus: self.gpus, _host: host }
    }

    fn allocate(&mut self, part: Part) {
        let Some(Err(error)) = self.gpus.as_mut().map(|gpus| gpus.allocate(part)) else { return };
        let buffer = match (&error, part) {
            (GpuError::Full { device, bytes }, Part::Weights { .. }) => vec![
                format!("alloc_tensor_range: failed to allocate CUDA{device} buffer of size {bytes}"),
                format!("llama_model_load: error loading model: unable to allocate CUDA{device} buffer"),
            ],
            (GpuError::Full { device, bytes }, Part::Context) => vec![
                format!("alloc_tensor_range: failed to allocate CUDA{device} buffer of size {bytes}"),
                "llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache"
                    .to_owned(),
            ],
            (GpuError::Full { device, bytes }, Part::Compute) => vec![
                format!("ggml_gallocr_reserve_n_impl: failed to allocate CUDA{device} buffer of size {bytes}"),
                "llama_init_from_model: failed to initialize the context: failed to allocate compute pp buffers"
                    .to_owned(),
            ],
            _ => Vec::new(),
        };
        // The dots of the progress end here.
        let mut lines = vec![String::new(), with_cause(&error)];
        lines.extend(buffer);
        self.fail(&lines);
    }

    fn fail(&self, lines: &[String]) -> ! {
        let name = self.file.as_deref().unwrap_or(Path::new("")).display();
        let mut lines = lines.to_vec();
        lines.push("llama_model_load_from_file_impl: failed to load model".to_owned());
        lines.push(format!("srv    load_model: failed to load model, '{name}'"));
        lines.push("main: exiting due to model loading error".to_owned());
        exit(&lines)
    }

    /// Lets faults strike that were waiting for so much to be loaded.
    async fn meet_faults(&self, percent: u64) {
        // Each time the faults are replaced, those that are left may strike or hold it up.
        let mut seen = 0;
        let mut faults = self.sim.faults();
        loop {
            let due = faults.faults.iter().find_map(|fault| match &fault.fault {
                FaultKind::InLoad { at_percent, stderr, end } if u64::from(*at_percent) <= percent => {
                    Some((stderr.as_deref(), *end))
                }
                _ => None,
            });
            let Some((stderr, end)) = due else { return };
            strike(stderr, end);
            if end != Ending::Hang {
                return;
            }
            // What was set before this process looked for the first time is no replacement.
            let before = faults.clone();
            while faults == before {
                (faults, seen) = self.sim.faults_after(seen).await;
            }
        }
    }
}

fn check(file: &Path, any_model: bool) -> Result<(), String> {
    let name = file.display();
    let mut opened = File::open(file).map_err(|error| {
        let why = if error.kind() == ErrorKind::NotFound {
            "No such file or directory".to_owned()
        } else {
            error.to_string()
        };
        format!("gguf_init_from_file: failed to open GGUF file '{name}' ({why})")
    })?;
    let mut magic = [0; MAGIC.len()];
    let read =
        opened.read(&mut magic).map_err(|error| format!("gguf_init_from_file_ptr: failed to read magic: {error}"))?;
    if any_model || magic == MAGIC {
        return Ok(());
    }
    let text = magic[..read].escape_ascii();
    Err(format!("gguf_init_from_file_ptr: invalid magic characters: '{text}', expected 'GGUF'"))
}

fn unloaded(file: &Path) -> String {
    format!("llama_model_load: error loading model: llama_model_loader: failed to load model from {}", file.display())
}
