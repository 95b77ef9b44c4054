//! How llama.cpp is configured and built: definitions in their normal form, and what is known of builds that fail.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use api_types::PoolFault;

use crate::cuda::Cuda;
use crate::error::EngineError;
use crate::gpus::Gpus;
use crate::host::Host;
use crate::tools::Tool;

/// What CMake is told with `-D`, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Definitions {
    all: BTreeMap<String, String>,
    /// Arguments that are no definitions.
    other: Vec<String>,
}

/// Definitions of every build.
const OURS: &[(&str, &str)] = &[
    ("CMAKE_BUILD_TYPE", "Release"),
    ("GGML_CUDA", "ON"),
    ("LLAMA_BUILD_EXAMPLES", "OFF"),
    ("LLAMA_BUILD_SERVER", "ON"),
    ("LLAMA_BUILD_TESTS", "OFF"),
    ("LLAMA_BUILD_UI", "OFF"),
    // Models are fetched by llama-orch, and the server needs no client for it.
    ("LLAMA_CURL", "OFF"),
    ("LLAMA_OPENSSL", "OFF"),
    // Builds fetch nothing by themselves.
    ("LLAMA_USE_PREBUILT_UI", "OFF"),
];

/// Former names of definitions. Source: `llama_option_depr` in llama.cpp's `CMakeLists.txt`.
const FORMER: &[(&str, &str)] =
    &[("LLAMA_CUBLAS", "GGML_CUDA"), ("LLAMA_CUDA", "GGML_CUDA"), ("GGML_CUBLAS", "GGML_CUDA")];

/// Definitions that must stay on.
const ALWAYS_ON: &[(&str, &str)] = &[
    ("GGML_CUDA", "a managed engine runs on NVIDIA GPUs; leave it out"),
    ("LLAMA_BUILD_SERVER", "the server is what is started; leave it out"),
];

/// Arguments that are ours to give.
const REFUSED: &[(&str, &str)] = &[
    ("-S", "set provisioning.source.repo"),
    ("-B", "set provisioning.source.build.cache_dir"),
    ("-G", "set provisioning.source.build.generator"),
    ("-C", "give the definitions one by one in cmake_flags"),
    ("-P", "give definitions only"),
    ("-E", "give definitions only"),
    ("--build", "give definitions only"),
    ("--install", "give definitions only"),
    ("--preset", "give the definitions one by one in cmake_flags"),
];

impl Definitions {
    /// Ours, with the pool's, which win (LO-ENG-04).
    pub(crate) fn with(flags: &[String]) -> Result<Self, EngineError> {
        let mut all: BTreeMap<_, _> =
            OURS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut other = Vec::new();
        let mut words = flags.iter();
        while let Some(word) = words.next() {
            let definition = match word.strip_prefix("-D") {
                Some("") => words.next().map(String::as_str),
                rest => rest,
            };
            let Some(definition) = definition else {
                if let Some((_, advice)) = REFUSED.iter().find(|(beginning, _)| word.starts_with(beginning)) {
                    return Err(refused(word, advice));
                }
                other.push(word.clone());
                continue;
            };
            let (name, value) = definition.split_once('=').ok_or_else(|| refused(word, "write -DNAME=VALUE"))?;
            let name = normal(name.split(':').next().unwrap_or(name));
            if let Some((_, advice)) = ALWAYS_ON.iter().find(|(on, _)| *on == name && !is_true(value)) {
                return Err(refused(word, advice));
            }
            let value = if ALWAYS_ON.iter().any(|(on, _)| *on == name) { "ON" } else { value };
            all.insert(name, value.to_owned());
        }
        Ok(Self { all, other })
    }

    /// Adds what depends on the toolkit, the GPUs and the host, where the pool has not said otherwise.
    pub(crate) fn for_cuda(&mut self, cuda: &Cuda, gpus: &Gpus, host_compiler: Option<&Path>) {
        let architectures: Vec<_> =
            gpus.capabilities().iter().map(|(major, minor)| format!("{major}{minor}")).collect();
        let mut default = |name: &str, value: String| {
            self.all.entry(name.to_owned()).or_insert(value);
        };
        default("CMAKE_CUDA_ARCHITECTURES", architectures.join(";"));
        default("CMAKE_CUDA_COMPILER", cuda.nvcc.display().to_string());
        if let Some(root) = &cuda.root {
            default("CUDAToolkit_ROOT", root.display().to_string());
        }
        if let Some(compiler) = host_compiler {
            default("CMAKE_CUDA_HOST_COMPILER", compiler.display().to_string());
        }
    }

    /// Adds what the server shall say that it was built from: without a history it could not know.
    pub(crate) fn identify(&mut self, reference: &str, commit: Option<&str>) {
        let number = reference.strip_prefix('b').filter(|number| number.parse::<u32>().is_ok());
        for (name, value) in [("LLAMA_BUILD_NUMBER", number), ("LLAMA_BUILD_COMMIT", commit)] {
            if let Some(value) = value {
                self.all.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
    }

    /// Whether the pool has said which host compiler CUDA uses, or that any will do.
    pub(crate) fn names_host_compiler(&self) -> bool {
        let any = |name: &str| self.all.get(name).is_some_and(|flags| flags.contains("allow-unsupported-compiler"));
        self.all.contains_key("CMAKE_CUDA_HOST_COMPILER") || any("CMAKE_CUDA_FLAGS")
    }

    /// All of them, as arguments.
    pub(crate) fn args(&self) -> Vec<String> {
        self.all.iter().map(|(name, value)| format!("-D{name}={value}")).chain(self.other.iter().cloned()).collect()
    }

    /// What makes this build differ from a usual one, for its version (LO-ENG-11): everything but ours and the places of this host.
    pub(crate) fn telling(&self) -> String {
        let is_ours = |name: &str, value: &str| name != "GGML_CUDA" && OURS.contains(&(name, value));
        let is_identity = |name: &str| matches!(name, "LLAMA_BUILD_NUMBER" | "LLAMA_BUILD_COMMIT");
        let is_usual = |name: &str, value: &str| is_ours(name, value) || is_identity(name) || value.starts_with('/');
        let named = self.all.iter().filter(|(name, value)| !is_usual(name, value));
        let words = named.map(|(name, value)| format!("{name}={value}")).chain(self.other.iter().cloned());
        words.collect::<Vec<_>>().join(",")
    }

    /// Removes a cache of CMake that says otherwise, since CMake would believe some of it.
    pub(crate) fn invalidate(&self, tree: &Path, build: &Path) -> Result<(), EngineError> {
        let place = build.join("CMakeCache.txt");
        let Ok(text) = fs::read_to_string(&place) else { return Ok(()) };
        if self.agree_with(&text, tree) {
            return Ok(());
        }
        tracing::info!(cache = %place.display(), "CMake's cache is of another configuration and is removed");
        fs::remove_file(&place).map_err(EngineError::io("remove", &place))?;
        crate::cache::clear(&build.join("CMakeFiles"))
    }

    fn agree_with(&self, cache: &str, tree: &Path) -> bool {
        let cached = entries(cache);
        let same_home = cached.get("CMAKE_HOME_DIRECTORY").is_none_or(|home| Path::new(home) == tree);
        let former = cached.keys().any(|name| normal(name) != *name);
        let same = |(name, value): (&String, &String)| cached.get(name.as_str()).is_none_or(|cached| cached == value);
        same_home && !former && self.all.iter().all(same)
    }
}

/// Whether CMake has left CUDA on.
pub(crate) fn has_cuda(build: &Path) -> bool {
    let text = fs::read_to_string(build.join("CMakeCache.txt")).unwrap_or_default();
    entries(&text).get("GGML_CUDA").is_some_and(|value| is_true(value))
}

/// `NAME:TYPE=VALUE` lines of a `CMakeCache.txt`.
fn entries(cache: &str) -> BTreeMap<&str, &str> {
    let lines = cache.lines().filter(|line| !line.starts_with(['#', '/']));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.split(':').next().unwrap_or(name), value))
        .collect()
}

fn normal(name: &str) -> String {
    for (former, now) in FORMER {
        match name.strip_prefix(former) {
            Some("") => return (*now).to_owned(),
            Some(rest) if rest.starts_with('_') => return format!("{now}{rest}"),
            _ => {}
        }
    }
    name.to_owned()
}

/// What CMake takes for true.
fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_uppercase().as_str(), "ON" | "1" | "YES" | "TRUE" | "Y")
}

fn refused(flag: &str, advice: &str) -> EngineError {
    EngineError::Unsupported {
        what: format!("{flag} does not do in provisioning.source.build.cmake_flags"),
        fix: advice.to_owned(),
    }
}

/// A compiler for the host's side of CUDA code, when the usual one is too new for the toolkit.
pub(crate) enum HostCompiler {
    /// The usual one will do.
    Usual,
    /// Another one that is here.
    Other(PathBuf),
    /// There is none. The usual one's version, and the newest that will do.
    None(u32, u32),
}

/// Which compiler for the host's side is here.
pub(crate) fn host_compiler(host: &Host, gcc: Option<u32>, cuda: &Cuda) -> HostCompiler {
    let newest = cuda.newest_gcc();
    match gcc.filter(|gcc| *gcc > newest) {
        None => HostCompiler::Usual,
        Some(gcc) => {
            let older = (newest.saturating_sub(4)..=newest).rev().find_map(|major| host.find(&format!("g++-{major}")));
            older.map_or(HostCompiler::None(gcc, newest), HostCompiler::Other)
        }
    }
}

/// How to get an older GCC.
pub(crate) fn older_gcc(host: &Host, newest: u32) -> String {
    use crate::distro::Family;
    match host.distro.family {
        Family::Arch => format!("sudo pacman -S --needed gcc{newest}"),
        Family::Debian => format!("sudo apt install g++-{newest}"),
        Family::Fedora => format!("sudo dnf install gcc{newest}-c++"),
        Family::Suse => format!("sudo zypper install gcc{newest}-c++"),
        Family::Other => format!("install GCC {newest} so that g++-{newest} is on the path"),
    }
}

/// The program that builds: as the pool says, else Ninja where it is installed, else Make.
pub(crate) fn generator(named: Option<&str>, host: &Host) -> String {
    match named {
        Some(name) => name.to_owned(),
        None if host.tool(Tool::Ninja).is_some() => "Ninja".to_owned(),
        None => "Unix Makefiles".to_owned(),
    }
}

/// The tool that a generator's builds need.
pub(crate) fn builder(generator: &str) -> Tool {
    if generator.starts_with("Ninja") { Tool::Ninja } else { Tool::Make }
}

/// How far a build is, as Make (`[ 42%] …`) or Ninja (`[123/456] …`) says.
pub(crate) fn share(line: &str) -> Option<f64> {
    let (inside, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    if let Some(percent) = inside.trim().strip_suffix('%') {
        return Some(percent.trim().parse::<f64>().ok()?.clamp(0.0, 100.0) / 100.0);
    }
    let (done, all) = inside.split_once('/')?;
    let (done, all): (f64, f64) = (done.trim().parse().ok()?, all.trim().parse().ok()?);
    (all > 0.0).then(|| (done / all).clamp(0.0, 1.0))
}

/// What is known of a build that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    /// Its kind.
    pub fault: PoolFault,
    /// Its cause, in a few words.
    pub cause: &'static str,
    /// What to do.
    pub fix: &'static str,
}

const fn known(fault: PoolFault, cause: &'static str, fix: &'static str) -> Diagnosis {
    Diagnosis { fault, cause, fix }
}

/// Signs of known causes, the surest first (ORCH-3433).
#[rustfmt::skip]
const KNOWN: &[(&str, Diagnosis)] = &[
    ("No space left on device", known(PoolFault::DiskFull, "the disk is full", "make room with `llama-orch engines rm`, or set engines.cache_dir to a larger disk")),
    ("Disk quota exceeded", known(PoolFault::DiskFull, "the disk quota is used up", "make room with `llama-orch engines rm`, or set engines.cache_dir to a larger disk")),
    ("File size limit exceeded", known(PoolFault::DiskFull, "a limit on the size of files is reached", "raise the limit (`ulimit -f`) of llama-orch")),
    ("File too large", known(PoolFault::DiskFull, "a limit on the size of files is reached", "raise the limit (`ulimit -f`) of llama-orch")),
    ("unsupported GNU version", known(PoolFault::NoCuda, "this CUDA takes no GCC as new as this one", "install the GCC that CUDA takes, which `llama-orch doctor` names, or a newer CUDA")),
    ("Unsupported gpu architecture", known(PoolFault::NoCuda, "this CUDA does not know the pool's GPUs", "install the CUDA toolkit that the driver serves (see `nvidia-smi`)")),
    ("Failed to find nvcc", known(PoolFault::NoCuda, "CUDA's compiler is not found", "install the CUDA toolkit; `llama-orch doctor` tells how")),
    ("No CMAKE_CUDA_COMPILER could be found", known(PoolFault::NoCuda, "CUDA's compiler is not found", "install the CUDA toolkit; `llama-orch doctor` tells how")),
    ("CUDA Toolkit not found", known(PoolFault::NoCuda, "the CUDA toolkit is not found", "install the CUDA toolkit; `llama-orch doctor` tells how")),
    ("Could not find CUDAToolkit", known(PoolFault::NoCuda, "the CUDA toolkit is not found", "install the CUDA toolkit; `llama-orch doctor` tells how")),
    ("Could NOT find CUDAToolkit", known(PoolFault::NoCuda, "the CUDA toolkit is not found", "install the CUDA toolkit; `llama-orch doctor` tells how")),
    ("is not able to compile a simple test program", known(PoolFault::BuildFailed, "a compiler does not work", "see the log, and reinstall the compiler or the CUDA toolkit")),
    ("cannot find -lcuda", known(PoolFault::NoDriver, "the driver's library is not found", "install the NVIDIA driver; `llama-orch doctor` tells how")),
    ("Killed signal terminated program", known(PoolFault::HostMemoryExhausted, "the host's memory is exhausted", "set engines.build_jobs to a smaller number")),
    ("virtual memory exhausted", known(PoolFault::HostMemoryExhausted, "the host's memory is exhausted", "set engines.build_jobs to a smaller number")),
    ("out of memory allocating", known(PoolFault::HostMemoryExhausted, "the host's memory is exhausted", "set engines.build_jobs to a smaller number")),
    ("does not appear to contain CMakeLists.txt", known(PoolFault::FetchFailed, "the source holds no CMake project", "correct provisioning.source.repo")),
    ("unknown target 'llama-server'", known(PoolFault::Unsupported, "this source has no server", "choose a ref of llama.cpp that has llama-server")),
    ("No rule to make target 'llama-server'", known(PoolFault::Unsupported, "this source has no server", "choose a ref of llama.cpp that has llama-server")),
    ("or higher is required", known(PoolFault::MissingTool, "a tool is too old", "update the tool that the log names")),
];

/// What is known of a build with this output.
pub(crate) fn diagnose(lines: &[String]) -> Option<Diagnosis> {
    let said = |pattern: &str| lines.iter().any(|line| line.contains(pattern));
    KNOWN.iter().find(|(pattern, _)| said(pattern)).map(|(_, diagnosis)| *diagnosis)
}

/// Lines that are told of a failure.
const TOLD: usize = 4;

/// Lines that look like an error and tell nothing.
const IDLE: &[&str] = &["warning:", "not a git repository", "errors occurred", "CMakeError.log"];

/// The lines that tell what went wrong, or the last ones. CMake tells it in the line after the one that says where.
pub(crate) fn last_errors(lines: &[String]) -> String {
    const SIGNS: &[&str] = &["error", "Error", "fatal", "FAILED", "No space left", "Killed"];
    let plain: Vec<_> = lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
    let plain: Vec<_> = plain.into_iter().filter(|line| !IDLE.iter().any(|idle| line.contains(idle))).collect();
    let tells = |line: &str| SIGNS.iter().any(|sign| line.contains(sign));
    let follows = |at: usize| at > 0 && plain[at - 1].starts_with("CMake Error");
    let telling: Vec<_> = (0..plain.len()).filter(|at| tells(plain[*at]) || follows(*at)).map(|at| plain[at]).collect();
    let all = if telling.is_empty() { plain } else { telling };
    all[all.len().saturating_sub(TOLD)..].join(" | ")
}

#[cfg(test)]
mod tests;
