//! Runs engines in containers: podman first, docker second, both through their command-line clients.
//!
//! [`detect`] finds a [`Runtime`]; it checks what would stop an engine ([`Runtime::preflight`]), brings images by digest
//! ([`Runtime::pull`]), starts containers ([`Runtime::run`]) and finds those that outlived us ([`Runtime::find`]). A
//! [`ContainerHandle`] inspects, waits, stops, removes, and reads the log. Every call has a deadline, every failure is a typed
//! error that says what to do, and nothing that was said by a client, an engine or a registry leaves unredacted.
//!
//! The clients and not their sockets, because podman's socket is off by default, and a client of the user's own needs no
//! right that the user does not have.
//!
//! What it does not do: it does not decide whether something may be fetched (ask the outbound policy first, with
//! [`ImageRef::registry`]), it logs in nowhere (the clients use the user's own logins), it installs nothing, and it does
//! not restart containers.
//!
//! # Hardening
//! Every container drops all capabilities, gains no privileges, is limited in processes, publishes ports on loopback only,
//! sees only the GPUs of its mask, and runs under the runtime's default seccomp and AppArmor profiles. Rootless podman, which
//! is preferred, also has its own user namespace: root in the container is the user outside. Docker's daemon is usually
//! root's; there, [`RunAs::Caller`] gives the engine the user's id, and `userns-remap` or rootless Docker gives it a
//! namespace. On hosts with SELinux a container that gets GPUs runs without SELinux confinement, as NVIDIA's own
//! documentation has it: the policy knows neither the GPU's device nodes nor the models' folder.

#[cfg(not(any(feature = "backend-podman", feature = "backend-docker")))]
compile_error!("container-runtime needs one of its features `backend-podman` and `backend-docker`");

mod advice;
mod arguments;
mod backend;
mod cdi;
mod client;
mod detect;
mod error;
mod executor;
mod gpu;
mod handle;
mod image;
mod logs;
mod narrate;
mod preflight;
mod pull;
mod run;
mod runtime;
mod spec;
mod state;
#[cfg(feature = "test-support")]
pub mod test_support;

pub use advice::Distribution;
pub use backend::{Backend, Preference};
pub use detect::{Detector, HostPaths, detect};
pub use error::{ClientError, ContainerError, NoRuntime, PullError, RunError, Unusable, WhyUnusable};
pub use executor::{Call, Executor, Pipe, Spawned, SystemExecutor};
pub use gpu::{GpuAccess, GpuDevice, NoGpuSupport};
pub use handle::{ContainerHandle, Stopped};
pub use image::{ImageDigest, ImageRef, ImageRefError};
pub use logs::{LogLine, LogOptions, LogSource, LogStream};
pub use preflight::{Check, Finding, Outcome, PreflightReport, PreflightRequest};
pub use pull::{PullProgress, PulledImage};
pub use runtime::{CdiSupport, CgroupVersion, Limits, Runtime, RuntimeInfo};
pub use spec::{Access, ContainerSpec, EnvValue, Mount, Network, PortMap, RunAs, SpecError, Ulimit};
pub use state::{ContainerState, Status};
