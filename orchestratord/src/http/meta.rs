//! What supervisors, scrapers and tools ask for.

use std::sync::{Arc, OnceLock};

use api_types::pool::Readiness;
use api_types::{ErrorEnvelope, ErrorKind};
use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::app::{App, stopping};
use crate::metrics::DeviceOf;
use crate::wire::int;

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// `GET /readyz`: tasks are taken.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let total = app.pools.iter().count();
    let ready = app.pools.iter().filter(|pool| pool.takes_tasks(&app)).count();
    let reason = match (app.is_stopping(), ready, total) {
        (true, ..) => Some(stopping()),
        (false, 0, 0) => Some(ErrorEnvelope::new(
            ErrorKind::PoolUnavailable,
            "no pool is configured; add [[pools]] to the configuration file and start again",
        )),
        (false, 0, _) => Some(ErrorEnvelope::new(
            ErrorKind::PoolUnready,
            "no pool is ready; GET /v1/pools says why for each of them",
        )),
        _ => None,
    };
    let status = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Readiness { ready: reason.is_none(), pools_ready: int(ready), pools_total: int(total), reason };
    (status, Json(body)).into_response()
}

/// `GET /metrics`: Prometheus text.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Response {
    for pool in app.pools.iter() {
        let ready = pool.takes_tasks(&app);
        let scheduler = app.scheduler();
        let leases = scheduler.active_leases(&pool.id);
        pool.first().series().gauges(ready, leases, |priority| scheduler.queue_depth(&pool.id, priority));
    }
    for pool in app.pools.iter() {
        for replica in pool.replicas() {
            if let Some(calls) = app.host.calls(&pool.id, &replica.id) {
                app.metrics.calls(pool.config.engine, pool.id.as_str(), replica.id.as_str(), &calls);
            }
        }
    }
    measure_devices(&app);
    app.workers.iter().for_each(|worker| app.metrics.worker_up(worker.id().as_str(), worker.up()));
    app.metrics.sessions(app.live_sessions());
    app.metrics.artifacts(app.artifacts.usage());
    // prometheus-client writes OpenMetrics, whose lines Prometheus' own text format shares but for the end marker.
    let text = app.metrics.render();
    let text = text.strip_suffix("# EOF\n").unwrap_or(&text).to_owned();
    ([(CONTENT_TYPE, HeaderValue::from_static("text/plain; version=0.0.4"))], text).into_response()
}

/// What the GPUs do, for each pool that may use them.
fn measure_devices(app: &App) {
    app.metrics.forget_devices();
    let masks = app.pools.iter().filter_map(|pool| Some((pool, app.manager.mask_of(&pool.id)?)));
    for (pool, mask) in masks {
        let reading = app.manager.devices();
        let Ok(found) = reading.as_ref() else { return };
        let replica = pool.first();
        let version = replica.engine_version();
        for device in found.devices.iter().filter(|device| mask.uses_gpu(&device.uuid)) {
            let of = DeviceOf {
                engine: pool.config.engine,
                engine_version: version.as_deref().unwrap_or_default(),
                pool: pool.id.as_str(),
                replica: replica.id.as_str(),
                device: device.index,
            };
            let used = device.vram_total_bytes.saturating_sub(device.vram_free_bytes);
            app.metrics.device(&of, device.utilization_percent, Some(used));
        }
    }
}

/// `GET /v1/openapi.json`: the contract, both planes in one document.
pub(super) async fn openapi() -> Response {
    static DOCUMENT: OnceLock<String> = OnceLock::new();
    let document = DOCUMENT.get_or_init(api_types::openapi::merged_json);
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], document.as_str()).into_response()
}
