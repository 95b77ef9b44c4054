//! Control plane routes.

#![expect(dead_code, reason = "documentation only: utoipa reads the attributes")]

use utoipa::OpenApi;

use super::common::{BackpressureErrorEnvelope, Conflict, EventFeed, Guarded, Invalid, NotFound, Shared};
use crate::pool::{DrainRequest, Readiness, ReloadRequest, StopRequest};
use crate::worker::{Heartbeat, HeartbeatAnswer, WorkerList, WorkerRegistered, WorkerRegistration};
use crate::{
    AcceptedStatus, Capabilities, CatalogList, CatalogModel, CatalogQuery, CatalogRecord, CatalogStateChange,
    DeviceList, EngineId, EngineList, EnginePlan, FeedQuery, FitQuery, FitReport, GcReport, GcRequest, LogQuery,
    ModelId, ModelJob, PoolHealth, PoolId, PoolList, PullRequest, WorkerId, events,
};

/// The control plane's document.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "OrchQueue v1, control plane",
        version = "1.0.0",
        description = "What the server can do and how its pools fare.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0")
    ),
    servers((url = "http://127.0.0.1:8080", description = "Default address")),
    paths(
        get_capabilities, list_pools, get_pool_health, drain_pool, reload_pool, start_pool, stop_pool, unload_pool, get_pool_plan,
        get_pool_logs, list_engines, delete_engine, list_devices, create_model, list_models, get_model, delete_model, verify_model,
        set_model_state, pull_model, get_model_job, cancel_model_job, fit_model, collect_models, watch_events, get_metrics,
        get_healthz, get_readyz, get_openapi, list_workers, register_worker, worker_heartbeat
    ),
    components(schemas(
        PoolId,
        ModelId,
        EngineId,
        crate::AuthErrorEnvelope,
        crate::ErrorEnvelope,
        BackpressureErrorEnvelope,
        crate::TaskSummary,
        crate::PoolStatus,
        events::FeedEvent,
        events::ModelChange,
        events::FeedGap,
        crate::WorkerId,
        crate::worker::HostRegistration,
        crate::worker::EngineRegistration,
    )),
    modifiers(&Shared),
    tags(
        (name = "pools", description = "Engines and what they can do"),
        (name = "workers", description = "Other hosts, and engines that announce themselves"),
        (name = "engines", description = "Engines that were prepared here, and the GPUs they run on"),
        (name = "catalog", description = "Models: where they come from, what they must be, whether tasks may use them"),
        (name = "server", description = "The server itself"),
    ),
)]
pub(super) struct Document;

/// What each pool can do, as its engine reports it.
#[utoipa::path(
    get, path = "/v1/capabilities", tag = "pools",
    responses((status = 200, description = "One entry per pool", body = Capabilities), Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "one pool", "status": 200, "response": {"api_version": "1.0.0", "engines": [{
            "engine": "llamacpp", "engine_version": "b6891", "sampler_profile_version": "v1", "ctx_max": 8192,
            "max_tokens_out": 8191, "concurrency": 2, "supported_workloads": ["completion", "embedding"],
            "pool_id": "gpu0", "model_ref": "hf:org/repo/file.gguf", "slots_total": 2, "ready": true,
            "rate_limits": {}, "features": {}}]}}],
        "bad": [{"summary": "wrong token", "status": 401, "response": {
            "code": 40102, "message": "BAD_TOKEN: this is not the server's token", "hint": "check AUTH_TOKEN on both sides"}}]
    })))
)]
fn get_capabilities() {}

/// All pools with health, slots, queue and memory.
#[utoipa::path(
    get, path = "/v1/pools", tag = "pools",
    responses((status = 200, description = "The pools, in configuration order", body = PoolList), Guarded)
)]
fn list_pools() {}

/// Health of one pool.
#[utoipa::path(
    get, path = "/v1/pools/{id}/health", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    responses((status = 200, description = "Its health", body = PoolHealth), NotFound, Guarded)
)]
fn get_pool_health() {}

/// Stop giving a pool tasks, and let those that run come to their end.
///
/// Waiting tasks go to other pools, or wait. At the deadline what still runs ends with a typed error. The engine stays up;
/// `start` lets it take tasks again, and a managed one is stopped by `stop`.
#[utoipa::path(
    post, path = "/v1/pools/{id}/drain", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    request_body = DrainRequest,
    responses((status = 202, description = "It drains", body = AcceptedStatus), Invalid, NotFound, Conflict, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "a minute for what runs", "status": 202, "request": {"deadline_ms": 60000},
                  "response": {"status": "accepted"}}],
        "bad": [{"summary": "a deadline in the past", "status": 400, "request": {"deadline_ms": -1}, "response": {
            "code": "INVALID_PARAMS", "message": "deadline_ms is a time from now, 0 or more", "retriable": false}}]
    })))
)]
fn drain_pool() {}

/// Serve another model on a managed pool.
///
/// The new model is fetched and checked while the old one serves; then the running tasks come to their end, and the engine is
/// started with the new model. If that fails the old one is brought back. How it stands is in the pool's health.
#[utoipa::path(
    post, path = "/v1/pools/{id}/reload", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    request_body = ReloadRequest,
    responses((status = 202, description = "It is under way", body = AcceptedStatus), Invalid, NotFound, Conflict, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "another file", "status": 202, "request": {"new_model_ref": "hf:org/repo/other.gguf"},
                  "response": {"status": "accepted"}}],
        "bad": [{"summary": "another reload is under way", "status": 409, "request": {"new_model_ref": "hf:org/repo/other.gguf"},
                 "response": {"code": "CONFLICT", "message": "the pool is being reloaded; wait for it", "retriable": false}}]
    })))
)]
fn reload_pool() {}

/// Start a pool that is stopped, drained or resting after failures.
#[utoipa::path(
    post, path = "/v1/pools/{id}/start", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    responses((status = 202, description = "It is under way, or there is nothing to do", body = AcceptedStatus), NotFound, Conflict, Guarded)
)]
fn start_pool() {}

/// Drain a managed pool and stop its engine.
#[utoipa::path(
    post, path = "/v1/pools/{id}/stop", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    request_body = StopRequest,
    responses((status = 202, description = "It is under way, or there is nothing to do", body = AcceptedStatus), Invalid, NotFound, Conflict, Guarded)
)]
fn stop_pool() {}

/// Unload a managed pool's engine as soon as nothing runs on it; a task that asks for it has it loaded again.
#[utoipa::path(
    post, path = "/v1/pools/{id}/unload", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool")),
    responses((status = 202, description = "It is under way, or there is nothing to do", body = AcceptedStatus), Invalid, NotFound, Conflict, Guarded)
)]
fn unload_pool() {}

/// What preparing a pool's engine takes. Nothing of it is done.
#[utoipa::path(
    get, path = "/v1/pools/{id}/plan", tag = "engines",
    params(("id" = PoolId, Path, description = "The pool")),
    responses((status = 200, description = "The steps", body = EnginePlan), Invalid, NotFound, Guarded)
)]
fn get_pool_plan() {}

/// What a pool's engine writes, as text, oldest line first. Secrets are masked.
#[utoipa::path(
    get, path = "/v1/pools/{id}/logs", tag = "pools",
    params(("id" = PoolId, Path, description = "The pool"), LogQuery),
    responses((status = 200, description = "Lines", body = String, content_type = "text/plain"), Invalid, NotFound, Guarded)
)]
fn get_pool_logs() {}

/// The engines that were built, pulled or downloaded here.
#[utoipa::path(
    get, path = "/v1/engines", tag = "engines",
    responses((status = 200, description = "The engines", body = EngineList), Guarded)
)]
fn list_engines() {}

/// Remove an engine and its files. One that a pool uses is kept.
#[utoipa::path(
    delete, path = "/v1/engines/{id}", tag = "engines",
    params(("id" = EngineId, Path, description = "The engine")),
    responses((status = 204, description = "Removed"), NotFound, Conflict, Guarded)
)]
fn delete_engine() {}

/// The GPUs of this host, and who uses them.
#[utoipa::path(
    get, path = "/v1/devices", tag = "engines",
    responses((status = 200, description = "The GPUs, or why there are none", body = DeviceList), Guarded)
)]
fn list_devices() {}

/// The other hosts that run pools of this server.
#[utoipa::path(
    get, path = "/v1/workers", tag = "workers",
    responses((status = 200, description = "Those that the configuration names, by name", body = WorkerList), Guarded)
)]
fn list_workers() {}

/// A worker makes itself known.
///
/// Wants the server's token also on loopback. With `worker_id` it is a host that runs `pool-managerd` and is told which pools are
/// its own; a new registration takes the place of the one before. Else it is an engine of an external pool, which is probed and given tasks from then
/// on at the address it names.
#[utoipa::path(
    post, path = "/v1/workers/register", tag = "workers",
    request_body = WorkerRegistration,
    responses((status = 200, description = "Taken", body = WorkerRegistered), Invalid, NotFound, Conflict, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "an engine of an external pool", "status": 200, "request": {
            "pool_id": "gpu1", "replica_id": "r0", "engine": "llamacpp", "endpoint": "http://127.0.0.1:18080"},
            "response": {"status": "ok"}}],
        "bad": [{"summary": "no token", "status": 401, "response": {
            "code": 40101, "message": "MISSING_TOKEN: this server wants a bearer token", "hint": "send it"}}]
    })))
)]
fn register_worker() {}

/// A host tells how its pools stand, and is told what to do. Wants the server's token also on loopback.
///
/// Answers at once when there is something to do, else after about a second. 404 asks the host to register again.
#[utoipa::path(
    post, path = "/v1/workers/{id}/heartbeat", tag = "workers",
    params(("id" = WorkerId, Path, description = "The worker")),
    request_body = Heartbeat,
    responses((status = 200, description = "What is to be done", body = HeartbeatAnswer), Invalid, NotFound, Guarded)
)]
fn worker_heartbeat() {}

/// Register a model.
///
/// Files that are on the server already are verified at once, as by `POST /v1/catalog/models/{id}/verify`. The same model
/// with the same digest may be registered again, which replaces what else is known of it.
#[utoipa::path(
    post, path = "/v1/catalog/models", tag = "catalog",
    params(("X-Trust-Policy" = Option<crate::TrustMode>, Header, description = "`strict`: refuse what is not signed, whatever the configuration says")),
    request_body = CatalogModel,
    responses((status = 201, description = "Registered", body = CatalogRecord), Invalid, Conflict, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "a model with its digest", "status": 201, "request": {
            "id": "hf:org/repo/file.gguf",
            "digest": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}}],
        "bad": [
            {"summary": "a digest that is none", "status": 400, "request": {"id": "hf:org/repo/file.gguf", "digest": "sha256:12"},
             "response": {"code": "INVALID_PARAMS", "message": "digest: `sha256:` and 64 hex digits are wanted", "retriable": false}},
            {"summary": "unsigned under strict trust", "status": 400, "response": {"code": "UNTRUSTED_ARTIFACT",
             "message": "trust is strict and the model has no valid signature; add one, or register it under permissive trust", "retriable": false}}]
    })))
)]
fn create_model() {}

/// Models by id, page by page.
///
/// Has an `ETag` and a `Last-Modified`; `If-None-Match` and `If-Modified-Since` answer 304.
#[utoipa::path(
    get, path = "/v1/catalog/models", tag = "catalog",
    params(CatalogQuery),
    responses((status = 200, description = "The models", body = CatalogList), Invalid, Guarded)
)]
fn list_models() {}

/// One model. Conditional as the list.
#[utoipa::path(
    get, path = "/v1/catalog/models/{id}", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's id, escaped")),
    responses((status = 200, description = "The model", body = CatalogRecord), NotFound, Guarded)
)]
fn get_model() {}

/// Forget a model and remove its files from the models' folder; files elsewhere are the operator's and stay.
#[utoipa::path(
    delete, path = "/v1/catalog/models/{id}", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's id, escaped")),
    responses((status = 204, description = "It is gone"), NotFound, Conflict, Guarded)
)]
fn delete_model() {}

/// Read a model's files again and compare them with its digest; check its signatures. Runs as a job.
#[utoipa::path(
    post, path = "/v1/catalog/models/{id}/verify", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's id, escaped")),
    responses((status = 202, description = "Begun", body = AcceptedStatus), NotFound, Conflict, Guarded)
)]
fn verify_model() {}

/// Retire a model or take it back.
///
/// Tasks for a retired model are refused with `MODEL_DEPRECATED`. Pools that serve it drain: what was admitted runs on, until
/// the deadline when there is one; what is left then ends with `MODEL_DEPRECATED`.
#[utoipa::path(
    post, path = "/v1/catalog/models/{id}/state", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's id, escaped")),
    request_body = CatalogStateChange,
    responses((status = 202, description = "In force", body = AcceptedStatus), Invalid, NotFound, Guarded)
)]
fn set_model_state() {}

/// Fetch a model that the outbound policy lets be fetched. Runs as a job; asking again goes on where it was cut.
#[utoipa::path(
    post, path = "/v1/catalog/models/{id}/pull", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's reference, escaped; it need not be registered")),
    request_body = PullRequest,
    responses((status = 202, description = "Begun, or nothing to do", body = AcceptedStatus), Invalid, Conflict, Guarded),
    extensions(("x-examples" = json!({
        "good": [{"summary": "begun", "status": 202, "request": {}, "response": {"status": "started"}}],
        "bad": [{"summary": "not of the configuration", "status": 400, "response": {"code": "UNTRUSTED_ARTIFACT",
            "message": "policy.outbound.mode is `configured` and no pool names this model; name it under [[catalog.models]], or set the mode to `allowlist`",
            "retriable": false}}]
    })))
)]
fn pull_model() {}

/// The work under way on a model, or the last that ended.
#[utoipa::path(
    get, path = "/v1/catalog/models/{id}/job", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's id, escaped")),
    responses((status = 200, description = "The job", body = ModelJob), NotFound, Guarded)
)]
fn get_model_job() {}

/// Cancel the work under way on a model. What was fetched is kept.
#[utoipa::path(
    delete, path = "/v1/catalog/models/{id}/job", tag = "catalog",
    params(("id" = ModelId, Path, description = "The model's id, escaped")),
    responses((status = 204, description = "It has stopped, or there was none"), Guarded)
)]
fn cancel_model_job() {}

/// How much memory a model needs, and which devices have it. Fetches no more than a header.
#[utoipa::path(
    get, path = "/v1/catalog/fit", tag = "catalog",
    params(FitQuery),
    responses((status = 200, description = "Needs and devices", body = FitReport), Invalid, NotFound, Guarded)
)]
fn fit_model() {}

/// Remove files from the models' folder that nothing names.
#[utoipa::path(
    post, path = "/v1/catalog/gc", tag = "catalog",
    request_body = GcRequest,
    responses((status = 200, description = "What went", body = GcReport), Invalid, Guarded)
)]
fn collect_models() {}

/// What changes: tasks, pools, models, and the progress of work on models.
#[utoipa::path(
    get, path = "/v1/events", tag = "server",
    params(FeedQuery),
    responses((status = 200, description = "The feed", body = EventFeed, content_type = "text/event-stream"), Invalid, Guarded)
)]
fn watch_events() {}

/// Measurements as Prometheus text.
#[utoipa::path(
    get, path = "/metrics", tag = "server",
    responses((status = 200, description = "Prometheus text format", body = String, content_type = "text/plain; version=0.0.4"), Guarded)
)]
fn get_metrics() {}

/// Whether the process answers. Wants no token.
#[utoipa::path(
    get, path = "/healthz", tag = "server", security(()),
    responses((status = 200, description = "It does", body = String, content_type = "text/plain"))
)]
fn get_healthz() {}

/// Whether tasks are taken. Wants no token.
#[utoipa::path(
    get, path = "/readyz", tag = "server", security(()),
    responses(
        (status = 200, description = "They are", body = Readiness),
        (status = 503, description = "They are not; the body says why", body = Readiness),
    )
)]
fn get_readyz() {}

/// This contract: both planes in one document.
#[utoipa::path(
    get, path = "/v1/openapi.json", tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value), Guarded)
)]
fn get_openapi() {}
