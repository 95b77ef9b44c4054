//! Generated from contracts/api-types by `cargo xtask regen-openapi`. Do not edit.

use reqwest::Method;

use crate::call::Call;
use crate::{Client, ClientError};

/// Operations that have a method here.
pub(crate) const OPERATIONS: &[&str] = &[
    "get_healthz",
    "get_metrics",
    "get_capabilities",
    "get_openapi",
    "list_pools",
    "get_pool_health",
    "get_session",
    "delete_session",
    "list_tasks",
    "submit_task",
    "get_task",
    "cancel_task",
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
}
