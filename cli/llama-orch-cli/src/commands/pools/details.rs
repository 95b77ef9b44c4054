//! `pools show`: everything that is known of one pool.

use api_types::{PoolHealth, PoolId, PoolStatus};
use openapi_client::Client;

use super::{reason, state};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{bytes, facts, millis, or_dash};

pub(super) async fn show(client: &Client, pool: &PoolId, json: bool) -> Result<Exit, Failure> {
    let status = find(client, pool).await?;
    if json {
        output::json(&status)?;
    } else {
        output::write(&facts_of(&status))?;
    }
    Ok(Exit::Ok)
}

/// The pool as it is.
pub(super) async fn find(client: &Client, pool: &PoolId) -> Result<PoolStatus, Failure> {
    let name = pool.to_string();
    let found = client.list_pools().await?.pools.into_iter().find(|status| status.id == name);
    found.ok_or_else(|| {
        Failure::new(Exit::Refused, format!("the server has no pool {name}"), "`llama-orch pools` lists what there is")
    })
}

fn facts_of(pool: &PoolStatus) -> String {
    let PoolHealth { activity, progress, reload, .. } = &pool.health;
    let doing = activity.as_ref().map(|activity| match progress {
        Some(share) => format!("{activity} ({:.0} %)", share * 100.0),
        None => activity.clone(),
    });
    let reload = reload.as_ref().map(|reload| {
        let error = reload.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        format!("{} from {} to {}{error}", reload.state, reload.old_model_ref, reload.new_model_ref)
    });
    let all = [
        ("pool", Some(pool.id.clone())),
        ("state", Some(state(&pool.health).to_owned())),
        ("doing", doing),
        ("last error", reason(&pool.health)),
        ("kind of error", pool.health.fault.map(|fault| fault.to_string())),
        ("what to do", pool.health.fix.clone()),
        ("next attempt", pool.health.next_attempt_ms.map(|wait| format!("in {}", millis(wait)))),
        ("restarts", pool.health.restarts.map(|count| count.to_string())),
        ("last reload", reload),
        ("model", Some(pool.model.clone())),
        ("engine", Some(format!("{} {}", pool.engine, pool.health.engine_version.as_deref().unwrap_or("-")))),
        ("came to be by", Some(pool.provisioning.clone())),
        ("process", pool.health.pid.map(|pid| pid.to_string())),
        ("runs on", Some(pool.compute.clone())),
        (
            "memory free",
            pool.vram_free_bytes
                .map(|free| format!("{} of {}", bytes(free), or_dash(pool.vram_total_bytes.map(bytes)))),
        ),
        ("context", pool.ctx.map(|ctx| format!("{ctx} tokens a slot"))),
        ("slots free", Some(format!("{} of {}", pool.slots_free, pool.slots_total))),
        ("queue", Some(format!("{} of {}", pool.queue_depth, pool.queue_capacity))),
    ];
    let there: Vec<_> = all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    facts(&there)
}
