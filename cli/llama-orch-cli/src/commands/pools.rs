//! `pools` and `capabilities`.

pub(super) mod board;
mod details;
mod wish;

use api_types::{PoolHealth, PoolState, PoolStatus};
use openapi_client::Client;

use crate::args::PoolsCommand;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, bytes, or_dash};
use wish::{Wish, carry_out};

/// Carries out one of the commands.
pub(crate) async fn pools(client: &Client, command: PoolsCommand, json: bool) -> Result<Exit, Failure> {
    let (pool, wish, wait) = match command {
        PoolsCommand::Show { pool } => return details::show(client, &pool, json).await,
        PoolsCommand::Drain(args) => (args.pool, Wish::Drain { deadline: args.deadline }, args.wait),
        PoolsCommand::Reload(args) => (args.pool, Wish::Reload { model: args.model }, args.wait),
        PoolsCommand::Start(args) => (args.pool, Wish::Start, args.wait),
        PoolsCommand::Unload(args) => (args.pool, Wish::Unload, args.wait),
        PoolsCommand::Stop(args) => (args.pool, Wish::Stop { deadline: args.deadline }, args.wait),
    };
    carry_out(client, &pool, &wish, !wait.no_wait, json).await
}

/// Pools with health, slots, queue and memory.
pub(crate) async fn list(client: &Client, json: bool) -> Result<Exit, Failure> {
    let list = client.list_pools().await?;
    if json {
        output::json(&list)?;
    } else {
        output::write(&table(&list.pools))?;
    }
    Ok(Exit::Ok)
}

/// What each pool can do.
pub(crate) async fn capabilities(client: &Client, json: bool) -> Result<Exit, Failure> {
    let capabilities = client.get_capabilities().await?;
    if json {
        output::json(&capabilities)?;
        return Ok(Exit::Ok);
    }
    let mut table =
        Table::new(&["POOL", "ENGINE", "VERSION", "READY", "CONTEXT", "MAX TOKENS", "SLOTS", "WORKLOADS", "MODEL"]);
    for entry in &capabilities.engines {
        let workloads: Vec<&str> = entry.supported_workloads.iter().map(|workload| workload.as_str()).collect();
        table.row([
            or_dash(entry.pool_id.as_ref()),
            entry.engine.to_string(),
            or_dash(known(&entry.engine_version)),
            if entry.ready { "yes" } else { "no" }.to_owned(),
            or_dash((entry.ctx_max > 0).then_some(entry.ctx_max)),
            or_dash((entry.max_tokens_out > 0).then_some(entry.max_tokens_out)),
            or_dash(entry.slots_total),
            or_dash(known(&workloads.join(","))),
            or_dash(entry.model_ref.as_ref()),
        ]);
    }
    output::write(&format!("API {}\n{}", capabilities.api_version, table.render("no pools are configured")))?;
    Ok(Exit::Ok)
}

/// Pools as a table; under it what each is doing that is not ready, and why.
pub(crate) fn table(pools: &[PoolStatus]) -> String {
    let mut table = Table::new(&[
        "POOL",
        "HOST",
        "STATE",
        "ENGINE",
        "SLOTS FREE",
        "QUEUE",
        "CONTEXT",
        "VRAM FREE",
        "COMPUTE",
        "PID",
        "RESTARTS",
        "MODEL",
    ]);
    for pool in pools {
        table.row([
            pool.id.clone(),
            or_dash(pool.worker.as_ref()),
            state(&pool.health).to_owned(),
            pool.engine.to_string(),
            format!("{}/{}", pool.slots_free, pool.slots_total),
            format!("{}/{}", pool.queue_depth, pool.queue_capacity),
            or_dash(pool.ctx),
            or_dash(
                pool.vram_free_bytes
                    .zip(pool.vram_total_bytes)
                    .map(|(free, all)| format!("{}/{}", bytes(free), bytes(all))),
            ),
            pool.compute.clone(),
            or_dash(pool.health.pid),
            or_dash(pool.health.restarts),
            pool.model.clone(),
        ]);
    }
    let mut text = table.render("no pools are configured; add one to the server's configuration");
    for pool in pools.iter().filter(|pool| !pool.health.ready) {
        if pool.health.activity.is_some() {
            text.push_str(&format!("{}: {}\n", pool.id, board::sentence(pool)));
        }
        if let Some(reason) = &pool.health.last_error {
            let fault = pool.health.fault.map(|fault| format!(" [{fault}]")).unwrap_or_default();
            text.push_str(&format!("{}: {reason}{fault}\n", pool.id));
        }
    }
    text
}

/// One word or two on how a pool stands.
fn state(health: &PoolHealth) -> &'static str {
    match health {
        PoolHealth { state: Some(PoolState::BackingOff), .. } => "backing off",
        PoolHealth { state: Some(state), .. } if !matches!(state, PoolState::External | PoolState::Ready) => {
            state.as_str()
        }
        PoolHealth { draining: true, .. } => "draining",
        PoolHealth { ready: true, .. } => "ready",
        PoolHealth { live: true, .. } => "not ready",
        _ => "down",
    }
}

/// Why a pool does not serve, without what to do about it, which is told apart.
fn reason(health: &PoolHealth) -> Option<String> {
    let error = health.last_error.as_deref()?;
    let fix = health.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
    Some(error.strip_suffix(&fix).unwrap_or(error).to_owned())
}

/// A pool has failed.
pub(super) fn failure_of(pool: &PoolStatus) -> Failure {
    let reason = reason(&pool.health).unwrap_or_else(|| "the server does not say why".to_owned());
    let fault = pool.health.fault.map(|fault| format!(" [{fault}]")).unwrap_or_default();
    let next = pool.health.fix.clone();
    let next = next.unwrap_or_else(|| format!("`llama-orch logs {}` shows what its engine has written", pool.id));
    Failure::new(Exit::PoolFailed, format!("pool {} failed: {reason}{fault}", pool.id), next)
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
