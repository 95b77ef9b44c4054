//! Generated from contracts/api-types by `cargo xtask regen-openapi`. Do not edit.

use reqwest::Method;

use crate::call::Call;
use crate::{Client, ClientError};

/// Operations that have a method here.
pub(crate) const OPERATIONS: &[&str] = &[
    "get_healthz",
    "get_metrics",
    "list_artifacts",
    "create_artifact",
    "get_artifact",
    "delete_artifact",
    "get_capabilities",
    "fit_model",
    "collect_models",
    "list_models",
    "create_model",
    "get_model",
    "delete_model",
    "get_model_job",
    "cancel_model_job",
    "pull_model",
    "set_model_state",
    "verify_model",
    "list_devices",
    "list_engines",
    "delete_engine",
    "get_openapi",
    "list_pools",
    "drain_pool",
    "get_pool_health",
    "get_pool_plan",
    "reload_pool",
    "start_pool",
    "stop_pool",
    "unload_pool",
    "get_session",
    "delete_session",
    "list_tasks",
    "submit_task",
    "get_task",
    "cancel_task",
    "list_workers",
    "register_worker",
    "worker_heartbeat",
];

impl Client {
    /// Whether the process answers. Wants no token.
    ///
    /// `GET /healthz`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_healthz(&self) -> Result<String, ClientError> {
        let call = Call::new(Method::GET, &["healthz"]);
        self.receive_text(&call).await
    }

    /// Measurements as Prometheus text.
    ///
    /// `GET /metrics`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_metrics(&self) -> Result<String, ClientError> {
        let call = Call::new(Method::GET, &["metrics"]);
        self.receive_text(&call).await
    }

    /// Artifacts, newest first, page by page.
    ///
    /// `GET /v1/artifacts`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_artifacts(&self, query: &api_types::ArtifactQuery) -> Result<api_types::ArtifactList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "artifacts"]).query(query);
        self.receive(&call).await
    }

    /// Keep a document. Equal documents have one id, and keeping one again changes nothing.
    ///
    /// `POST /v1/artifacts`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn create_artifact(&self, body: &api_types::Artifact) -> Result<api_types::ArtifactRef, ClientError> {
        let call = Call::new(Method::POST, &["v1", "artifacts"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// One artifact with its lineage. What task left which: tag `task:<id>`.
    ///
    /// `GET /v1/artifacts/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_artifact(&self, id: &api_types::ArtifactId) -> Result<api_types::ArtifactRecord, ClientError> {
        let call = Call::new(Method::GET, &["v1", "artifacts", &id.to_string()]);
        self.receive(&call).await
    }

    /// Remove an artifact, such as one with a prompt that must not be kept.
    ///
    /// `DELETE /v1/artifacts/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn delete_artifact(&self, id: &api_types::ArtifactId) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, &["v1", "artifacts", &id.to_string()]);
        self.receive_nothing(&call).await
    }

    /// What each pool can do, as its engine reports it.
    ///
    /// `GET /v1/capabilities`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_capabilities(&self) -> Result<api_types::Capabilities, ClientError> {
        let call = Call::new(Method::GET, &["v1", "capabilities"]);
        self.receive(&call).await
    }

    /// How much memory a model needs, and which devices have it. Fetches no more than a header.
    ///
    /// `GET /v1/catalog/fit`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn fit_model(&self, query: &api_types::FitQuery) -> Result<api_types::FitReport, ClientError> {
        let call = Call::new(Method::GET, &["v1", "catalog", "fit"]).query(query);
        self.receive(&call).await
    }

    /// Remove files from the models' folder that nothing names.
    ///
    /// `POST /v1/catalog/gc`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn collect_models(&self, body: &api_types::GcRequest) -> Result<api_types::GcReport, ClientError> {
        let call = Call::new(Method::POST, &["v1", "catalog", "gc"]).json(body);
        self.receive(&call).await
    }

    /// Models by id, page by page.
    ///
    /// `GET /v1/catalog/models`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_models(&self, query: &api_types::CatalogQuery) -> Result<api_types::CatalogList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "catalog", "models"]).query(query);
        self.receive(&call).await
    }

    /// Register a model.
    ///
    /// `POST /v1/catalog/models`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn create_model(&self, body: &api_types::CatalogModel) -> Result<api_types::CatalogRecord, ClientError> {
        let call = Call::new(Method::POST, &["v1", "catalog", "models"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// One model. Conditional as the list.
    ///
    /// `GET /v1/catalog/models/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_model(&self, id: &api_types::ModelId) -> Result<api_types::CatalogRecord, ClientError> {
        let call = Call::new(Method::GET, &["v1", "catalog", "models", &id.to_string()]);
        self.receive(&call).await
    }

    /// Forget a model and remove its files from the models' folder; files elsewhere are the operator's and stay.
    ///
    /// `DELETE /v1/catalog/models/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn delete_model(&self, id: &api_types::ModelId) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, &["v1", "catalog", "models", &id.to_string()]);
        self.receive_nothing(&call).await
    }

    /// The work under way on a model, or the last that ended.
    ///
    /// `GET /v1/catalog/models/{id}/job`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_model_job(&self, id: &api_types::ModelId) -> Result<api_types::ModelJob, ClientError> {
        let call = Call::new(Method::GET, &["v1", "catalog", "models", &id.to_string(), "job"]);
        self.receive(&call).await
    }

    /// Cancel the work under way on a model. What was fetched is kept.
    ///
    /// `DELETE /v1/catalog/models/{id}/job`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn cancel_model_job(&self, id: &api_types::ModelId) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, &["v1", "catalog", "models", &id.to_string(), "job"]);
        self.receive_nothing(&call).await
    }

    /// Fetch a model that the outbound policy lets be fetched. Runs as a job; asking again goes on where it was cut.
    ///
    /// `POST /v1/catalog/models/{id}/pull`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn pull_model(&self, id: &api_types::ModelId, body: &api_types::PullRequest) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "catalog", "models", &id.to_string(), "pull"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// Retire a model or take it back.
    ///
    /// `POST /v1/catalog/models/{id}/state`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn set_model_state(&self, id: &api_types::ModelId, body: &api_types::CatalogStateChange) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "catalog", "models", &id.to_string(), "state"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// Read a model's files again and compare them with its digest; check its signatures. Runs as a job.
    ///
    /// `POST /v1/catalog/models/{id}/verify`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn verify_model(&self, id: &api_types::ModelId) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "catalog", "models", &id.to_string(), "verify"]).repeatable();
        self.receive(&call).await
    }

    /// The GPUs of this host, and who uses them.
    ///
    /// `GET /v1/devices`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_devices(&self) -> Result<api_types::DeviceList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "devices"]);
        self.receive(&call).await
    }

    /// The engines that were built, pulled or downloaded here.
    ///
    /// `GET /v1/engines`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_engines(&self) -> Result<api_types::EngineList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "engines"]);
        self.receive(&call).await
    }

    /// Remove an engine and its files. One that a pool uses is kept.
    ///
    /// `DELETE /v1/engines/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn delete_engine(&self, id: &api_types::EngineId) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, &["v1", "engines", &id.to_string()]);
        self.receive_nothing(&call).await
    }

    /// This contract: both planes in one document.
    ///
    /// `GET /v1/openapi.json`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_openapi(&self) -> Result<serde_json::Value, ClientError> {
        let call = Call::new(Method::GET, &["v1", "openapi.json"]);
        self.receive(&call).await
    }

    /// All pools with health, slots, queue and memory.
    ///
    /// `GET /v1/pools`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_pools(&self) -> Result<api_types::PoolList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "pools"]);
        self.receive(&call).await
    }

    /// Stop giving a pool tasks, and let those that run come to their end.
    ///
    /// `POST /v1/pools/{id}/drain`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn drain_pool(&self, id: &api_types::PoolId, body: &api_types::DrainRequest) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "pools", &id.to_string(), "drain"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// Health of one pool.
    ///
    /// `GET /v1/pools/{id}/health`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_pool_health(&self, id: &api_types::PoolId) -> Result<api_types::PoolHealth, ClientError> {
        let call = Call::new(Method::GET, &["v1", "pools", &id.to_string(), "health"]);
        self.receive(&call).await
    }

    /// What preparing a pool's engine takes. Nothing of it is done.
    ///
    /// `GET /v1/pools/{id}/plan`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_pool_plan(&self, id: &api_types::PoolId) -> Result<api_types::EnginePlan, ClientError> {
        let call = Call::new(Method::GET, &["v1", "pools", &id.to_string(), "plan"]);
        self.receive(&call).await
    }

    /// Serve another model on a managed pool.
    ///
    /// `POST /v1/pools/{id}/reload`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn reload_pool(&self, id: &api_types::PoolId, body: &api_types::ReloadRequest) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "pools", &id.to_string(), "reload"]).json(body);
        self.receive(&call).await
    }

    /// Start a pool that is stopped, drained or resting after failures.
    ///
    /// `POST /v1/pools/{id}/start`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn start_pool(&self, id: &api_types::PoolId) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "pools", &id.to_string(), "start"]).repeatable();
        self.receive(&call).await
    }

    /// Drain a managed pool and stop its engine.
    ///
    /// `POST /v1/pools/{id}/stop`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn stop_pool(&self, id: &api_types::PoolId, body: &api_types::StopRequest) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "pools", &id.to_string(), "stop"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// Unload a managed pool's engine as soon as nothing runs on it; a task that asks for it has it loaded again.
    ///
    /// `POST /v1/pools/{id}/unload`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn unload_pool(&self, id: &api_types::PoolId) -> Result<api_types::AcceptedStatus, ClientError> {
        let call = Call::new(Method::POST, &["v1", "pools", &id.to_string(), "unload"]).repeatable();
        self.receive(&call).await
    }

    /// A session's remaining life and budgets.
    ///
    /// `GET /v1/sessions/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_session(&self, id: api_types::SessionId) -> Result<api_types::SessionInfo, ClientError> {
        let call = Call::new(Method::GET, &["v1", "sessions", &id.to_string()]);
        self.receive(&call).await
    }

    /// End a session; ending one that is gone changes nothing.
    ///
    /// `DELETE /v1/sessions/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn delete_session(&self, id: api_types::SessionId) -> Result<(), ClientError> {
        let call = Call::new(Method::DELETE, &["v1", "sessions", &id.to_string()]);
        self.receive_nothing(&call).await
    }

    /// Tasks, newest first, page by page.
    ///
    /// `GET /v1/tasks`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_tasks(&self, query: &api_types::TaskQuery) -> Result<api_types::TaskList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "tasks"]).query(query);
        self.receive(&call).await
    }

    /// Submit a task.
    ///
    /// `POST /v1/tasks`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn submit_task(&self, body: &api_types::TaskRequest) -> Result<api_types::AdmissionResponse, ClientError> {
        let call = Call::new(Method::POST, &["v1", "tasks"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// One task: its state, where it was placed and why, its times and counts.
    ///
    /// `GET /v1/tasks/{id}`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn get_task(&self, id: api_types::TaskId) -> Result<api_types::TaskSummary, ClientError> {
        let call = Call::new(Method::GET, &["v1", "tasks", &id.to_string()]);
        self.receive(&call).await
    }

    /// Cancel a task. No token follows the answer; canceling twice or after the end changes nothing.
    ///
    /// `POST /v1/tasks/{id}/cancel`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn cancel_task(&self, id: api_types::TaskId) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, &["v1", "tasks", &id.to_string(), "cancel"]).repeatable();
        self.receive_nothing(&call).await
    }

    /// The other hosts that run pools of this server.
    ///
    /// `GET /v1/workers`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn list_workers(&self) -> Result<api_types::WorkerList, ClientError> {
        let call = Call::new(Method::GET, &["v1", "workers"]);
        self.receive(&call).await
    }

    /// A worker makes itself known.
    ///
    /// `POST /v1/workers/register`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn register_worker(&self, body: &api_types::WorkerRegistration) -> Result<api_types::WorkerRegistered, ClientError> {
        let call = Call::new(Method::POST, &["v1", "workers", "register"]).repeatable().json(body);
        self.receive(&call).await
    }

    /// A host tells how its pools stand, and is told what to do. Wants the server's token also on loopback.
    ///
    /// `POST /v1/workers/{id}/heartbeat`
    ///
    /// # Errors
    /// [`ClientError`], as for every call.
    pub async fn worker_heartbeat(&self, id: &api_types::WorkerId, body: &api_types::Heartbeat) -> Result<api_types::HeartbeatAnswer, ClientError> {
        let call = Call::new(Method::POST, &["v1", "workers", &id.to_string(), "heartbeat"]).repeatable().json(body);
        self.receive(&call).await
    }
}
