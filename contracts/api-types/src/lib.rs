//! Every public request, response, SSE frame and error of OrchQueue v1.
//!
//! Plain data: no I/O, no clock, no decisions. The OpenAPI documents under `contracts/openapi` are generated from these
//! types ([`openapi`]); nothing else may define a public shape. Additions are optional fields; anything else is a new
//! version of the interface.

pub mod admission;
pub mod artifact;
pub mod capability;
pub mod catalog;
pub mod engine;
pub mod error;
pub mod events;
pub mod ids;
pub mod openapi;
pub mod placement;
pub mod pool;
pub mod session;
pub mod sse;
pub mod strict;
pub mod summary;
pub mod task;
pub mod vocabulary;
mod words;
pub mod worker;

pub use admission::AdmissionResponse;
pub use artifact::{
    Artifact, ArtifactList, ArtifactQuery, ArtifactRecord, ArtifactRef, BundleEngine, BundleModel, ProofBundle,
};
pub use capability::{Capabilities, EngineCapability};
pub use catalog::{
    Accepted, AcceptedStatus, CatalogList, CatalogModel, CatalogQuery, CatalogRecord, CatalogStateChange, FitDevice,
    FitQuery, FitReport, GcItem, GcReport, GcRequest, ModelFacts, ModelJob, ModelJobKind, ModelJobState, ModelManifest,
    ModelSignature, PullRequest, Sbom, TrustPolicy, Verification, VerificationOutcome,
};
pub use engine::{
    DeviceList, DeviceProcess, DeviceStatus, DoctorCheck, DoctorOutcome, DoctorReport, EngineList, EnginePlan,
    EnginePlanStep, LogQuery, MigStatus, PreparedEngineRecord,
};
pub use error::{AuthErrorEnvelope, ErrorEnvelope, ErrorKind, PolicyLabel};
pub use events::{FeedEvent, FeedGap, FeedQuery, ModelChange};
pub use ids::{ArtifactId, EngineId, ModelId, PoolId, ReplicaId, SessionId, TaskId, WorkerId};
pub use placement::{MoveReason, PlacementMove, PlacementRecord, PoolExclusion, PoolOutranked};
pub use pool::{
    DrainRequest, PoolFault, PoolHealth, PoolList, PoolState, PoolStatus, ReloadRequest, ReloadState, ReloadStatus,
    StopRequest,
};
pub use session::SessionInfo;
pub use summary::{InputTokens, TaskList, TaskQuery, TaskState, TaskSummary, TokenSource};
pub use task::{ChatMessage, PlacementMode, PlacementOverrides, Sampling, TaskRequest};
pub use vocabulary::{
    ArtifactKind, DeterminismLevel, Engine, KvHint, ModelLifecycle, OutputMode, Priority, TrustMode, Workload,
};
pub use worker::{
    CloseReason, CommandDone, CommandRefusal, EngineRegistration, Heartbeat, HeartbeatAnswer, HostRegistration,
    PoolLeases, Registered, RelaySecret, WORKER_PROTOCOL, WorkerCommand, WorkerEngine, WorkerFailure, WorkerGate,
    WorkerList, WorkerMemory, WorkerModel, WorkerOrder, WorkerPool, WorkerRegistered, WorkerRegistration, WorkerState,
    WorkerStatus, WorkerTerms,
};

/// Version of the HTTP interface, reported by `/v1/capabilities` and by `--version`; clients pin a range of it.
pub const API_VERSION: &str = "1.0.0";
