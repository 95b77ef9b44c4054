//! What an engine must do before it gets tasks (ORCH-3049): a short decode, and a cancel that is noticed.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Job, StreamState, TokenEvent};
use adapter_host::{HostError, HostedStream};
use api_types::{PoolFault, TaskId, TaskRequest, Workload};
use pool_managerd::failure::Failure;
use serde_json::json;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::narrate;
use crate::pools::Pool;

/// Time for each of the two.
const LIMIT: Duration = Duration::from_secs(60);
/// Tokens of the decode, and of the one that is canceled after its first.
const FEW: u32 = 4;
const MANY: u32 = 64;

/// Tests the engine that is bound to a pool. An engine that generates no text is only asked how it is.
pub(super) async fn run(app: &Arc<App>, pool: &Pool) -> Result<(), Failure> {
    if !pool.workloads().contains(&Workload::Completion) {
        return Ok(());
    }
    let begun = tokio::time::Instant::now();
    let tokens = within("decode", decode(app, pool)).await?;
    within("cancel", cancel(app, pool)).await?;
    narrate::self_tested(pool, tokens, begun.elapsed());
    Ok(())
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
async fn decode(app: &App, pool: &Pool) -> Result<u32, String> {
    let mut stream = submit(app, pool, FEW).await?.1;
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
async fn cancel(app: &App, pool: &Pool) -> Result<(), String> {
    let (task, mut stream) = submit(app, pool, MANY).await?;
    let mut begun = false;
    while !begun {
        let state = next(&mut stream, |event| begun |= matches!(event, TokenEvent::Token { .. }));
        if state.await? == StreamState::Ended {
            // A model that has nothing to say cannot be interrupted.
            return Ok(());
        }
    }
    drop(stream);
    app.host.settled(task).await;
    Ok(())
}

async fn next(stream: &mut HostedStream, mut see: impl FnMut(&TokenEvent<'_>) + Send) -> Result<StreamState, String> {
    let events = poll_fn(|cx| stream.poll_events(cx, &mut |event| see(&event)));
    events.await.map_err(|error| sentence(&error))
}

async fn submit(app: &App, pool: &Pool, max_tokens: u32) -> Result<(TaskId, HostedStream), String> {
    let request: TaskRequest = serde_json::from_value(json!({
        "task_id": uuid::Uuid::new_v4(),
        "session_id": uuid::Uuid::new_v4(),
        "workload": "completion",
        "model_ref": pool.served().reference.as_ref(),
        "engine": pool.config.engine,
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
    let correlation_id = format!("self-test-{}", pool.id).into();
    let job = Job { request: Arc::new(request), seed: 1, repeatable: true, correlation_id };
    let replica = &pool.replicas()[0].id;
    let submitted = app.host.submit(&pool.id, replica, &job, CancellationToken::new(), &|| false).await;
    submitted.map(|stream| (task, stream)).map_err(|error| sentence(&error))
}

fn sentence(error: &HostError) -> String {
    narrate::with_causes(error)
}
