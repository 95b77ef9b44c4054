//! `verify`: whether a task comes out the same again.

mod compare;
mod record;
mod report;

use std::time::Duration;

use api_types::{KvHint, PoolStatus, Priority, ProofBundle, SessionId, TaskId, TaskRequest};
use openapi_client::{Client, kept_events};

use super::bundle;
use super::follow::follow;
use super::run::pin;
use crate::args::VerifyArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use compare::Output;
use record::Recorder;
use report::{Report, Setting};

/// Least time for the repetition: the queue may be longer today.
const LEAST_DEADLINE: Duration = Duration::from_secs(600);

/// Runs a task again as its record has it, and compares.
pub(crate) async fn verify(client: &Client, args: &VerifyArgs, json: bool) -> Result<Exit, Failure> {
    let id = bundle::find(client, args.task).await?.id.into();
    let bundle = bundle::read(client, &id).await?;
    let then = original(&bundle)?;
    let pool_id = ran_on(&bundle)?;
    let task = repetition(&bundle, pool_id, args.deadline);
    let pool = pool(client, pool_id).await?;

    let mut recorder = Recorder::new(task.max_tokens, pool_id, json);
    let exit = follow(client, &task, args.retries, &mut recorder).await?;
    if exit != Exit::Ok {
        eprintln!("llama-orch: the repetition was canceled; nothing was compared");
        return Ok(exit);
    }
    let now = Output::of(&recorder.events);
    let settings = (Setting::then(&bundle), Setting::now(&pool, &recorder.events));
    let report = Report::new(&bundle, &task, settings, compare::compare(&then, &now));
    if json {
        output::json(&report)?;
    } else {
        output::write(&report.text(&then, &now))?;
    }
    Ok(if report.identical { Exit::Ok } else { Exit::Differs })
}

/// The output that the record holds. One that broke off is compared as far as it came, if it came anywhere.
fn original(bundle: &ProofBundle) -> Result<Output, Failure> {
    let events = kept_events(&bundle.transcript).map_err(|error| {
        Failure::new(Exit::Refused, error.to_string(), "verify it with the version that wrote the record")
    })?;
    let output = Output::of(&events);
    if output.is_empty() && (output.end.is_none() || bundle.truncated) {
        let what = format!("the record of task {} ({}) holds no token", bundle.job_id, bundle.summary.state);
        let next = "there is nothing to compare; `llama-orch explain` says what happened to the task";
        return Err(Failure::new(Exit::Refused, what, next));
    }
    Ok(output)
}

fn ran_on(bundle: &ProofBundle) -> Result<&str, Failure> {
    bundle.summary.pool_id.as_deref().ok_or_else(|| {
        let what = format!("the record of task {} names no pool", bundle.job_id);
        Failure::new(Exit::Refused, what, "only what ran on a pool can be run there again")
    })
}

/// The same request under ids of its own, since a session has budgets and turns: the seed that was in force, on the pool
/// that ran it, from a cold cache, attended.
fn repetition(bundle: &ProofBundle, pool_id: &str, deadline: Option<Duration>) -> TaskRequest {
    let least = i64::try_from(deadline.unwrap_or(LEAST_DEADLINE).as_millis()).unwrap_or(i64::MAX);
    let deadline_ms = if deadline.is_some() { least } else { least.max(bundle.request.deadline_ms) };
    TaskRequest {
        task_id: TaskId::random(),
        session_id: SessionId::random(),
        seed: Some(bundle.summary.seed),
        placement: Some(pin(pool_id.to_owned())),
        priority: Priority::Interactive,
        kv_hint: Some(KvHint::Cold),
        deadline_ms,
        ..bundle.request.clone()
    }
}

async fn pool(client: &Client, id: &str) -> Result<PoolStatus, Failure> {
    let pools = client.list_pools().await?.pools;
    pools.into_iter().find(|pool| pool.id == id).ok_or_else(|| {
        let what = format!("pool {id}, which ran the task, is not there any more");
        Failure::new(
            Exit::Refused,
            what,
            "add it to the server's configuration again; `llama-orch pools` lists what there is",
        )
    })
}
