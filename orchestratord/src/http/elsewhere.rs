//! What another host is asked about a pool that it runs, by way of its relay.

use api_types::{EnginePlan, ErrorEnvelope, ErrorKind};
use axum::body::Body;
use futures_util::StreamExt as _;
use http_util::status::EngineError;
use http_util::{Control, ControlError};

use crate::app::App;
use crate::pools::Pool;

/// What preparing the pool's engine takes there.
///
/// # Errors
/// `POOL_UNREADY` while the host is not there; `INVALID_PARAMS` for an engine that cannot be prepared.
pub(super) async fn plan(app: &App, pool: &Pool) -> Result<EnginePlan, ErrorEnvelope> {
    let control = control(app, pool)?;
    let answer = control.get(&format!("/plan/{}", pool.id), None).await.map_err(|error| unreached(pool, &error))?;
    match answer.status {
        200 => answer.json().map_err(|error| unreached(pool, &error)),
        _ => {
            let message = EngineError::parse(&answer.body).message;
            let message = message.unwrap_or_else(|| format!("the pool's host answers {}; see its log", answer.status));
            Err(ErrorEnvelope::new(ErrorKind::InvalidParams, message))
        }
    }
}

/// What the pool's engine has written, and with `follow` what it writes, until the client leaves or the daemon stops.
///
/// # Errors
/// `POOL_UNREADY` while the host is not there.
pub(super) async fn logs(app: &App, pool: &Pool, lines: u32, follow: bool) -> Result<Body, ErrorEnvelope> {
    let path = format!("/logs/{}?lines={lines}&follow={follow}", pool.id);
    let (status, text) = control(app, pool)?.open(&path).await.map_err(|error| unreached(pool, &error))?;
    if status != 200 {
        let message = format!("the pool's host has no log of it ({status}); wait until it has taken the pool on");
        return Err(away(pool, message));
    }
    let (_, closed) = app.feed.watch();
    Ok(Body::from_stream(text.take_until(closed.cancelled_owned())))
}

fn control(app: &App, pool: &Pool) -> Result<Control, ErrorEnvelope> {
    let relay = app.workers.relay_of(&pool.id).ok_or_else(|| {
        let complaint = app.workers.complaint(&pool.id);
        away(
            pool,
            complaint.unwrap_or_else(|| "the pool's host has not been heard from; try again in a moment".to_owned()),
        )
    })?;
    relay.control().map_err(|error| unreached(pool, &error))
}

fn unreached(pool: &Pool, error: &ControlError) -> ErrorEnvelope {
    away(
        pool,
        format!(
            "the pool's host cannot be asked: {}; `llama-orch workers` shows how it stands",
            crate::narrate::with_causes(error)
        ),
    )
}

fn away(pool: &Pool, message: String) -> ErrorEnvelope {
    ErrorEnvelope {
        retry_after_ms: Some(1000),
        pool_id: Some(pool.id.to_string()),
        ..ErrorEnvelope::new(ErrorKind::PoolUnready, message)
    }
}
