//! How engines are started: their command lines as data, and what a pool may add to them.
//!
//! Each engine has a table of the arguments that it gets from us, a line for each, and a table of flags that a pool must not give,
//! or gives in other words than ours. What is in neither table goes through as it is. A pool's flags come last and replace ours
//! of the same name.

mod flags;
mod llamacpp;
mod mock;
mod tgi;
mod triton;
mod version;
mod vllm;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use api_types::Engine;

use crate::prepared::{EngineArtifact, PreparedEngine};
use flags::Flag;
use version::Versions;

/// Where an engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// On an address and a port.
    Tcp(SocketAddr),
    /// On a Unix socket; only for an engine that [`serves_sockets`].
    Socket(PathBuf),
}

impl Listen {
    const fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Socket(_) => None,
        }
    }
}

/// What an engine is started with, beside its own flags.
#[derive(Clone, Debug, PartialEq)]
pub struct Launch {
    /// Path of the model as the engine's process sees it, or its name where the engine takes one; of Triton the repository.
    pub model: String,
    /// The name under which the engine serves it.
    pub served_name: String,
    /// Where it listens.
    pub listen: Listen,
    /// Where Triton speaks gRPC, if it shall.
    pub grpc_port: Option<u16>,
    /// Where Triton has its metrics, if it shall.
    pub metrics_port: Option<u16>,
    /// Context of one slot, in tokens; what the model allows when unset.
    pub ctx: Option<NonZeroU32>,
    /// Tasks at the same time.
    pub slots: NonZeroU32,
    /// GPUs it runs on.
    pub gpus: NonZeroUsize,
    /// Share of the model on each GPU.
    pub tensor_split: Option<Vec<f32>>,
    /// Whether equal requests must give equal bytes.
    pub strict: bool,
    /// Folder, as the engine's process sees it, of the files that its slots are saved to, if they shall be. It must exist.
    pub slot_files: Option<String>,
}

/// A flag or variable that a pool must not give its engine. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The flag is ours to set.
    #[error("flag {flag} is set by llama-orch: {advice}")]
    Owned {
        /// The flag.
        flag: String,
        /// What to do.
        advice: &'static str,
    },
    /// The flag would put the work on the CPU.
    #[error("flag {flag} would run the model on the CPU, which managed engines never do: {advice}")]
    Cpu {
        /// The flag, with its value.
        flag: String,
        /// What to do.
        advice: &'static str,
    },
    /// The flag's value is missing or makes no sense.
    #[error("flag {flag} {problem}: {advice}")]
    Value {
        /// The flag.
        flag: String,
        /// What is wrong with it.
        problem: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// The variable is ours to set, or sets such a flag.
    #[error("variable {name} is not for the pool to set: {advice}")]
    Variable {
        /// The variable.
        name: String,
        /// What to do.
        advice: &'static str,
    },
    /// Nobody here starts this engine.
    #[error("an engine of the kind {engine} is not started by llama-orch")]
    NotStarted {
        /// The engine.
        engine: Engine,
    },
}

impl LaunchError {
    /// What to do.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::Owned { advice, .. }
            | Self::Cpu { advice, .. }
            | Self::Value { advice, .. }
            | Self::Variable { advice, .. } => advice,
            Self::NotStarted { .. } => "run it yourself, and attach to it with mode = \"external\"",
        }
    }
}

/// The tables of one engine.
struct Table {
    /// What it gets from us, in order.
    lines: &'static [Line],
    /// Flags that are known by more than one name, that are ours, or that have rules.
    flags: &'static [Flag],
    /// Versions whose `--host` may be the path of a Unix socket.
    sockets: Option<Versions>,
    /// Variables that would do what a flag must not, by the beginning of their names.
    variables: &'static [(&'static str, &'static str)],
}

/// An argument of ours.
struct Line {
    /// The flag; empty for an argument without one.
    flag: &'static str,
    value: Value,
    when: When,
    versions: Versions,
}

/// An argument for every version.
const fn line(flag: &'static str, value: Value, when: When) -> Line {
    Line { flag, value, when, versions: Versions::ALL }
}

/// Where an argument's value comes from.
#[derive(Clone, Copy)]
enum Value {
    /// The flag has none.
    Switch,
    /// Always the same.
    Fixed(&'static str),
    Model,
    ServedName,
    Host,
    Port,
    /// Host and port.
    Address,
    GrpcPort,
    MetricsPort,
    /// Context of one slot.
    Ctx,
    /// Context of all slots.
    CtxOfAll,
    Slots,
    Gpus,
    TensorSplit,
    SlotFiles,
}

/// When an argument is given. One whose value is not there is left out in any case.
#[derive(Clone, Copy, PartialEq)]
enum When {
    Always,
    /// For pools whose equal requests must give equal bytes.
    Strict,
    /// For the engine as a program, not as a container.
    Program,
    /// For the engine as a container.
    Container,
    /// When Triton shall not speak gRPC.
    NoGrpc,
    /// When Triton shall have no metrics.
    NoMetrics,
}

fn table(engine: Engine) -> Result<&'static Table, LaunchError> {
    match engine {
        Engine::Llamacpp => Ok(&llamacpp::TABLE),
        Engine::Vllm => Ok(&vllm::TABLE),
        Engine::Tgi => Ok(&tgi::TABLE),
        Engine::Triton => Ok(&triton::TABLE),
        Engine::Mock => Ok(&mock::TABLE),
        Engine::Openai => Err(LaunchError::NotStarted { engine }),
    }
}

/// The arguments of an engine's program, or of its image's entry point: ours, then the pool's.
///
/// # Errors
/// [`LaunchError`] for flags that do not do; never for those of a [`PreparedEngine`] that was prepared here, unless the pool is
/// strict and they are against that.
pub fn command_line(engine: &PreparedEngine, launch: &Launch) -> Result<Vec<String>, LaunchError> {
    let table = table(engine.engine)?;
    let own = flags::parse(table.flags, &engine.args)?;
    if launch.strict {
        flags::check_strict(&own)?;
    }
    let is_container = matches!(engine.artifact, EngineArtifact::Image(_));
    let mut all = Vec::new();
    for line in table.lines {
        let is_replaced = own.iter().any(|flag| flag.replaces(line.flag));
        let applies = line.versions.contain(&engine.engine_version) && line.when.applies(launch, is_container);
        if let Some(value) = line.value.of(launch).filter(|_| applies && !is_replaced) {
            all.extend((!line.flag.is_empty()).then(|| line.flag.to_owned()));
            all.extend(value);
        }
    }
    all.extend(own.into_iter().flat_map(flags::Given::into_words));
    Ok(all)
}

/// Whether an engine can listen on a Unix socket, which costs less than TCP and which other users of the host cannot reach.
#[must_use]
pub fn serves_sockets(engine: &PreparedEngine) -> bool {
    let sockets = table(engine.engine).ok().and_then(|table| table.sockets);
    engine.binary_path().is_some() && sockets.is_some_and(|versions| versions.contain(&engine.engine_version))
}

/// A pool's flags in their normal form: one name for each, no flag twice (LO-ENG-07).
///
/// # Errors
/// [`LaunchError`] for a flag that is ours to set, or that would put the work on the CPU.
pub fn normalized(engine: Engine, flags: &[String]) -> Result<Vec<String>, LaunchError> {
    Ok(flags::parse(table(engine)?.flags, flags)?.into_iter().flat_map(flags::Given::into_words).collect())
}

/// Whether a pool may set these variables for its engine.
///
/// # Errors
/// [`LaunchError::Variable`].
pub fn check_environment(engine: Engine, environment: &BTreeMap<String, String>) -> Result<(), LaunchError> {
    let rows = SHARED_VARIABLES.iter().chain(table(engine)?.variables);
    for (beginning, advice) in rows {
        if let Some(name) = environment.keys().find(|name| name.starts_with(beginning)) {
            return Err(LaunchError::Variable { name: name.clone(), advice });
        }
    }
    Ok(())
}

/// Variables that no pool sets, whatever its engine.
const SHARED_VARIABLES: &[(&str, &str)] = &[
    ("CUDA_VISIBLE_DEVICES", "name the GPUs in the pool's `devices`"),
    ("NVIDIA_VISIBLE_DEVICES", "name the GPUs in the pool's `devices`"),
    ("CUDA_DEVICE_ORDER", "leave it out; devices are always counted in the order of the PCI bus"),
    (
        "GGML_CUDA_ENABLE_UNIFIED_MEMORY",
        "leave it out; it moves the model into the host's memory when the GPU's is full",
    ),
];

impl When {
    fn applies(self, launch: &Launch, is_container: bool) -> bool {
        match self {
            Self::Always => true,
            Self::Strict => launch.strict,
            Self::Program => !is_container,
            Self::Container => is_container,
            Self::NoGrpc => launch.grpc_port.is_none(),
            Self::NoMetrics => launch.metrics_port.is_none(),
        }
    }
}

impl Value {
    /// The argument's value, none for a switch; `None` when there is nothing to give.
    fn of(self, launch: &Launch) -> Option<Option<String>> {
        Some(match self {
            Self::Switch => None,
            Self::Fixed(text) => Some(text.to_owned()),
            Self::Model => Some(launch.model.clone()),
            Self::ServedName => Some(launch.served_name.clone()),
            Self::Host => Some(match &launch.listen {
                Listen::Tcp(address) => address.ip().to_string(),
                Listen::Socket(path) => path.display().to_string(),
            }),
            Self::Port => Some(launch.listen.tcp()?.port().to_string()),
            Self::Address => Some(launch.listen.tcp()?.to_string()),
            Self::GrpcPort => Some(launch.grpc_port?.to_string()),
            Self::MetricsPort => Some(launch.metrics_port?.to_string()),
            Self::Ctx => Some(launch.ctx?.to_string()),
            Self::CtxOfAll => Some((u64::from(launch.ctx?.get()) * u64::from(launch.slots.get())).to_string()),
            Self::Slots => Some(launch.slots.to_string()),
            Self::Gpus => Some(launch.gpus.to_string()),
            Self::SlotFiles => Some(launch.slot_files.clone()?),
            Self::TensorSplit => {
                let split = launch.tensor_split.as_ref()?;
                Some(split.iter().map(f32::to_string).collect::<Vec<_>>().join(","))
            }
        })
    }
}
