//! What an engine must do before it gets tasks (ORCH-3049): a short decode, and a cancel that is noticed.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Job, StreamState, TokenEvent};
use adapter_host::{AdapterHost, HostError, HostedStream};
use api_types::{Engine, PoolFault, PoolId, ReplicaId, TaskId, TaskRequest};
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// Time for each of the two.
const LIMIT: Duration = Duration::from_secs(60);
/// Tokens of the decode, and of the one that is canceled after its first.
const FEW: u32 = 4;
const MANY: u32 = 64;

/// An engine that generates text, to be tested.
#[derive(Clone, Copy)]
pub struct Tested<'a> {
    /// Where its adapter is bound.
    pub host: &'a AdapterHost,
    /// The pool.
    pub pool: &'a PoolId,
    /// The replica.
    pub replica: &'a ReplicaId,
    /// Its kind.
    pub engine: Engine,
    /// The model that it serves.
    pub model: &'a str,
}

/// Tests it. The tokens of the decode.
///
/// # Errors
/// What did not work.
pub async fn run(tested: Tested<'_>) -> Result<u32, Failure> {
    let tokens = within("decode", decode(tested)).await?;
    within("cancel", cancel(tested)).await?;
    Ok(tokens)
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, String>>) -> Result<T, Failure> {
    let done = timeout(LIMIT, work).await;
    let why = match done {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(why)) => why,
        Err(_) => format!("it was not over after {} s", LIMIT.as_secs()),
    };
    let message = format!("the engine says that it is ready, and failed the self-test's {what}: {why}");
    Err(Failure::new(PoolFault::SelfTestFailed, message)
        .with_fix("see its log: `llama-orch logs POOL`; supervision.self_test = false skips the test"))
}

/// A short decode to its end; the tokens that the engine counted.
async fn decode(tested: Tested<'_>) -> Result<u32, String> {
    let mut stream = submit(tested, FEW).await?.1;
    let mut counted = None;
    loop {
        let state = next(&mut stream, |event| {
            if let TokenEvent::End(finish) = event {
                counted = finish.usage.tokens_out;
            }
        });
        if state.await? == StreamState::Ended {
            return counted.filter(|tokens| *tokens > 0).ok_or_else(|| "it ended without a token".to_owned());
        }
    }
}

/// A longer decode that is broken off after its first token; then the engine must be free again.
async fn cancel(tested: Tested<'_>) -> Result<(), String> {
    let (task, mut stream) = submit(tested, MANY).await?;
    let mut begun = false;
    while !begun {
        let state = next(&mut stream, |event| begun |= matches!(event, TokenEvent::Token { .. }));
        if state.await? == StreamState::Ended {
            // A model that has nothing to say cannot be interrupted.
            return Ok(());
        }
    }
    drop(stream);
    tested.host.settled(task).await;
    Ok(())
}

async fn next(stream: &mut HostedStream, mut see: impl FnMut(&TokenEvent<'_>) + Send) -> Result<StreamState, String> {
    let events = poll_fn(|cx| stream.poll_events(cx, &mut |event| see(&event)));
    events.await.map_err(|error| sentence(&error))
}

async fn submit(tested: Tested<'_>, max_tokens: u32) -> Result<(TaskId, HostedStream), String> {
    let request: TaskRequest = serde_json::from_value(json!({
        "task_id": uuid::Uuid::new_v4(),
        "session_id": uuid::Uuid::new_v4(),
        "workload": "completion",
        "model_ref": tested.model,
        "engine": tested.engine,
        "ctx": 64 + max_tokens,
        "priority": "interactive",
        "max_tokens": max_tokens,
        "deadline_ms": 60_000,
        "seed": 1,
        "kv_hint": "cold",
        "prompt": "The quick brown fox",
    }))
    .expect("the self-test's request is one of the contract's");
    let task = request.task_id;
    let correlation_id = format!("self-test-{}", tested.pool).into();
    let job = Job { request: Arc::new(request), seed: 1, repeatable: true, correlation_id };
    let Tested { host, pool, replica, .. } = tested;
    let submitted = host.submit(pool, replica, &job, CancellationToken::new(), &|| false).await;
    submitted.map(|stream| (task, stream)).map_err(|error| sentence(&error))
}

fn sentence(error: &HostError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
