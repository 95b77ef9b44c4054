//! `/v1/pools` and `/v1/capabilities`.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_types::{API_VERSION, Capabilities, EngineCapability, ErrorKind, PoolList, Priority};
use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use orchestrator_core::policy::admits_work;
use serde_json::{Value, json};

use super::respond;
use crate::app::App;
use crate::pools::Pool;

/// `GET /v1/pools`.
pub(super) async fn list(State(app): State<Arc<App>>) -> Response {
    Json(PoolList { pools: app.pools.iter().map(|pool| pool.status(&app)).collect() }).into_response()
}

/// `GET /v1/pools/{id}/health`.
pub(super) async fn health(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    match app.pools.get(&id) {
        Some(pool) => Json(pool.health(&app)).into_response(),
        None => respond::failure(ErrorKind::NotFound, "no such pool; GET /v1/pools lists them"),
    }
}

/// `GET /v1/capabilities`.
pub(super) async fn capabilities(State(app): State<Arc<App>>) -> Response {
    let engines = app.pools.iter().map(|pool| capability(&app, pool)).collect();
    Json(Capabilities { api_version: API_VERSION.to_owned(), engines }).into_response()
}

fn capability(app: &App, pool: &Pool) -> EngineCapability {
    let takes_tasks = pool.takes_tasks(app);
    let scheduler = app.scheduler();
    let snapshot = scheduler.pool(&pool.id).expect("the scheduler knows every configured pool").snapshot;
    let props = pool.props();
    let ctx_max = snapshot.ctx_max_supported.unwrap_or(0);
    let features = props.iter().flat_map(|props| &props.features).map(|name| (name.clone(), json!(true))).collect();
    EngineCapability {
        engine: pool.config.engine,
        engine_version: pool.first().engine_version().map_or_else(String::new, |version| version.as_ref().to_owned()),
        sampler_profile_version: pool.sampler_profile_version.clone().unwrap_or_default(),
        ctx_max,
        max_tokens_out: ctx_max,
        concurrency: snapshot.slots_total,
        supported_workloads: pool.workloads(),
        pool_id: Some(pool.id.to_string()),
        model_ref: Some(pool.served().reference.as_ref().to_owned()),
        ready: takes_tasks && admits_work(snapshot, app.clock.now_ms()),
        slots_total: Some(snapshot.slots_total),
        tokenizer_name: props.and_then(|props| props.tokenizer),
        rate_limits: rate_limits(app, pool),
        features,
    }
}

/// The limits in force, by name, so that clients can size themselves (ORCH-3094).
fn rate_limits(app: &App, pool: &Pool) -> BTreeMap<String, Value> {
    let of_class = |class: &Priority| {
        let limit = pool.config.admission.limits(*class)?.rate_limit()?;
        Some((format!("{class}_rps"), json!(limit.per_second)))
    };
    let of_token =
        app.config.admission.token_rate_limit().map(|limit| ("token_rps".to_owned(), json!(limit.per_second)));
    Priority::ALL.iter().filter_map(of_class).chain(of_token).collect()
}
