//! `/v1/sessions`.

use std::sync::Arc;

use api_types::{ErrorKind, SessionId, SessionInfo};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use super::{body, respond};
use crate::app::App;
use crate::wire::{int, long};

/// `GET /v1/sessions/{id}`.
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let id: SessionId = match body::id(&id, "session") {
        Ok(id) => id,
        Err(refusal) => return respond::error(refusal),
    };
    match app.sessions().get(id, app.clock.now_ms()) {
        Some(session) => Json(SessionInfo {
            ttl_ms_remaining: long(session.ttl_ms_remaining),
            turns: int(session.turns),
            kv_bytes: 0,
            kv_warmth: session.kv_warmth,
            tokens_budget_remaining: session.budgets.tokens_remaining.map(long),
            time_budget_remaining_ms: session.budgets.time_remaining_ms.map(long),
            cost_budget_remaining: session.budgets.cost_remaining,
        })
        .into_response(),
        None => respond::failure(
            ErrorKind::NotFound,
            format!("no session {id} is alive; submit a task with this session_id to begin it"),
        ),
    }
}

/// `DELETE /v1/sessions/{id}`: 204 even if it is gone (ORCH-2005).
pub(super) async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    match body::id::<SessionId>(&id, "session") {
        Ok(id) => {
            app.sessions().delete(id);
            app.sweep_parked();
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => respond::error(refusal),
    }
}
