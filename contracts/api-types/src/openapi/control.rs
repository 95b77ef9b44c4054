//! Control plane routes.

#![expect(dead_code, reason = "documentation only: utoipa reads the attributes")]

use utoipa::OpenApi;

use super::common::{BackpressureErrorEnvelope, Guarded, NotFound, Shared};
use crate::pool::{DrainRequest, Readiness, ReloadRequest};
use crate::worker::WorkerRegistration;
use crate::{Capabilities, PoolHealth, PoolId, PoolList};

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
    paths(get_capabilities, list_pools, get_pool_health, get_metrics, get_healthz, get_readyz, get_openapi),
    components(schemas(
        PoolId,
        crate::AuthErrorEnvelope,
        crate::ErrorEnvelope,
        BackpressureErrorEnvelope,
        DrainRequest,
        ReloadRequest,
        crate::CatalogModel,
        crate::CatalogStateChange,
        WorkerRegistration,
    )),
    modifiers(&Shared),
    tags(
        (name = "pools", description = "Engines and what they can do"),
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
