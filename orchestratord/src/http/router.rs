//! Which path is served by what.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};

use super::{artifacts, catalog, engines, events, meta, operate, pools, respond, sessions, tasks, workers};
use crate::app::App;

/// Every route with the methods it takes, for the `Allow` header and for the test that holds it against the contract.
pub const ROUTES: &[(&str, &str)] = &[
    ("/v1/tasks", "GET, POST"),
    ("/v1/tasks/{id}", "GET"),
    ("/v1/tasks/{id}/stream", "GET"),
    ("/v1/tasks/{id}/cancel", "POST"),
    ("/v1/artifacts", "GET, POST"),
    ("/v1/artifacts/{id}", "GET, DELETE"),
    ("/v1/artifacts/{id}/download", "GET"),
    ("/v1/sessions/{id}", "GET, DELETE"),
    ("/v1/capabilities", "GET"),
    ("/v1/pools", "GET"),
    ("/v1/pools/{id}/health", "GET"),
    ("/v1/pools/{id}/drain", "POST"),
    ("/v1/pools/{id}/reload", "POST"),
    ("/v1/pools/{id}/start", "POST"),
    ("/v1/pools/{id}/stop", "POST"),
    ("/v1/pools/{id}/unload", "POST"),
    ("/v1/pools/{id}/plan", "GET"),
    ("/v1/pools/{id}/logs", "GET"),
    ("/v1/engines", "GET"),
    ("/v1/engines/{id}", "DELETE"),
    ("/v1/devices", "GET"),
    ("/v1/workers", "GET"),
    ("/v1/workers/register", "POST"),
    ("/v1/workers/{id}/heartbeat", "POST"),
    ("/v1/catalog/models", "GET, POST"),
    ("/v1/catalog/models/{id}", "GET, DELETE"),
    ("/v1/catalog/models/{id}/verify", "POST"),
    ("/v1/catalog/models/{id}/state", "POST"),
    ("/v1/catalog/models/{id}/pull", "POST"),
    ("/v1/catalog/models/{id}/job", "GET, DELETE"),
    ("/v1/catalog/fit", "GET"),
    ("/v1/catalog/gc", "POST"),
    ("/v1/events", "GET"),
    ("/v1/openapi.json", "GET"),
    ("/metrics", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
];

/// The daemon's routes.
pub fn router(app: Arc<App>) -> Router {
    let routes = ROUTES.iter().fold(Router::new(), |router, &(path, allowed)| {
        let handler = handler(path).fallback(move || async move { respond::method_not_allowed(allowed) });
        router.route(path, handler)
    });
    routes.fallback(respond::no_such_route).with_state(app)
}

fn handler(path: &str) -> MethodRouter<Arc<App>> {
    match path {
        "/v1/tasks" => get(tasks::list).post(tasks::submit),
        "/v1/tasks/{id}" => get(tasks::get),
        "/v1/tasks/{id}/stream" => get(tasks::follow),
        "/v1/tasks/{id}/cancel" => post(tasks::cancel),
        "/v1/artifacts" => get(artifacts::list).post(artifacts::create),
        "/v1/artifacts/{id}" => get(artifacts::get).delete(artifacts::delete),
        "/v1/artifacts/{id}/download" => get(artifacts::download),
        "/v1/sessions/{id}" => get(sessions::get).delete(sessions::delete),
        "/v1/capabilities" => get(pools::capabilities),
        "/v1/pools" => get(pools::list),
        "/v1/pools/{id}/health" => get(pools::health),
        "/v1/pools/{id}/drain" => post(operate::drain),
        "/v1/pools/{id}/reload" => post(operate::reload),
        "/v1/pools/{id}/start" => post(operate::start),
        "/v1/pools/{id}/stop" => post(operate::stop),
        "/v1/pools/{id}/unload" => post(operate::unload),
        "/v1/pools/{id}/plan" => get(operate::plan),
        "/v1/pools/{id}/logs" => get(operate::logs),
        "/v1/engines" => get(engines::list),
        "/v1/engines/{id}" => delete(engines::delete),
        "/v1/devices" => get(engines::devices),
        "/v1/workers" => get(workers::list),
        "/v1/workers/register" => post(workers::register),
        "/v1/workers/{id}/heartbeat" => post(workers::heartbeat),
        "/v1/catalog/models" => get(catalog::list).post(catalog::create),
        "/v1/catalog/models/{id}" => get(catalog::get).delete(catalog::delete),
        "/v1/catalog/models/{id}/verify" => post(catalog::verify),
        "/v1/catalog/models/{id}/state" => post(catalog::set_state),
        "/v1/catalog/models/{id}/pull" => post(catalog::pull),
        "/v1/catalog/models/{id}/job" => get(catalog::job).delete(catalog::cancel_job),
        "/v1/catalog/fit" => get(catalog::fit),
        "/v1/catalog/gc" => post(catalog::collect),
        "/v1/events" => get(events::watch),
        "/v1/openapi.json" => get(meta::openapi),
        "/metrics" => get(meta::metrics),
        "/healthz" => get(meta::healthz),
        "/readyz" => get(meta::readyz),
        other => unreachable!("{other} is in the list of routes without a handler"),
    }
}
