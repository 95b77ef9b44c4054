//! What operators want of a pool: asked of the server, then watched until it has come about or has failed.

use std::time::Duration;

use api_types::{
    Accepted, AcceptedStatus, DrainRequest, PoolId, PoolState, PoolStatus, ReloadRequest, ReloadState, StopRequest,
};
use openapi_client::{Client, ClientError};
use tokio::time::MissedTickBehavior;

use super::board::Board;
use super::{details, failure_of};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::output;

/// Gap between two looks at the pool.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// What is wanted.
#[derive(Clone, Debug)]
pub(super) enum Wish {
    Drain { deadline: Duration },
    Reload { model: String },
    Start,
    Stop { deadline: Option<Duration> },
    Unload,
}

/// What has become of it.
#[derive(Debug)]
enum Outcome {
    Pending,
    Reached,
    Failed(Failure),
}

/// Asks for it and, if the outcome is waited for, shows the way there.
pub(super) async fn carry_out(
    client: &Client,
    pool: &PoolId,
    wish: &Wish,
    wait: bool,
    json: bool,
) -> Result<Exit, Failure> {
    let mut interrupts = Interrupts::listen()?;
    let accepted = wish.ask(client, pool).await?;
    if !wait {
        return no_wait(pool, &accepted, json);
    }
    let mut board = Board::new(json);
    let watched = tokio::select! {
        biased;
        () = interrupts.next() => None,
        watched = watch(client, pool, wish, &mut board) => Some(watched),
    };
    board.finish();
    match watched {
        Some(watched) => {
            let reached = watched?;
            if !json {
                output::write(&format!("{}\n", wish.told(&reached)))?;
            }
            Ok(Exit::Ok)
        }
        None => {
            eprintln!("llama-orch: left; the server goes on, as `llama-orch pools show {pool}` says");
            Ok(Exit::Canceled)
        }
    }
}

fn no_wait(pool: &PoolId, accepted: &AcceptedStatus, json: bool) -> Result<Exit, Failure> {
    if json {
        output::json(accepted)?;
        return Ok(Exit::Ok);
    }
    output::write(&match accepted.status {
        Accepted::Present => format!("{pool} is so already\n"),
        Accepted::Started | Accepted::Accepted => {
            format!("accepted; `llama-orch pools show {pool}` says how it stands\n")
        }
    })?;
    Ok(Exit::Ok)
}

/// Looks at the pool until the wish has come to an end. The pool as it is then.
async fn watch(client: &Client, pool: &PoolId, wish: &Wish, board: &mut Board) -> Result<PoolStatus, Failure> {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let status = details::find(client, pool).await?;
        board.show(&status)?;
        match wish.outcome(&status) {
            Outcome::Pending => {}
            Outcome::Reached => return Ok(status),
            Outcome::Failed(failure) => return Err(failure),
        }
    }
}

impl Wish {
    async fn ask(&self, client: &Client, pool: &PoolId) -> Result<AcceptedStatus, ClientError> {
        match self {
            Self::Drain { deadline } => client.drain_pool(pool, &DrainRequest { deadline_ms: millis(*deadline) }).await,
            Self::Reload { model } => client.reload_pool(pool, &ReloadRequest { new_model_ref: model.clone() }).await,
            Self::Start => client.start_pool(pool).await,
            Self::Unload => client.unload_pool(pool).await,
            Self::Stop { deadline } => client.stop_pool(pool, &StopRequest { deadline_ms: deadline.map(millis) }).await,
        }
    }

    /// What has become of it, by how the pool stands. The server answers only when the pool has taken the wish in, so that what is
    /// seen afterwards is never from before it.
    fn outcome(&self, pool: &PoolStatus) -> Outcome {
        let state = pool.health.state.unwrap_or(PoolState::External);
        match self {
            Self::Start => started(pool, state),
            Self::Stop { .. } => stopped(pool, state),
            Self::Unload => unloaded(pool, state),
            Self::Drain { .. } => drained(pool, state),
            Self::Reload { model } => reloaded(pool, state, model),
        }
    }

    fn told(&self, pool: &PoolStatus) -> String {
        let id = &pool.id;
        match self {
            Self::Drain { .. } => format!("{id} is drained; `llama-orch pools start {id}` opens it again"),
            Self::Reload { .. } => format!("{id} serves {}", pool.model),
            Self::Start if pool.health.ready => format!("{id} is ready and serves {}", pool.model),
            Self::Start => format!("{id} takes tasks again, as soon as its engine is ready"),
            Self::Stop { .. } => format!("{id} is stopped"),
            Self::Unload => format!("{id} is unloaded; a task that asks for it has it loaded again"),
        }
    }
}

fn started(pool: &PoolStatus, state: PoolState) -> Outcome {
    match state {
        // Whether its engine is there is the matter of whoever runs it.
        PoolState::External if !pool.health.draining => Outcome::Reached,
        PoolState::Ready if pool.health.ready => Outcome::Reached,
        PoolState::Failed => Outcome::Failed(failure_of(pool)),
        PoolState::Stopped | PoolState::Draining => meanwhile(pool, "stopped or drained"),
        _ => Outcome::Pending,
    }
}

fn stopped(pool: &PoolStatus, state: PoolState) -> Outcome {
    match state {
        PoolState::Stopped => Outcome::Reached,
        PoolState::Draining | PoolState::Stopping => Outcome::Pending,
        _ => meanwhile(pool, "started"),
    }
}

fn unloaded(pool: &PoolStatus, state: PoolState) -> Outcome {
    match state {
        PoolState::Cold | PoolState::Stopped | PoolState::Failed => Outcome::Reached,
        PoolState::Ready | PoolState::Draining | PoolState::Stopping => Outcome::Pending,
        _ => meanwhile(pool, "asked for again"),
    }
}

fn drained(pool: &PoolStatus, state: PoolState) -> Outcome {
    match state {
        PoolState::Draining | PoolState::External if pool.health.draining => match is_idle(pool) {
            true => Outcome::Reached,
            false => Outcome::Pending,
        },
        // Its engine ended under it.
        PoolState::Stopped | PoolState::Stopping if pool.health.last_error.is_some() => {
            Outcome::Failed(failure_of(pool))
        }
        PoolState::Stopped => Outcome::Reached,
        PoolState::Stopping | PoolState::Draining => Outcome::Pending,
        _ => meanwhile(pool, "started"),
    }
}

/// Whether none of our tasks runs on its engine, not even one that was given up. Free slots do not tell: a pool that takes no tasks
/// has none.
fn is_idle(pool: &PoolStatus) -> bool {
    let count = |name: &str| pool.health.metrics.get(name).and_then(serde_json::Value::as_i64).unwrap_or(0);
    count("active_leases") == 0 && count("settling") == 0
}

fn reloaded(pool: &PoolStatus, state: PoolState, model: &str) -> Outcome {
    let Some(reload) = pool.health.reload.as_ref().filter(|reload| reload.new_model_ref == model.trim()) else {
        return meanwhile(pool, "restarted or reloaded");
    };
    match (reload.state, state) {
        (ReloadState::Done, _) => Outcome::Reached,
        (ReloadState::RolledBack, PoolState::Ready) if pool.health.ready => {
            let why = reload.error.as_deref().unwrap_or("the server does not say why");
            let what = format!("pool {} serves {} again: {model} could not be loaded: {why}", pool.id, pool.model);
            let next =
                format!("mend that and reload again; `llama-orch logs {}` shows what its engine has written", pool.id);
            Outcome::Failed(Failure::new(Exit::RolledBack, what, next))
        }
        (ReloadState::RolledBack, PoolState::Failed | PoolState::Stopped) => Outcome::Failed(failure_of(pool)),
        _ => Outcome::Pending,
    }
}

/// Somebody else wanted something else.
fn meanwhile(pool: &PoolStatus, what: &str) -> Outcome {
    let text = format!("pool {} was {what} by somebody else meanwhile", pool.id);
    let next = format!("`llama-orch pools show {}` says how it stands", pool.id);
    Outcome::Failed(Failure::new(Exit::PoolFailed, text, next))
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api_types::PoolStatus;
    use serde_json::{Value, json};

    use super::{Outcome, Wish};
    use crate::exit::Exit;

    fn pool(state: &str, more: &Value) -> PoolStatus {
        let mut health = json!({"live": true, "ready": state == "ready", "draining": state == "draining", "metrics": {}, "state": state});
        let fields = more.as_object().expect("an object");
        health.as_object_mut().expect("an object").extend(fields.clone());
        serde_json::from_value(
            json!({"id": "gpu0", "engine": "llamacpp", "model": "old", "provisioning": "binary", "compute": "0",
            "slots_total": 2, "slots_free": 2, "queue_depth": 0, "queue_capacity": 8, "health": health}),
        )
        .expect("a pool")
    }

    fn outcome(wish: &Wish, pool: &PoolStatus) -> Result<bool, Exit> {
        match wish.outcome(pool) {
            Outcome::Pending => Ok(false),
            Outcome::Reached => Ok(true),
            Outcome::Failed(failure) => Err(failure.exit),
        }
    }

    /// ORCH-3505, ORCH-3504: a pool on its way is waited for, and each end has its code.
    #[test]
    fn every_end_has_its_code() {
        let drain = Wish::Drain { deadline: Duration::ZERO };
        let stop = Wish::Stop { deadline: None };
        let rows = [
            (&Wish::Start, "preparing", json!({}), Ok(false)),
            (&Wish::Start, "backing_off", json!({"last_error": "it crashed"}), Ok(false)),
            (&Wish::Start, "ready", json!({}), Ok(true)),
            // Up, and not yet asked how it is.
            (&Wish::Start, "ready", json!({"ready": false}), Ok(false)),
            (&Wish::Start, "external", json!({}), Ok(true)),
            (&Wish::Start, "failed", json!({}), Err(Exit::PoolFailed)),
            (&Wish::Start, "stopped", json!({}), Err(Exit::PoolFailed)),
            (&stop, "draining", json!({}), Ok(false)),
            (&stop, "stopping", json!({}), Ok(false)),
            (&stop, "stopped", json!({}), Ok(true)),
            (&stop, "preparing", json!({}), Err(Exit::PoolFailed)),
            (&drain, "draining", json!({}), Ok(true)),
            (&drain, "draining", json!({"metrics": {"active_leases": 1}}), Ok(false)),
            (&drain, "draining", json!({"metrics": {"active_leases": 0, "settling": 1}}), Ok(false)),
            (&drain, "external", json!({"draining": true}), Ok(true)),
            (&drain, "stopped", json!({"last_error": "it crashed"}), Err(Exit::PoolFailed)),
            (&drain, "ready", json!({}), Err(Exit::PoolFailed)),
        ];
        for (wish, state, more, expected) in rows {
            assert_eq!(outcome(wish, &pool(state, &more)), expected, "{wish:?} {state} {more}");
        }
    }

    /// ORCH-3038.1: a reload that is rolled back is told from a pool that is lost by it.
    #[test]
    fn a_reload_has_three_ends() {
        let wish = Wish::Reload { model: "new".to_owned() };
        let reload = |state: &str| json!({"reload": {"new_model_ref": "new", "old_model_ref": "old", "state": state}});
        for (state, reload_state, expected) in [
            ("ready", "staging", Ok(false)),
            ("draining", "draining", Ok(false)),
            ("starting", "starting", Ok(false)),
            ("ready", "done", Ok(true)),
            ("starting", "rolled_back", Ok(false)),
            ("ready", "rolled_back", Err(Exit::RolledBack)),
            ("failed", "rolled_back", Err(Exit::PoolFailed)),
        ] {
            assert_eq!(outcome(&wish, &pool(state, &reload(reload_state))), expected, "{state} {reload_state}");
        }
        assert_eq!(outcome(&wish, &pool("ready", &json!({}))), Err(Exit::PoolFailed), "it was forgotten");
    }
}
