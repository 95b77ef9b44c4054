//! `tasks`, `task ID`, `cancel ID`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::{PoolId, TaskId, TaskList, TaskQuery, TaskSummary};
use openapi_client::Client;

use super::pages;
use crate::args::TasksArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, facts, millis, or_dash, since};

/// Tasks, newest first.
pub(crate) async fn list(client: &Client, args: TasksArgs, json: bool) -> Result<Exit, Failure> {
    let limit = args.limit;
    let filters = filters(args);
    let nothing = match filters == TaskQuery::default() {
        true => "no tasks yet; `llama-orch run PROMPT` submits one",
        false => "no task passes these filters",
    };
    let list = gather(client, filters, limit).await?;
    if json {
        output::json(&list)?;
        return Ok(Exit::Ok);
    }
    output::write(&table(list.tasks.iter(), nothing))?;
    pages::tell_of_more(list.next_cursor.as_ref());
    Ok(Exit::Ok)
}

fn filters(args: TasksArgs) -> TaskQuery {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ago = |time: Duration| i64::try_from(now.saturating_sub(time).as_millis()).unwrap_or(i64::MAX);
    TaskQuery {
        limit: None,
        cursor: None,
        state: args.state,
        priority: args.priority,
        pool_id: args.pool.map(PoolId::from),
        session_id: args.session,
        model_ref: args.model,
        since_ms: args.since.map(ago),
        until_ms: args.until.map(ago),
    }
}

/// The newest `limit` tasks, page by page.
pub(super) async fn gather(client: &Client, mut query: TaskQuery, limit: u32) -> Result<TaskList, Failure> {
    let (tasks, next_cursor) = pages::gather(limit, async |limit, cursor| {
        (query.limit, query.cursor) = (Some(limit), cursor);
        let page = client.list_tasks(&query).await?;
        Ok((page.tasks, page.next_cursor))
    })
    .await?;
    Ok(TaskList { tasks, next_cursor })
}

/// One task.
pub(crate) async fn show(client: &Client, id: TaskId, json: bool) -> Result<Exit, Failure> {
    let task = client.get_task(id).await?;
    if json {
        output::json(&task)?;
    } else {
        output::write(&details(&task))?;
    }
    Ok(Exit::Ok)
}

/// Cancels a task.
pub(crate) async fn cancel(client: &Client, id: TaskId) -> Result<Exit, Failure> {
    client.cancel_task(id).await?;
    Ok(Exit::Ok)
}

/// Tasks as a table.
pub(crate) fn table<'a>(tasks: impl Iterator<Item = &'a TaskSummary>, nothing: &str) -> String {
    let mut table =
        Table::new(&["TASK", "STATE", "PRIORITY", "POOL", "POSITION", "STARTS IN", "TOKENS", "AGE", "MODEL"]);
    for task in tasks {
        let waits = task.queue_position.is_some();
        table.row([
            task.task_id.to_string(),
            task.state.to_string(),
            task.priority.to_string(),
            or_dash(task.pool_id.as_ref()),
            or_dash(task.queue_position),
            or_dash(waits.then(|| millis(task.predicted_start_ms))),
            or_dash(task.tokens_out),
            since(task.admitted_at_ms),
            task.model_ref.clone(),
        ]);
    }
    table.render(nothing)
}

fn details(task: &TaskSummary) -> String {
    let mut pairs = vec![
        ("task", task.task_id.to_string()),
        ("state", task.state.to_string()),
        ("correlation id", task.correlation_id.clone()),
        ("session", task.session_id.to_string()),
        ("model", task.model_ref.clone()),
        ("engine", engine(task)),
        ("workload", task.workload.to_string()),
        ("priority", task.priority.to_string()),
        ("seed", task.seed.to_string()),
        ("pool", or_dash(task.pool_id.as_ref())),
        ("replica", or_dash(task.replica_id.as_ref())),
        ("admitted", format!("{} ago", since(task.admitted_at_ms))),
        ("predicted wait", millis(task.predicted_start_ms)),
        ("waited", or_dash(task.queue_time_ms.map(millis))),
        ("deadline", or_dash((task.deadline_ms > 0).then(|| millis(task.deadline_ms)))),
        ("first token", or_dash(task.first_token_ms.map(millis))),
        ("decoding", or_dash(task.decode_time_ms.map(millis))),
        ("tokens in", or_dash(task.tokens_in)),
        ("tokens out", or_dash(task.tokens_out)),
    ];
    if let Some(position) = task.queue_position {
        pairs.push(("queue position", position.to_string()));
    }
    if let Some(placement) = &task.placement {
        pairs.push(("placement", placement_sentence(placement)));
    }
    if let Some(error) = &task.error {
        pairs.push(("error", format!("{}: {}", error.code, error.message)));
    }
    facts(&pairs)
}

fn engine(task: &TaskSummary) -> String {
    match &task.engine_version {
        Some(version) => format!("{} {version}", task.engine),
        None => task.engine.to_string(),
    }
}

fn placement_sentence(placement: &api_types::PlacementRecord) -> String {
    let mut text =
        format!("{} of {} pools", or_dash(placement.selected_pool_id.as_ref()), placement.candidates_considered);
    for (word, list) in [("filters", &placement.filters_applied), ("ties broken by", &placement.tie_breakers_applied)] {
        if !list.is_empty() {
            text.push_str(&format!("; {word}: {}", list.join(", ")));
        }
    }
    for (flag, word) in [(placement.pinned, "pinned"), (placement.fallback_used, "preference widened")] {
        if flag {
            text.push_str(&format!("; {word}"));
        }
    }
    text
}
