//! `/v1/tasks`: submit, look, follow, cancel.

use std::sync::Arc;

use api_types::{AdmissionResponse, ErrorEnvelope, ErrorKind, TaskId, TaskQuery, TaskRequest};
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;

use super::{body, respond, stream};
use crate::admission::Admitted;
use crate::app::App;
use crate::artifacts;
use crate::history;
use crate::task::{Caller, CancelReason};

const STREAM_GONE: &str = "the task has ended and its stream is no longer kept; GET /v1/tasks/{id} says how it went";

/// `POST /v1/tasks`: 202 with the admission, or the stream itself where the client accepts it.
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    version: Version,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let request: TaskRequest = match body::json(body, &headers, &app.config.server).await {
        Ok(request) => request,
        Err(refusal) => return respond::error(refusal),
    };
    let wants_stream = body::wants_stream(&headers);
    match app.admit(request, caller, wants_stream).await {
        Ok(Admitted::Task(task)) if wants_stream => stream::response(&app, &task, None, version),
        Ok(Admitted::Task(task)) => accepted(&task.born().admission),
        Ok(Admitted::Earlier(admission)) if !wants_stream => accepted(&admission),
        Ok(Admitted::Earlier(admission)) => match replay(&app, admission.task_id, None).await {
            Ok(frames) => stream::replayed(frames, version),
            Err(refusal) => respond::error(refusal),
        },
        Err(refusal) => respond::error(refusal),
    }
}

fn accepted(admission: &AdmissionResponse) -> Response {
    let mut response = (StatusCode::ACCEPTED, Json(admission)).into_response();
    respond::budgets(response.headers_mut(), admission);
    response
}

/// `GET /v1/tasks`: the newest first.
pub(super) async fn list(State(app): State<Arc<App>>, query: body::Asked<TaskQuery>) -> Response {
    let listed = match body::query(query) {
        Ok(query) => history::list(&app, query).await,
        Err(refusal) => Err(refusal),
    };
    respond::result(listed.map(|list| Json(list).into_response()))
}

/// `GET /v1/tasks/{id}`.
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let found = match body::id(&id, "task") {
        Ok(id) => history::find(&app, id).await,
        Err(refusal) => Err(refusal),
    };
    match found {
        Ok(summary) => Json(summary).into_response(),
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
    let asked = body::id(&id, "task").and_then(|id| Ok((id, body::last_event_id(&headers)?)));
    let (id, after) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return respond::error(refusal),
    };
    if let Some(task) = app.tasks.get(id) {
        return stream::response(&app, &task, after, version);
    }
    match replay(&app, id, after).await {
        Ok(frames) => stream::replayed(frames, version),
        Err(refusal) => respond::error(refusal),
    }
}

/// `POST /v1/tasks/{id}/cancel`: 204 for every known task, whatever its state. A journaled task is out of the journal then,
/// so that it can never run again.
pub(super) async fn cancel(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let canceled = match body::id::<TaskId>(&id, "task") {
        Ok(id) => match app.tasks.get(id) {
            Some(task) => {
                app.cancel(&task, CancelReason::Client);
                task.published().await;
                Ok(())
            }
            None => history::find(&app, id).await.map(drop),
        },
        Err(refusal) => Err(refusal),
    };
    match canceled {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => respond::error(refusal),
    }
}

/// The stream of a task that is not in memory any more, from its artifact.
async fn replay(app: &Arc<App>, id: TaskId, after: Option<u32>) -> Result<Bytes, ErrorEnvelope> {
    if let Some(kept) = artifacts::stream(app, id).await? {
        return kept.after(after).map_err(stream::gone);
    }
    history::find(app, id).await?;
    Err(ErrorEnvelope::new(ErrorKind::NotFound, STREAM_GONE))
}
