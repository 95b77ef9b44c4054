//! `status`: capacity, queues and what runs (LO-CLI-06).

use api_types::{TaskQuery, TaskState};
use openapi_client::Client;
use serde_json::json;

use crate::commands::{pools, tasks};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// One view of the whole. A server that is not ready is an answer, not a failure.
pub(crate) async fn status(client: &Client, json: bool) -> Result<Exit, Failure> {
    let readiness = client.get_readyz().await?;
    let pools = client.list_pools().await?;
    let open = vec![TaskState::Queued, TaskState::Dispatched, TaskState::Streaming];
    let list = client.list_tasks(&TaskQuery { state: open, ..TaskQuery::default() }).await?.tasks;
    if json {
        output::json(&json!({"readiness": readiness, "pools": pools.pools, "tasks": list}))?;
        return Ok(Exit::Ok);
    }
    let mut text = format!(
        "{} is {}ready: {} of {} pools\n",
        client.server(),
        if readiness.ready { "" } else { "not " },
        readiness.pools_ready,
        readiness.pools_total
    );
    if let Some(reason) = &readiness.reason {
        text.push_str(&format!("{}: {}\n", reason.code, reason.message));
    }
    text.push_str(&format!("\n{}", pools::table(&pools.pools)));
    text.push_str(&format!("\n{}", tasks::table(list.iter(), "no tasks are waiting or running")));
    output::write(&text)?;
    Ok(Exit::Ok)
}
