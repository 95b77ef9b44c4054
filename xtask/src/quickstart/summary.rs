//! What came of the prompt, in figures.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use api_types::TaskSummary;
use api_types::sse::StartedFrame;

use super::folder::RunFolder;
use crate::cmd::Cmd;
use crate::repo;

/// Asks the daemon for its record of the task, keeps it and prints what matters in it.
pub(super) fn print(client: &Path, server: &str, folder: &RunFolder, started: &StartedFrame) -> anyhow::Result<()> {
    let task_id = started.job_id.as_deref().context("the stream's start does not name the task")?;
    let mut record = String::new();
    Cmd::new(client).env("LLAMA_ORCH_SERVER", server).args(["task", task_id, "--json"]).run_lines(|line| {
        record.push_str(line);
        record.push('\n');
        Ok(())
    })?;
    std::fs::write(folder.task(), &record)?;
    let task: TaskSummary = serde_json::from_str(&record).context("the daemon's record of the task is not one")?;
    print!("{}", text(&task, started, folder));
    Ok(())
}

fn text(task: &TaskSummary, started: &StartedFrame, folder: &RunFolder) -> String {
    let mut text = String::new();
    for (name, value) in figures(task, started).into_iter().chain(files(folder)) {
        writeln!(text, "{name:<20} {value}").expect("a String takes everything");
    }
    text
}

fn figures(task: &TaskSummary, started: &StartedFrame) -> Vec<(&'static str, String)> {
    let unknown = || "unknown".to_owned();
    let ms = |value: Option<i64>| value.map_or_else(unknown, |value| format!("{value} ms"));
    let count = |value: Option<i32>| value.map_or_else(unknown, |value| value.to_string());
    vec![
        ("task", task.task_id.to_string()),
        ("pool", task.pool_id.clone().unwrap_or_else(unknown)),
        ("state", task.state.to_string()),
        ("queue position", started.queue_position.to_string()),
        ("time in the queue", ms(task.queue_time_ms)),
        ("time to first token", ms(task.first_token_ms)),
        ("tokens", format!("{} in, {} out", count(task.tokens_in), count(task.tokens_out))),
        ("speed", tokens_per_second(task).map_or_else(unknown, |speed| format!("{speed:.1} tokens/s"))),
    ]
}

/// The decode time begins with the first token, so that one is not counted.
fn tokens_per_second(task: &TaskSummary) -> Option<f64> {
    let seconds = task.decode_time_ms.filter(|ms| *ms > 0)? as f64 / 1000.0;
    Some(f64::from(task.tokens_out? - 1) / seconds)
}

fn files(folder: &RunFolder) -> Vec<(&'static str, String)> {
    let files = [
        ("task record", folder.task()),
        ("stream", folder.transcript()),
        ("configuration", folder.config()),
        ("daemon's log", folder.daemon_log()),
    ];
    files.into_iter().map(|(name, path)| (name, repo::shown(&path))).collect()
}
