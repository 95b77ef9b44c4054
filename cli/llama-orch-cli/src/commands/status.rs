//! `status`: capacity, queues and what runs (LO-CLI-06).

use api_types::{TaskState, TaskSummary};
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
    let mut list = client.list_tasks().await?.tasks;
    list.retain(is_open);
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

fn is_open(task: &TaskSummary) -> bool {
    matches!(task.state, TaskState::Queued | TaskState::Dispatched | TaskState::Streaming)
}
