//! `/v1/workers`: other hosts, and engines that announce themselves. The gate has seen the token of all but the list.

use std::sync::Arc;

use api_types::strict::from_json;
use api_types::{
    EngineRegistration, ErrorEnvelope, ErrorKind, Heartbeat, HostRegistration, Registered, WorkerId, WorkerRegistered,
};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde_json::Value;

use super::gate::Peer;
use super::{body, respond};
use crate::app::App;
use crate::pools::managed::DaemonHost;

/// `GET /v1/workers`.
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    Json(app.workers.list()).into_response()
}

/// `POST /v1/workers/register`.
pub(super) async fn register(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond::result(registered(&app, peer, &headers, body).await)
}

async fn registered(app: &Arc<App>, peer: Peer, headers: &HeaderMap, body: Body) -> Result<Response, ErrorEnvelope> {
    let registration: Value = body::json(body, headers, &app.config.server).await?;
    let text = registration.to_string();
    let terms = if registration.get("worker_id").is_some() {
        let host: HostRegistration = from_json(text.as_bytes()).map_err(|error| body::unfit(&error))?;
        if app.is_stopping() {
            return Err(crate::app::stopping());
        }
        let worker = app.workers.get(&host.worker_id)?;
        Some(worker.register(app, &DaemonHost::new(Arc::clone(app)), host, peer.addr.ip())?)
    } else {
        let engine: EngineRegistration = from_json(text.as_bytes()).map_err(|error| body::unfit(&error))?;
        app.register_engine(&engine)?;
        None
    };
    Ok(Json(WorkerRegistered { status: Registered::Ok, terms }).into_response())
}

/// `POST /v1/workers/{id}/heartbeat`.
pub(super) async fn heartbeat(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond::result(beaten(&app, id, &headers, body).await)
}

async fn beaten(app: &Arc<App>, id: String, headers: &HeaderMap, body: Body) -> Result<Response, ErrorEnvelope> {
    let beat: Heartbeat = body::json(body, headers, &app.config.server).await?;
    if app.is_stopping() {
        // Its pools go on without us.
        return Err(ErrorEnvelope::new(
            ErrorKind::NotFound,
            "the orchestrator is stopping; register again when it is back",
        ));
    }
    let worker = app.workers.get(&WorkerId::from(id))?;
    let answer = worker.heartbeat(app, &DaemonHost::new(Arc::clone(app)), beat).await?;
    Ok(Json(answer).into_response())
}
