//! Data plane routes.

#![expect(dead_code, reason = "documentation only: utoipa reads the attributes")]

use utoipa::OpenApi;

use super::common::{
    Backpressure, BackpressureErrorEnvelope, Conflict, Guarded, Invalid, NotFound, Shared, TaskStream, Unavailable,
};
use crate::{
    AdmissionResponse, Artifact, ArtifactId, ArtifactList, ArtifactQuery, ArtifactRecord, ArtifactRef, SessionId,
    SessionInfo, TaskId, TaskList, TaskQuery, TaskRequest, TaskSummary, sse,
};

/// The data plane's document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "OrchQueue v1, data plane",
        version = "1.0.0",
        description = "Submit tasks, stream their tokens, cancel them, look at sessions.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "http://127.0.0.1:8080", description = "Default address")),
    paths(
        submit_task, list_tasks, get_task, stream_task, cancel_task, get_session, delete_session, create_artifact,
        list_artifacts, get_artifact, download_artifact, delete_artifact
    ),
    components(schemas(
        TaskId,
        SessionId,
        sse::EventName,
        sse::StartedFrame,
        sse::TokenFrame,
        sse::MetricsFrame,
        sse::NarrationFrame,
        sse::EndFrame,
        sse::ErrorFrame,
        crate::AuthErrorEnvelope,
        crate::ErrorEnvelope,
        BackpressureErrorEnvelope,
        crate::ArtifactId,
        crate::ProofBundle,
    )),
    modifiers(&Shared),
    tags(
        (name = "tasks", description = "Work for an engine"),
        (name = "artifacts", description = "Documents that are kept, and the record that every task leaves"),
        (name = "sessions", description = "What tasks of one client share: turns, budgets, warm caches"),
    ),
)]
pub(super) struct Document;

/// Submit a task.
///
/// With `Accept: text/event-stream` the answer is the task's stream, in the same round trip; a refusal keeps its HTTP
/// status either way. The same `task_id` with the same body is a safe retry.
#[utoipa::path(
    post, path = "/v1/tasks", tag = "tasks",
    request_body = TaskRequest,
    responses(
        (status = 202, description = "Admitted", body = AdmissionResponse),
        (status = 200, description = "Admitted; the stream follows", body = TaskStream, content_type = "text/event-stream"),
        Invalid, Guarded, Conflict, Backpressure, Unavailable,
    ),
    extensions(("x-examples" = json!({
        "good": [
            {"summary": "a completion", "status": 202, "request": {
                "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
                "workload": "completion", "model_ref": "hf:org/repo/file.gguf", "engine": "llamacpp", "ctx": 4096,
                "priority": "interactive", "max_tokens": 128, "deadline_ms": 60000, "seed": 42,
                "prompt": "Write a haiku about queues."},
             "response": {"task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "queue_position": 2, "predicted_start_ms": 1800, "backoff_ms": 0,
                "tokens_budget_remaining": null, "time_budget_remaining_ms": null, "cost_budget_remaining": null}},
            {"summary": "a chat on one pool", "status": 202, "request": {
                "task_id": "0d2c6f5a-3f0e-4f64-8a55-54c6a1b0f7d2", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
                "workload": "completion", "model_ref": "hf:org/repo/file.gguf", "engine": "llamacpp", "ctx": 4096,
                "priority": "batch", "max_tokens": 64, "deadline_ms": 600000,
                "messages": [{"role": "user", "content": "Name one fruit."}],
                "sampling": {"temperature": 0.0}, "placement": {"mode": "pin", "pin_pool_id": "gpu0"}},
             "response": {"task_id": "0d2c6f5a-3f0e-4f64-8a55-54c6a1b0f7d2", "queue_position": 0, "predicted_start_ms": 0, "backoff_ms": 0,
                "tokens_budget_remaining": null, "time_budget_remaining_ms": null, "cost_budget_remaining": null}}
        ],
        "bad": [
            {"summary": "a misspelt field", "status": 400, "request": {
                "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
                "workload": "completion", "model_ref": "m", "engine": "llamacpp", "ctx": 4096,
                "priority": "interactive", "max_token": 128, "deadline_ms": 60000, "prompt": "x"},
             "response": {"code": "INVALID_PARAMS", "message": "unknown field `max_token`; did you mean `max_tokens`?", "retriable": false}},
            {"summary": "an engine that does not exist", "status": 400, "request": {
                "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
                "workload": "completion", "model_ref": "m", "engine": "llama", "ctx": 4096,
                "priority": "interactive", "max_tokens": 128, "deadline_ms": 60000, "prompt": "x"},
             "response": {"code": "INVALID_PARAMS", "message": "engine: unknown variant `llama`; did you mean `llamacpp`?", "retriable": false}}
        ]
    })))
)]
fn submit_task() {}

/// Tasks, newest first, page by page.
#[utoipa::path(
    get, path = "/v1/tasks", tag = "tasks",
    params(TaskQuery),
    responses((status = 200, description = "The tasks", body = TaskList), Invalid, Guarded),
    extensions(("x-examples" = json!({
        "good": [
            {"summary": "nothing yet", "status": 200, "response": {"tasks": []}},
            {"summary": "the two newest that failed", "status": 200, "query": "limit=2&state=failed,expired",
             "response": {"tasks": [{
                "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "correlation_id": "f3b8f5f0-38a6-4d4b-8f0e-7d5b6d0b4c11",
                "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b", "state": "expired", "workload": "completion",
                "model_ref": "hf:org/repo/file.gguf", "engine": "llamacpp", "priority": "batch", "seed": 42,
                "deadline_ms": 60000, "max_tokens": 128, "attempts": 1, "pool_id": "gpu0", "predicted_start_ms": 0,
                "admitted_at_ms": 1760000000000_i64, "ended_at_ms": 1760000060000_i64}],
              "next_cursor": "MTc2MDAwMDAwMDAwMA"}}],
        "bad": [
            {"summary": "a limit that is too large", "status": 400, "query": "limit=5000", "response": {
                "code": "INVALID_PARAMS", "message": "`limit` is a number from 1 to 1000", "retriable": false}},
            {"summary": "a state that does not exist", "status": 400, "query": "state=done", "response": {
                "code": "INVALID_PARAMS", "message": "unknown variant `done`", "retriable": false}},
            {"summary": "no token", "status": 401, "response": {
            "code": 40101, "message": "MISSING_TOKEN: this server wants a bearer token", "hint": "send `Authorization: Bearer <token>`"}}]
    })))
)]
fn list_tasks() {}

/// One task: its state, where it was placed and why, its times and counts.
#[utoipa::path(
    get, path = "/v1/tasks/{id}", tag = "tasks",
    params(("id" = TaskId, Path, description = "The task")),
    responses((status = 200, description = "The task", body = TaskSummary), Invalid, NotFound, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "a finished task", "status": 200, "response": {
            "task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "correlation_id": "f3b8f5f0-38a6-4d4b-8f0e-7d5b6d0b4c11",
            "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b", "state": "completed", "workload": "completion",
            "model_ref": "hf:org/repo/file.gguf", "engine": "llamacpp", "priority": "interactive", "seed": 42,
            "deadline_ms": 60000, "max_tokens": 128, "input_tokens": {"tokens": 12, "source": "exact"}, "attempts": 1,
            "pool_id": "gpu1", "predicted_start_ms": 0, "on_time_probability": 0.99,
            "admitted_at_ms": 1760000000000_i64, "tokens_out": 128,
            "placement": {"selected_pool_id": "gpu0", "candidates_considered": 3, "filters_applied": ["ctx_too_small"],
                "tie_breakers_applied": ["predicted_end"], "pinned": false, "fallback_used": false,
                "excluded": [{"pool_id": "gpu2", "reason": "ctx_too_small"}],
                "outranked": [{"pool_id": "gpu1", "by": "predicted_end"}], "predicted_end_ms": 2300},
            "moves": [{"at_ms": 1760000000400_i64, "from": "gpu0", "to": "gpu1", "reason": "idle"}]}}],
        "bad": [{"summary": "forgotten or never seen", "status": 404, "response": {
            "code": "NOT_FOUND", "message": "no such task; finished tasks are kept for 600000 ms", "retriable": false}}]
    })))
)]
fn get_task() {}

/// The task's stream, from its beginning or from where a reader was cut off. That of a task that has ended is replayed for
/// as long as its artifact is kept.
#[utoipa::path(
    get, path = "/v1/tasks/{id}/stream", tag = "tasks",
    params(
        ("id" = TaskId, Path, description = "The task"),
        ("Last-Event-ID" = Option<u64>, Header, description = "`id:` of the last event received; the stream goes on after it."),
    ),
    responses(
        (status = 200, description = "The stream", body = TaskStream, content_type = "text/event-stream"),
        Invalid, NotFound, Guarded, Unavailable,
    ),
    extensions(("x-examples" = json!({
        "good": [{"summary": "resumed after event 7", "status": 200, "headers": {"Last-Event-ID": "7"},
            "frames": [{"id": 8, "event": "token", "data": {"t": " Paris", "i": 5}},
                       {"id": 9, "event": "end", "data": {"tokens_out": 6, "decode_time_ms": 80, "decode_ms": 80}}]}],
        "bad": [
            {"summary": "an engine that died in the middle", "status": 200, "frames": [
                {"id": 3, "event": "error", "data": {"code": "WORKER_RESET", "message": "the engine closed the connection in the middle of the answer", "retriable": false}}]},
            {"summary": "no such task", "status": 404, "response": {
                "code": "NOT_FOUND", "message": "no such task; finished tasks are kept for 600000 ms", "retriable": false}}]
    })))
)]
fn stream_task() {}

/// Cancel a task. No token follows the answer; canceling twice or after the end changes nothing.
#[utoipa::path(
    post, path = "/v1/tasks/{id}/cancel", tag = "tasks",
    params(("id" = TaskId, Path, description = "The task")),
    responses((status = 204, description = "Canceled, or ended before"), Invalid, NotFound, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "canceled", "status": 204}],
        "bad": [{"summary": "no such task", "status": 404, "response": {
            "code": "NOT_FOUND", "message": "no such task; finished tasks are kept for 600000 ms", "retriable": false}}]
    })))
)]
fn cancel_task() {}

/// A session's remaining life and budgets.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")),
    responses((status = 200, description = "The session", body = SessionInfo), Invalid, NotFound, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "a warm session", "status": 200, "response": {
            "ttl_ms_remaining": 540000, "turns": 3, "kv_bytes": 0, "kv_warmth": true}}],
        "bad": [{"summary": "expired", "status": 404, "response": {
            "code": "NOT_FOUND", "message": "no such session; it begins with its first task", "retriable": false}}]
    })))
)]
fn get_session() {}

/// End a session; ending one that is gone changes nothing.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", tag = "sessions",
    params(("id" = SessionId, Path, description = "The session")),
    responses((status = 204, description = "Gone"), Invalid, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "ended, or gone before", "status": 204}],
        "bad": [{"summary": "not a UUID", "status": 400, "response": {
            "code": "INVALID_PARAMS", "message": "the session id is not a UUID", "retriable": false}}]
    })))
)]
fn delete_session() {}

/// Keep a document. Equal documents have one id, and keeping one again changes nothing.
#[utoipa::path(
    post, path = "/v1/artifacts", tag = "artifacts",
    request_body = Artifact,
    responses((status = 201, description = "Kept", body = ArtifactRef), Invalid, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "a plan", "status": 201, "request": {
            "kind": "plan", "content": {"steps": ["read", "write"]}, "tags": ["agent:builder"]},
            "response": {"id": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "kind": "plan",
                "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "created_ms": 1760000000000_i64,
                "tags": ["agent:builder"], "download_url": "http://127.0.0.1:8080/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08/download"}}],
        "bad": [
            {"summary": "a kind that does not exist", "status": 400, "request": {"kind": "note", "content": {}},
             "response": {"code": "INVALID_PARAMS", "message": "kind: unknown variant `note`", "retriable": false}},
            {"summary": "a parent that is not kept", "status": 400,
             "response": {"code": "INVALID_PARAMS", "message": "parent: no artifact 00 is kept", "retriable": false}}]
    })))
)]
fn create_artifact() {}

/// Artifacts, newest first, page by page.
#[utoipa::path(
    get, path = "/v1/artifacts", tag = "artifacts",
    params(ArtifactQuery),
    responses((status = 200, description = "The artifacts", body = ArtifactList), Invalid, Guarded),
    extensions(("x-examples" = json!({
        "good": [
            {"summary": "nothing yet", "status": 200, "response": {"artifacts": []}},
            {"summary": "the newest plan", "status": 200, "query": "kind=plan&tag=agent:builder&limit=1",
             "response": {"artifacts": [{"id": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "kind": "plan",
                "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "created_ms": 1760000000000_i64,
                "tags": ["agent:builder"], "download_url": "http://127.0.0.1:8080/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08/download"}], "next_cursor": "2a"}}],
        "bad": [{"summary": "a limit that is too large", "status": 400, "query": "limit=5000", "response": {
            "code": "INVALID_PARAMS", "message": "`limit` is a number from 1 to 1000", "retriable": false}}]
    })))
)]
fn list_artifacts() {}

/// One artifact with its lineage. What task left which: tag `task:<id>`.
#[utoipa::path(
    get, path = "/v1/artifacts/{id}", tag = "artifacts",
    params(("id" = ArtifactId, Path, description = "The artifact")),
    responses((status = 200, description = "The artifact", body = ArtifactRecord), NotFound, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "a plan that a diff was made from", "status": 200, "response": {
                "id": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "kind": "plan",
                "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", "created_ms": 1760000000000_i64,
                "tags": ["agent:builder"], "download_url": "http://127.0.0.1:8080/v1/artifacts/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08/download",
                "content": {"steps": ["read", "write"]}, "ancestors": [],
                "children": ["60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"]}}],
        "bad": [{"summary": "never kept, or removed", "status": 404, "response": {
            "code": "NOT_FOUND", "message": "no artifact 00 is kept; it never was, or it was removed", "retriable": false}}]
    })))
)]
fn get_artifact() {}

/// An artifact's canonical JSON, byte for byte what its id is the digest of. Takes `Range`.
#[utoipa::path(
    get, path = "/v1/artifacts/{id}/download", tag = "artifacts",
    params(("id" = ArtifactId, Path, description = "The artifact")),
    responses(
        (status = 200, description = "All of it", body = Artifact),
        (status = 206, description = "The range asked for", body = String, content_type = "application/octet-stream"),
        (status = 304, description = "The caller has it: `If-None-Match` names its digest"),
        (status = 416, description = "There is no such range"),
        NotFound, Guarded,
    ),
    extensions(("x-examples" = json!({
        "good": [
            {"summary": "all of it", "status": 200, "response": {
                "content": {"steps": ["read", "write"]}, "kind": "plan", "tags": ["agent:builder"]}},
            {"summary": "its first bytes", "status": 206, "headers": {"Range": "bytes=0-9"}, "response": "{\"content\""}],
        "bad": [{"summary": "never kept, or removed", "status": 404, "response": {
            "code": "NOT_FOUND", "message": "no artifact 00 is kept; it never was, or it was removed", "retriable": false}}]
    })))
)]
fn download_artifact() {}

/// Remove an artifact, such as one with a prompt that must not be kept.
#[utoipa::path(
    delete, path = "/v1/artifacts/{id}", tag = "artifacts",
    params(("id" = ArtifactId, Path, description = "The artifact")),
    responses((status = 204, description = "It is gone"), NotFound, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "removed", "status": 204}],
        "bad": [{"summary": "never kept, or removed", "status": 404, "response": {
            "code": "NOT_FOUND", "message": "no artifact 00 is kept; it never was, or it was removed", "retriable": false}}]
    })))
)]
fn delete_artifact() {}
