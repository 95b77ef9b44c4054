//! `pools` and `capabilities`.

use api_types::{PoolHealth, PoolStatus};
use openapi_client::Client;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, bytes, or_dash};

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

/// Pools as a table, with the reason under each that is not ready.
pub(crate) fn table(pools: &[PoolStatus]) -> String {
    let mut table =
        Table::new(&["POOL", "STATE", "ENGINE", "SLOTS FREE", "QUEUE", "CONTEXT", "VRAM FREE", "COMPUTE", "MODEL"]);
    for pool in pools {
        table.row([
            pool.id.clone(),
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
            pool.model.clone(),
        ]);
    }
    let mut text = table.render("no pools are configured; add one to the server's configuration");
    for pool in pools.iter().filter(|pool| !pool.health.ready) {
        if let Some(reason) = &pool.health.last_error {
            text.push_str(&format!("{}: {reason}\n", pool.id));
        }
    }
    text
}

fn state(health: &PoolHealth) -> &'static str {
    match health {
        PoolHealth { draining: true, .. } => "draining",
        PoolHealth { ready: true, .. } => "ready",
        PoolHealth { live: true, .. } => "not ready",
        _ => "down",
    }
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
