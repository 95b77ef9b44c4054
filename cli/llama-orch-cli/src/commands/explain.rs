//! `explain ID`: why a task went where it went, in sentences (LO-PLC-17).

mod words;

use std::fmt::Write as _;

use api_types::{InputTokens, PlacementRecord, TaskId, TaskState, TaskSummary, TokenSource};
use openapi_client::Client;

use crate::exit::Exit;
use crate::failure::{self, Failure};
use crate::output;
use crate::show::{millis, since};

/// Explains one task; with `json` it is the server's own record.
pub(crate) async fn explain(client: &Client, id: TaskId, json: bool) -> Result<Exit, Failure> {
    let task = client.get_task(id).await?;
    if json {
        output::json(&task)?;
    } else {
        output::write(&text(&task))?;
    }
    Ok(Exit::Ok)
}

fn text(task: &TaskSummary) -> String {
    let mut text = format!("Task {}, {} of {}: {}.\n", task.task_id, task.priority, task.model_ref, now(task));
    let placement = match &task.placement {
        Some(placement) => placed(placement),
        None => vec!["The server has no record of it.".to_owned()],
    };
    let sections = [
        ("Placement", placement),
        ("Moves", moves(task)),
        ("Prediction and outcome", [predictions(task), vec![deadline(task)]].concat()),
        ("Run", run(task)),
        ("Error", error(task)),
    ];
    for (heading, sentences) in sections.into_iter().filter(|(_, sentences)| !sentences.is_empty()) {
        let _ = writeln!(text, "\n{heading}");
        for sentence in sentences.iter().filter(|sentence| !sentence.is_empty()) {
            let _ = writeln!(text, "  {sentence}");
        }
    }
    text
}

/// What the task does now, or how it ended.
fn now(task: &TaskSummary) -> String {
    let pool = task.pool_id.as_ref().map_or_else(String::new, |pool| format!(" on pool {pool}"));
    match task.state {
        TaskState::Queued => {
            let ahead = match task.queue_position {
                Some(0) => ", next in line".to_owned(),
                Some(ahead) => format!(", behind {}", count(ahead, "task")),
                None => String::new(),
            };
            format!("it waits{pool}{ahead}, since {}", since(task.admitted_at_ms))
        }
        TaskState::Dispatched => format!("it runs{pool}, without a token yet"),
        TaskState::Streaming => format!("it runs{pool}, and its tokens arrive"),
        TaskState::Completed => format!("it ended as meant{pool}"),
        TaskState::Failed => format!("it failed{pool}"),
        TaskState::Canceled => format!("it was canceled{pool}"),
        TaskState::Expired => format!("its deadline passed{pool}"),
    }
}

fn placed(placement: &PlacementRecord) -> Vec<String> {
    let mut sentences = vec![choice(placement)];
    if placement.pinned {
        sentences.push("The client pinned the pool.".to_owned());
    }
    if placement.fallback_used {
        sentences
            .push("None of the pools that the client prefers could take it, so all pools were considered.".to_owned());
    }
    for other in &placement.outranked {
        sentences.push(format!("{} could have taken it, but {}.", other.pool_id, words::lost(&other.by)));
    }
    for other in &placement.excluded {
        sentences.push(format!("{} could not take it: {}.", other.pool_id, words::filter(&other.reason)));
    }
    // Records from before the lists name the filters only.
    if placement.excluded.is_empty() && !placement.filters_applied.is_empty() {
        let reasons: Vec<&str> = placement.filters_applied.iter().map(|word| words::filter(word)).collect();
        sentences.push(format!("Pools were left out for these reasons: {}.", reasons.join("; ")));
    }
    if placement.unlisted > 0 {
        sentences.push(format!("{} lost or could not take it.", count(placement.unlisted, "further pool")));
    }
    sentences
}

fn choice(placement: &PlacementRecord) -> String {
    let considered = count(placement.candidates_considered, "pool");
    let Some(pool) = &placement.selected_pool_id else {
        return format!("No pool was chosen; {considered} were looked at.");
    };
    let reasons: Vec<&str> = placement.tie_breakers_applied.iter().map(|word| words::won(word)).collect();
    match reasons.is_empty() {
        true if placement.candidates_considered == 1 => format!("{pool} was chosen at admission; it is the only pool."),
        true => format!("{pool} was chosen at admission: of {considered} it was the only one that could take it."),
        false => format!("{pool} was chosen at admission from {considered}: {}.", reasons.join("; ")),
    }
}

fn moves(task: &TaskSummary) -> Vec<String> {
    let sentence = |step: &api_types::PlacementMove| {
        let after = millis(step.at_ms.saturating_sub(task.admitted_at_ms));
        let way = match step.from == step.to {
            true => format!("placed again on {}", step.to),
            false => format!("from {} to {}", step.from, step.to),
        };
        format!("After {after} {way}: {}.", words::moved(step.reason))
    };
    task.moves.iter().map(sentence).collect()
}

/// Each prediction beside what happened.
fn predictions(task: &TaskSummary) -> Vec<String> {
    let start = match (task.queue_time_ms, task.ended_at_ms) {
        (Some(waited), _) => format!("it started after {}", millis(waited)),
        (None, Some(_)) => "it never started".to_owned(),
        (None, None) => "it has not started yet".to_owned(),
    };
    let mut sentences = vec![format!("Predicted to start after {}; {start}.", millis(task.predicted_start_ms))];
    if let Some(predicted) = task.placement.as_ref().and_then(|placement| placement.predicted_end_ms) {
        let end = match lasted(task) {
            Some(lasted) => format!("it ended after {}", millis(lasted)),
            None => "it has not ended yet".to_owned(),
        };
        sentences.push(format!("Predicted to end after {}; {end}.", millis(predicted)));
    }
    sentences
}

/// The deadline, the chance of meeting it, and what came of it. Records from before it was kept say nothing.
fn deadline(task: &TaskSummary) -> String {
    if task.deadline_ms <= 0 {
        return String::new();
    }
    let mut sentence = format!("It had {} from admission to its end", millis(task.deadline_ms));
    if let Some(probability) = task.on_time_probability {
        let _ = write!(sentence, "; its chance to make it was estimated as {:.0} %", probability * 100.0);
    }
    let left = lasted(task).map(|lasted| task.deadline_ms.saturating_sub(lasted));
    match (task.state, left) {
        (TaskState::Expired, _) => sentence.push_str("; it did not"),
        (TaskState::Completed, Some(left @ 0..)) => {
            let _ = write!(sentence, "; {} were left", millis(left));
        }
        _ => {}
    }
    sentence + "."
}

/// Time from admission to the end.
fn lasted(task: &TaskSummary) -> Option<i64> {
    Some(task.ended_at_ms?.saturating_sub(task.admitted_at_ms))
}

fn run(task: &TaskSummary) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(input) = &task.input_tokens {
        sentences.push(prompt(input, task.tokens_in));
    }
    match task.attempts {
        0 => {}
        1 => sentences.push("It was handed to an engine once.".to_owned()),
        times => sentences.push(format!("It was handed to an engine {times} times.")),
    }
    if task.recovered {
        sentences.push("It was taken up again after a restart of the orchestrator.".to_owned());
    }
    if let Some(tokens) = task.tokens_out {
        let most = if task.max_tokens > 0 { format!(" of at most {}", task.max_tokens) } else { String::new() };
        sentences.push(format!("It generated {}{most}.", count(tokens, "token")));
    }
    sentences
}

fn prompt(input: &InputTokens, counted: Option<i32>) -> String {
    let tokens = count(input.tokens, "token");
    match (input.source, counted) {
        (TokenSource::Exact, _) => format!("Its prompt has {tokens}, by the engine's own tokenizer."),
        (TokenSource::Estimate, None) => format!("Its prompt was taken for {tokens}, an estimate."),
        (TokenSource::Estimate, Some(counted)) => {
            format!("Its prompt was taken for {tokens}, an estimate; the engine counted {counted}.")
        }
    }
}

fn error(task: &TaskSummary) -> Vec<String> {
    let Some(error) = &task.error else { return Vec::new() };
    let advice = failure::advice(error).map(|advice| format!("Next: {advice}."));
    std::iter::once(format!("{}: {}.", error.code, error.message)).chain(advice).collect()
}

/// `1 task`, `3 tasks`.
fn count(number: impl Into<i64>, noun: &str) -> String {
    match number.into() {
        1 => format!("1 {noun}"),
        number => format!("{number} {noun}s"),
    }
}
