//! The configuration file: its types, strict reading, validation and JSON Schema.
//!
//! One TOML file (YAML is read too) holds every setting; [`Config::load`] finds it, lays environment and flags over it and
//! checks the whole, after which nothing needs to be checked again. Secrets are never part of it: the bearer token comes from
//! the environment or from a file named there. The JSON Schema ([`json_schema`]) is generated from the same types.
//!
//! Not for: deciding who may call (`auth-min`), looking for GPUs or asking engines anything. What only a running system can
//! know, such as whether a device exists, is checked by those who use it.

mod checked;
mod config;
mod device;
mod engines;
mod environment;
mod error;
mod limits;
mod load;
mod parse;
mod pool;
mod position;
mod provisioning;
mod schema;
mod server;
mod storage;
mod stream;
mod swap;
mod validate;
mod worker;

pub use auth_min::BearerToken;
pub use checked::{Checksum, DownloadUrl, EngineUrl, OrchestratorUrl, RepoUrl, Unfit};
pub use config::Config;
pub use device::DeviceRef;
pub use engines::{ContainerRuntime, Engines, Supervision};
pub use environment::{Environment, ProcessEnvironment};
pub use error::{ConfigError, Misfit, Problem};
pub use limits::{AdmissionPolicy, Outbound, OutboundMode, PlacementOverride, Policy, RateLimit, Sessions};
pub use load::{Loaded, Origin, Overrides, Sources, UnknownKeys};
pub use pool::{Activation, Admission, Calls, FullPolicy, Pool, PriorityLimits, Queue, Timeouts};
pub use position::Position;
pub use provisioning::{
    Binary, Build, Container, ContainerNetwork, EngineSource, External, MissingTable, Model, Package, Provisioning,
    ProvisioningMode, SourceBuild,
};
pub use schema::json_schema;
pub use server::{Log, LogFormat, Server};
pub use storage::{
    ArtifactBackend, ArtifactTasks, Artifacts, Catalog, CatalogIndex, ConfiguredModel, History, TrustPolicy,
};
pub use stream::Stream;
pub use swap::Swap;
pub use worker::Worker;
