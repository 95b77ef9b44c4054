//! Prepares engines: plans what a pool's engine takes, carries it out, and knows how each engine is started.
//!
//! [`provider_for`] picks the [`EngineProvisioner`] of a pool by its mode. What it prepares is a [`PreparedEngine`];
//! [`command_line`] turns that and a [`Launch`] into arguments, from one table for each kind of engine.
//!
//! Engines run on NVIDIA GPUs or not at all: preparing one wants [`Gpus`], of which there is at least one. Nothing is fetched but
//! through `model-provisioner`'s gate, nothing becomes root, and no process that is started here outlives its work. Not here:
//! running engines, and the models they load.

mod binary;
mod cache;
mod checks;
mod cmake;
mod container;
mod cuda;
mod distro;
mod error;
mod external;
mod fetch;
mod git;
mod gpus;
mod host;
mod identity;
mod launch;
mod lock;
mod narrate;
mod package;
mod pacman;
mod plan;
mod prepared;
mod process;
mod progress;
mod provisioner;
mod setup;
mod source;
mod step;
mod tools;
mod unpack;

pub use cache::{RemoveError, Removed};
pub use cmake::Diagnosis;
pub use distro::{Distro, Family};
pub use error::EngineError;
pub use gpus::{Gpu, Gpus, NoGpu};
pub use host::Host;
pub use launch::{Launch, LaunchError, Listen, check_environment, command_line, normalized, serves_sockets};
pub use plan::StepKind;
pub use prepared::{EngineArtifact, ImageRef, PreparedEngine};
pub use progress::{EngineProgress, Silent};
pub use provisioner::{EngineProvisioner, provider_for};
pub use setup::Setup;
pub use tools::Tool;
pub use unpack::UnpackError;

/// Runs what blocks.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    // A blocking task that has begun cannot be aborted.
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}
