//! `bench predict`: what predicted starts and on-time probabilities are worth at steady load.

mod calibration;
mod figures;
mod load;
mod record;
mod waits;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use api_types::{TaskId, TaskQuery, TaskSummary};
use openapi_client::Client;

use figures::Figures;
use load::draw;
use record::Record;

use super::PATIENCE;
use super::open_loop::drive;
use super::rig::{EngineSpec, Rig};
use super::task::Task;
use crate::args::PredictArgs;
use crate::commands::tasks::gather;
use crate::failure::Failure;

const POOL: &str = "bench-predict";
/// Admissions take next to no time, so a few connections do.
const CONNECTIONS: u32 = 8;
/// Nobody opens the streams of the interactive tasks, and no record may be gone before it was read.
const SETTINGS: &str = "[stream]\nattach_timeout_ms = 3600000\n[history]\nmax_tasks = 0\n";

/// Three times the load's own time, and a while for the rest.
pub(super) fn time_limit(args: &PredictArgs) -> Duration {
    draw(args).last().map_or(Duration::ZERO, |last| last.at) * 3 + PATIENCE * 2
}

/// Measures once.
pub(super) async fn measure(args: &PredictArgs) -> Result<Figures, Failure> {
    let tasks: Arc<[Task]> = draw(args).into();
    let rig = Rig::start(&[engine(args)], SETTINGS).await?;
    if let Some(last) = tasks.last() {
        eprintln!("llama-orch: {} tasks in {} s", tasks.len(), last.at.as_secs());
    }
    let answers = drive(&rig.orchestrator.url, POOL, &tasks, CONNECTIONS).await?;
    rig.orchestrator.idle().await?;
    let mut summaries = summaries(&rig.orchestrator.client).await?;
    let join = |(task, answer)| Record::new(task, answer, summaries.remove(&task.id));
    let records: Vec<Record> = tasks.iter().zip(&answers).map(join).collect();
    if let Some(path) = &args.records {
        let text = lines(&records, args.warm_up)?;
        std::fs::write(path, text)
            .map_err(|error| Failure::local(format!("cannot write {}: {error}", path.display())))?;
    }
    Ok(Figures::new(args, &records))
}

fn engine(args: &PredictArgs) -> EngineSpec {
    let options = [
        ("--prefill-speed", load::prefill_tokens_per_second(args.interval_ms).to_string()),
        ("--eos-percent", format!("{}..100", args.shortest)),
    ];
    EngineSpec {
        options: options.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect(),
        queue: args.warm_up + args.tasks,
        ..EngineSpec::new(POOL, args.slots, args.interval_ms)
    }
}

/// Every task the server knows.
async fn summaries(client: &Client) -> Result<HashMap<TaskId, TaskSummary>, Failure> {
    let list = gather(client, TaskQuery::default(), u32::MAX).await?;
    Ok(list.tasks.into_iter().map(|task| (task.task_id, task)).collect())
}

fn lines(records: &[Record], warm_up: u32) -> Result<String, Failure> {
    let mut text = String::new();
    for record in records.iter().skip(warm_up as usize) {
        let json = serde_json::to_string(record)
            .map_err(|error| Failure::local(format!("cannot write a record as JSON: {error}")))?;
        let _ = writeln!(text, "{json}");
    }
    Ok(text)
}
