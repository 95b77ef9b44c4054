//! `run`: submit a task, print its tokens as they come.

mod display;
mod prompt;
mod target;

use std::time::Duration;

use api_types::{
    ChatMessage, DeterminismLevel, PlacementMode, PlacementOverrides, Priority, Sampling, SessionId, TaskId,
    TaskRequest,
};
use openapi_client::Client;

use super::follow::follow;
use crate::args::{RunArgs, SamplingArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use display::Display;
use target::Target;

/// Runs one task to its end.
pub(crate) async fn run(client: &Client, args: Box<RunArgs>, json: bool) -> Result<Exit, Failure> {
    let prompt = prompt::read(args.prompt.as_deref(), args.file.as_deref())?;
    let target = target::choose(&client.get_capabilities().await?, &args)?;
    let (quiet, retries) = (args.quiet, args.retries);
    let task = request(*args, target, prompt);
    follow(client, &task, retries, &mut Display::new(json, quiet)).await
}

/// Runs a prompt on one pool, with its own choice of everything else.
pub(super) async fn on_pool(
    client: &Client,
    pool: &str,
    prompt: String,
    max_tokens: i32,
    json: bool,
) -> Result<Exit, Failure> {
    let args = RunArgs {
        pool: Some(pool.to_owned()),
        max_tokens: Some(max_tokens),
        priority: Priority::Interactive,
        deadline: Duration::from_secs(600),
        retries: 3,
        prompt: Some(prompt),
        file: None,
        chat: false,
        system: None,
        model: None,
        engine: None,
        ctx: None,
        seed: None,
        session: None,
        strict: false,
        quiet: false,
        sampling: SamplingArgs::default(),
    };
    run(client, Box::new(args), json).await
}

fn request(args: RunArgs, target: Target, prompt: String) -> TaskRequest {
    let (prompt, messages) = match args.chat {
        true => (None, Some(messages(args.system, prompt))),
        false => (Some(prompt), None),
    };
    TaskRequest {
        task_id: TaskId::random(),
        session_id: args.session.unwrap_or_else(SessionId::random),
        workload: api_types::Workload::Completion,
        model_ref: target.model,
        engine: target.engine,
        ctx: target.ctx,
        priority: args.priority,
        max_tokens: target.max_tokens,
        deadline_ms: i64::try_from(args.deadline.as_millis()).unwrap_or(i64::MAX),
        prompt,
        messages,
        inputs: None,
        seed: args.seed,
        determinism: args.strict.then_some(DeterminismLevel::Strict),
        sampler_profile_version: None,
        sampling: sampling(args.sampling),
        expected_tokens: None,
        kv_hint: None,
        placement: args.pool.map(pin),
        output_mode: None,
        response_format: None,
        tools: None,
        tool_choice: None,
    }
}

fn messages(system: Option<String>, user: String) -> Vec<ChatMessage> {
    let message = |role: &str, text: String| ChatMessage {
        role: role.to_owned(),
        content: Some(text.into()),
        other: serde_json::Map::new(),
    };
    system.map(|text| message("system", text)).into_iter().chain([message("user", user)]).collect()
}

/// The constraint that leaves one pool.
pub(super) fn pin(pool: String) -> PlacementOverrides {
    PlacementOverrides { mode: PlacementMode::Pin, pin_pool_id: Some(pool), ..PlacementOverrides::default() }
}

fn sampling(args: SamplingArgs) -> Option<Sampling> {
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        top_k: args.top_k,
        min_p: args.min_p,
        repeat_penalty: args.repeat_penalty,
        stop: (!args.stop.is_empty()).then_some(args.stop),
        ..Sampling::default()
    };
    (sampling != Sampling::default()).then_some(sampling)
}
