//! What operators do with pools: drain, reload, start, stop; what an engine says, and what preparing it takes.

use std::convert::Infallible;
use std::sync::Arc;

use api_types::pool::{DrainRequest, ReloadRequest, StopRequest};
use api_types::{Accepted, AcceptedStatus, ErrorEnvelope, ErrorKind, LogQuery, PoolId};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use catalog_core::ModelRef;
use futures_util::stream;
use pool_managerd::failure::Failure;
use pool_managerd::logs::{EngineLog, Followed, Follower};
use pool_managerd::machine::Conflict;
use pool_managerd::pool::PoolHandle;
use tokio_util::sync::CancellationToken;

use super::body::{self, Asked};
use super::{elsewhere, respond};
use crate::app::App;
use crate::pools::Pool;

/// Lines of a log when nobody says how many, and at most.
const LINES: u32 = 200;
const LINES_MAX: u32 = 100_000;

/// `POST /v1/pools/{id}/drain`.
pub(super) async fn drain(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond::result(drained(&app, &id, &headers, body).await)
}

async fn drained(app: &Arc<App>, id: &str, headers: &HeaderMap, body: Body) -> Result<Response, ErrorEnvelope> {
    let pool = find(app, id)?;
    let request: DrainRequest = body::json(body, headers, &app.config.server).await?;
    let for_ms = deadline(request.deadline_ms)?;
    if pool.config.is_managed() {
        managed(pool)?.drain(for_ms).await.map_err(|conflict| refused(pool, conflict))?;
    } else {
        app.drain_external(pool, for_ms);
    }
    Ok(accepted(Accepted::Accepted))
}

/// `POST /v1/pools/{id}/reload`.
pub(super) async fn reload(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond::result(reloaded(&app, &id, &headers, body).await)
}

async fn reloaded(app: &Arc<App>, id: &str, headers: &HeaderMap, body: Body) -> Result<Response, ErrorEnvelope> {
    let pool = find(app, id)?;
    let request: ReloadRequest = body::json(body, headers, &app.config.server).await?;
    let manager = managed(pool)?;
    let model = request.new_model_ref.trim();
    if let Err(error) = model.parse::<ModelRef>() {
        return Err(ErrorEnvelope::new(ErrorKind::InvalidParams, format!("new_model_ref: {error}")));
    }
    manager.reload(model.to_owned()).await.map_err(|conflict| refused(pool, conflict))?;
    Ok(accepted(Accepted::Started))
}

/// `POST /v1/pools/{id}/start`.
pub(super) async fn start(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    respond::result(started(&app, &id).await)
}

async fn started(app: &Arc<App>, id: &str) -> Result<Response, ErrorEnvelope> {
    let pool = find(app, id)?;
    if pool.config.is_managed() {
        let manager = managed(pool)?;
        app.residency.want(&pool.id);
        manager.start().await.map_err(|conflict| refused(pool, conflict))?;
    } else {
        app.undrain_external(pool);
    }
    Ok(accepted(Accepted::Started))
}

/// `POST /v1/pools/{id}/stop`.
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    respond::result(stopped(&app, &id, &headers, body).await)
}

async fn stopped(app: &Arc<App>, id: &str, headers: &HeaderMap, body: Body) -> Result<Response, ErrorEnvelope> {
    let pool = find(app, id)?;
    let request: StopRequest = body::optional_json(body, headers, &app.config.server).await?;
    let manager = managed(pool)?;
    let for_ms = request.deadline_ms.map_or(Ok(pool.config.supervision.drain_ms), deadline)?;
    manager.stop(for_ms).await.map_err(|conflict| refused(pool, conflict))?;
    Ok(accepted(Accepted::Accepted))
}

/// `POST /v1/pools/{id}/unload`.
pub(super) async fn unload(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    respond::result(unloaded(&app, &id).await)
}

async fn unloaded(app: &Arc<App>, id: &str) -> Result<Response, ErrorEnvelope> {
    let pool = find(app, id)?;
    managed(pool)?;
    app.unload_pool(pool).await.map_err(|conflict| refused(pool, conflict))?;
    Ok(accepted(Accepted::Accepted))
}

/// `GET /v1/pools/{id}/plan`.
pub(super) async fn plan(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let unplanned = |failure: Failure| ErrorEnvelope::new(ErrorKind::InvalidParams, failure.to_string());
    let planned = match find(&app, &id) {
        Ok(pool) if pool.config.worker.is_some() => elsewhere::plan(&app, pool).await,
        found => found.and_then(|pool| app.manager.plan(&pool.config).map_err(unplanned)),
    };
    respond::result(planned.map(|plan| Json(plan).into_response()))
}

/// `GET /v1/pools/{id}/logs`.
pub(super) async fn logs(State(app): State<Arc<App>>, Path(id): Path<String>, query: Asked<LogQuery>) -> Response {
    respond::result(written(&app, &id, query).await)
}

async fn written(app: &Arc<App>, id: &str, query: Asked<LogQuery>) -> Result<Response, ErrorEnvelope> {
    let pool = find(app, id)?;
    let query = body::query(query)?;
    let lines = query.lines.unwrap_or(LINES).min(LINES_MAX);
    let body = if pool.config.worker.is_some() {
        elsewhere::logs(app, pool, lines, query.follow == Some(true)).await?
    } else {
        let log = app.manager.log(&pool.id).ok_or_else(|| external(pool))?;
        let lines = usize::try_from(lines).unwrap_or(usize::MAX);
        match query.follow {
            Some(true) => follow(app, log, lines),
            _ => {
                let lines: String = log.lines(lines).await.iter().map(|line| format!("{line}\n")).collect();
                Body::from(lines)
            }
        }
    };
    let headers = [
        (CONTENT_TYPE, "text/plain; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, body).into_response())
}

/// Lines as they come, until the client leaves or the daemon stops.
fn follow(app: &App, log: &EngineLog, lines: usize) -> Body {
    let (_, closed) = app.feed.watch();
    let follower = log.follow(lines);
    Body::from_stream(stream::unfold((follower, closed), |(mut follower, closed)| async {
        let line = next_line(&mut follower, &closed).await?;
        Some((Ok::<_, Infallible>(line), (follower, closed)))
    }))
}

async fn next_line(follower: &mut Follower, closed: &CancellationToken) -> Option<String> {
    tokio::select! {
        () = closed.cancelled() => None,
        followed = follower.next() => followed.map(|followed| match followed {
            Followed::Line(line) => format!("{line}\n"),
            Followed::Missed(count) => format!("--- {count} lines were missed: they came faster than they were read\n"),
        }),
    }
}

fn find<'a>(app: &'a App, id: &str) -> Result<&'a Arc<Pool>, ErrorEnvelope> {
    app.pools.get(id).ok_or_else(|| ErrorEnvelope::new(ErrorKind::NotFound, "no such pool; GET /v1/pools lists them"))
}

fn managed(pool: &Pool) -> Result<&PoolHandle, ErrorEnvelope> {
    if !pool.config.is_managed() {
        return Err(external(pool));
    }
    // Requests are taken while what an earlier life has left is still being ended.
    pool.manager().ok_or_else(|| ErrorEnvelope {
        retry_after_ms: Some(1000),
        pool_id: Some(pool.id.to_string()),
        ..ErrorEnvelope::new(
            ErrorKind::PoolUnready,
            "the orchestrator is just starting its pools; try again in a moment",
        )
    })
}

fn external(pool: &Pool) -> ErrorEnvelope {
    let message = format!(
        "the engine of pool {} is run by somebody else (provisioning.mode = \"{}\"); do this where it runs",
        pool.id,
        pool.config.mode()
    );
    ErrorEnvelope { pool_id: Some(pool.id.to_string()), ..ErrorEnvelope::new(ErrorKind::InvalidParams, message) }
}

fn refused(pool: &Pool, conflict: Conflict) -> ErrorEnvelope {
    if conflict == Conflict::Away {
        return ErrorEnvelope {
            retry_after_ms: Some(1000),
            pool_id: Some(pool.id.to_string()),
            ..ErrorEnvelope::new(ErrorKind::PoolUnready, conflict.to_string())
        };
    }
    ErrorEnvelope {
        pool_id: Some(PoolId::to_string(&pool.id)),
        ..ErrorEnvelope::new(ErrorKind::Conflict, conflict.to_string())
    }
}

fn deadline(ms: i64) -> Result<u64, ErrorEnvelope> {
    u64::try_from(ms).map_err(|_| {
        ErrorEnvelope::new(ErrorKind::InvalidParams, "deadline_ms is a time from now, in milliseconds: 0 or more")
    })
}

fn accepted(status: Accepted) -> Response {
    (StatusCode::ACCEPTED, Json(AcceptedStatus { status })).into_response()
}
