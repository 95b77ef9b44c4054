//! `/v1/tasks`: submit, look, follow, cancel.

use std::sync::Arc;

use api_types::{ErrorEnvelope, ErrorKind, TaskId, TaskList, TaskRequest, TaskState};
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;

use super::{body, respond, stream};
use crate::app::App;
use crate::task::{Caller, CancelReason, Task};

const DEFAULT_LIST: usize = 100;
const LONGEST_LIST: usize = 1000;

/// `POST /v1/tasks`: 202 with the admission, or the stream itself where the client accepts it.
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    version: Version,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let limit = app.config.server.max_body_bytes.get();
    let request: TaskRequest = match body::json(body, &headers, limit).await {
        Ok(request) => request,
        Err(refusal) => return respond::error(refusal),
    };
    let wants_stream = body::wants_stream(&headers);
    match app.admit(request, caller, wants_stream) {
        Ok(task) if wants_stream => stream::response(&app, &task, None, version),
        Ok(task) => (StatusCode::ACCEPTED, Json(&task.born().admission)).into_response(),
        Err(refusal) => respond::error(refusal),
    }
}

/// Query of `GET /v1/tasks`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
}

/// `GET /v1/tasks`: the newest first.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let limit = match query {
        Ok(Query(query)) => query.limit.unwrap_or(DEFAULT_LIST),
        Err(_) => {
            return respond::failure(ErrorKind::InvalidParams, "the query takes `limit`, a number, and nothing else");
        }
    };
    if !(1..=LONGEST_LIST).contains(&limit) {
        return respond::failure(ErrorKind::InvalidParams, format!("`limit` is a number from 1 to {LONGEST_LIST}"));
    }
    let tasks = app.tasks.newest(limit).iter().map(|task| summary(&app, task)).collect();
    Json(TaskList { tasks }).into_response()
}

/// `GET /v1/tasks/{id}`.
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    match find(&app, &id) {
        Ok(task) => Json(summary(&app, &task)).into_response(),
        Err(refusal) => respond::error(refusal),
    }
}

/// `GET /v1/tasks/{id}/stream`.
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    version: Version,
    headers: HeaderMap,
) -> Response {
    match find(&app, &id).and_then(|task| Ok((task, body::last_event_id(&headers)?))) {
        Ok((task, after)) => stream::response(&app, &task, after, version),
        Err(refusal) => respond::error(refusal),
    }
}

/// `POST /v1/tasks/{id}/cancel`: 204 for every known task, whatever its state.
pub(super) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    match find(&app, &id) {
        Ok(task) => {
            app.cancel(&task, CancelReason::Client);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => respond::error(refusal),
    }
}

fn find(app: &App, id: &str) -> Result<Arc<Task>, ErrorEnvelope> {
    let id: TaskId = body::id(id, "task")?;
    app.tasks.get(id).ok_or_else(|| {
        ErrorEnvelope::new(
            ErrorKind::NotFound,
            format!("no task {id} is known; it was never submitted here, or it ended too long ago"),
        )
    })
}

fn summary(app: &App, task: &Task) -> api_types::TaskSummary {
    let position = (task.state() == TaskState::Queued).then(|| app.scheduler().queue_position(task.id())).flatten();
    task.summary(&app.clock, position)
}
