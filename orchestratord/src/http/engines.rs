//! `/v1/engines` and `/v1/devices`.

use std::sync::Arc;

use api_types::{DeviceList, EngineList, ErrorEnvelope, ErrorKind, PoolState, PreparedEngineRecord};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use catalog_core::EngineEntry;
use engine_provisioner::RemoveError;
use pool_managerd::devices::Devices;
use pool_managerd::workshop::no_devices;

use super::respond;
use crate::app::App;
use crate::narrate;
use crate::pools::Pool;

/// `GET /v1/engines`.
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    let catalog = Arc::clone(&app.manager.setup().catalog);
    let listed = tokio::task::spawn_blocking(move || catalog.list()).await;
    respond::result(match listed {
        Ok(Ok(entries)) => {
            let engines = entries.into_iter().map(|entry| record(&app, entry)).collect();
            Ok(Json(EngineList { engines }).into_response())
        }
        Ok(Err(error)) => Err(ErrorEnvelope::new(
            ErrorKind::Internal,
            format!("{}; the operator must look at server.data_dir", narrate::with_causes(&error)),
        )),
        Err(_) => Err(ErrorEnvelope::new(ErrorKind::Internal, "reading the catalog panicked; the log says where")),
    })
}

/// Pools that run an engine or are about to. One that is stopped prepares it anew.
fn users(app: &App, id: &str) -> Vec<String> {
    let uses = |pool: &&Arc<Pool>| {
        let wants_engine = pool.report().is_some_and(|report| report.state != PoolState::Stopped);
        wants_engine && app.manager.engine_of(&pool.id).as_deref() == Some(id)
    };
    app.pools.iter().filter(uses).map(|pool| pool.id.to_string()).collect()
}

fn record(app: &App, entry: EngineEntry) -> PreparedEngineRecord {
    PreparedEngineRecord {
        used_by: users(app, &entry.id),
        id: entry.id,
        engine: entry.engine,
        version: entry.version,
        build_ref: entry.build_ref,
        digest: entry.digest.map(String::from),
        build_flags: entry.build_flags,
        artifacts: entry.artifacts,
        created_ms: entry.created_ms,
    }
}

/// `DELETE /v1/engines/{id}`.
pub(super) async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    respond::result(removed(&app, id).await)
}

async fn removed(app: &Arc<App>, id: String) -> Result<Response, ErrorEnvelope> {
    let users = users(app, &id);
    if !users.is_empty() {
        let message = format!("pool {} uses the engine {id}; stop it first", users.join(", "));
        return Err(ErrorEnvelope::new(ErrorKind::Conflict, message));
    }
    let setup = app.manager.setup().clone();
    let removing = tokio::task::spawn_blocking(move || setup.remove(&id)).await;
    let panicked = |_| ErrorEnvelope::new(ErrorKind::Internal, "removing the engine panicked; the log says where");
    match removing.map_err(panicked)? {
        Ok(gone) => {
            narrate::engine_removed(&gone);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Err(error) => {
            let code = match error {
                RemoveError::Unknown(_) => ErrorKind::NotFound,
                RemoveError::Busy(_) => ErrorKind::Conflict,
                RemoveError::Catalog(_) | RemoveError::Files(_) => ErrorKind::Internal,
            };
            Err(ErrorEnvelope::new(code, narrate::with_causes(&error)))
        }
    }
}

/// `GET /v1/devices`.
pub(super) async fn devices(State(app): State<Arc<App>>) -> Response {
    let asked = Arc::clone(&app);
    // Without managed pools nobody watches them, and looking at them takes a while.
    let Ok(reading) = tokio::task::spawn_blocking(move || asked.manager.devices()).await else {
        return respond::failure(ErrorKind::Internal, "looking at the GPUs panicked; the log says where");
    };
    Json(match reading.as_ref() {
        Ok(found) => device_list(&app, found),
        Err(absent) => {
            let failure = no_devices(absent);
            DeviceList { driver: None, devices: Vec::new(), error: Some(failure.message), fix: failure.fix }
        }
    })
    .into_response()
}

fn device_list(app: &App, found: &Devices) -> DeviceList {
    let pools_of = |uuid: &str| {
        let uses = |pool: &&Arc<Pool>| app.manager.mask_of(&pool.id).is_some_and(|mask| mask.uses_gpu(uuid));
        app.pools.iter().filter(uses).map(|pool| pool.id.to_string()).collect()
    };
    let engine_of = |pid: u32| {
        let here = || app.pools.iter().filter(|pool| pool.config.worker.is_none());
        here().find(|pool| pool.report().is_some_and(|report| report.pid == Some(pid))).map(|pool| pool.id.to_string())
    };
    let devices = found.statuses(&pools_of, &engine_of);
    DeviceList { driver: Some(found.driver.clone()), devices, error: None, fix: None }
}
