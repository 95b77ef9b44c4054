//! An adapter that remembers what it was asked, and shorthand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use adapter_api::{
    Finish, Job, StreamState, TokenEvent, TokenStream, WorkerAdapter, WorkerError, WorkerHealth, WorkerProps,
};
use adapter_host::{AdapterHost, CallPolicy, CallReport, HostConfig, HostError, HostedStream};
use api_types::{Engine, PoolId, ReplicaId, TaskId, TaskRequest};
use async_trait::async_trait;
use mock::{Config, Mock, Simulation};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// [`Mock`], with counts of what it was asked.
pub(crate) struct Spy {
    pub(crate) mock: Mock,
    pub(crate) canceled: AtomicUsize,
    pub(crate) props_asked: AtomicUsize,
    pub(crate) slots_asked: AtomicUsize,
}

impl Spy {
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let mock = Mock::new(Simulation::new(config));
        let [canceled, props_asked, slots_asked] = [const { AtomicUsize::new(0) }; 3];
        Arc::new(Self { mock, canceled, props_asked, slots_asked })
    }

    pub(crate) fn sim(&self) -> &Simulation {
        self.mock.simulation()
    }
}

#[async_trait]
impl WorkerAdapter for Spy {
    fn engine(&self) -> Engine {
        self.mock.engine()
    }

    async fn health(&self) -> Result<WorkerHealth, WorkerError> {
        self.mock.health().await
    }

    async fn props(&self) -> Result<WorkerProps, WorkerError> {
        self.props_asked.fetch_add(1, Ordering::Relaxed);
        self.mock.props().await
    }

    async fn engine_version(&self) -> Result<String, WorkerError> {
        self.mock.engine_version().await
    }

    async fn submit(&self, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError> {
        self.mock.submit(job).await
    }

    async fn cancel(&self, task: TaskId) -> Result<(), WorkerError> {
        self.canceled.fetch_add(1, Ordering::Relaxed);
        self.mock.cancel(task).await
    }

    async fn busy_slots(&self) -> Result<Option<u32>, WorkerError> {
        self.slots_asked.fetch_add(1, Ordering::Relaxed);
        self.mock.busy_slots().await
    }
}

/// A token a second.
pub(crate) fn slow() -> Config {
    Config { token_interval: Duration::from_secs(1), ..Config::default() }
}

pub(crate) fn pool() -> PoolId {
    "gpu0".into()
}

pub(crate) fn replica() -> ReplicaId {
    "r0".into()
}

pub(crate) fn host(adapter: &Arc<Spy>) -> AdapterHost {
    let host = AdapterHost::new(HostConfig::default());
    assert!(bind(&host, adapter).is_none());
    host
}

pub(crate) fn bind(host: &AdapterHost, adapter: &Arc<Spy>) -> Option<Arc<dyn WorkerAdapter>> {
    host.bind(pool(), replica(), Arc::<Spy>::clone(adapter), CallPolicy::default())
}

pub(crate) fn calls(host: &AdapterHost) -> CallReport {
    host.calls(&pool(), &replica()).expect("bound")
}

pub(crate) fn job(tokens: u32) -> Job {
    let request: TaskRequest = serde_json::from_value(json!({
        "task_id": TaskId::random(), "session_id": "2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b", "workload": "completion",
        "model_ref": "m", "engine": "mock", "ctx": 64, "priority": "interactive", "max_tokens": tokens,
        "deadline_ms": 1000, "prompt": "one two three",
    }))
    .expect("a task");
    Job { request: Arc::new(request), seed: 1, repeatable: true, correlation_id: "corr-1".into() }
}

/// There is no other engine.
pub(crate) fn nowhere() -> bool {
    false
}

pub(crate) async fn submit(host: &AdapterHost, job: &Job) -> Result<HostedStream, HostError> {
    host.submit(&pool(), &replica(), job, CancellationToken::new(), &nowhere).await
}

/// What a stream has handed on.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) text: String,
    pub(crate) tokens: u32,
    pub(crate) finish: Option<Finish>,
}

impl Seen {
    pub(crate) async fn next(&mut self, stream: &mut HostedStream) -> Result<StreamState, HostError> {
        let mut sink = |event: TokenEvent<'_>| match event {
            TokenEvent::Token { text, .. } => {
                self.text.push_str(text);
                self.tokens += 1;
            }
            TokenEvent::End(finish) => self.finish = Some(finish),
            _ => {}
        };
        stream.next_events(&mut sink).await
    }

    /// Until so many tokens have come.
    pub(crate) async fn tokens(&mut self, stream: &mut HostedStream, count: u32) {
        while self.tokens < count {
            assert_eq!(self.next(stream).await, Ok(StreamState::Open));
        }
    }

    /// Until the stream is over.
    pub(crate) async fn rest(&mut self, stream: &mut HostedStream) -> Result<(), HostError> {
        while self.next(stream).await? == StreamState::Open {}
        Ok(())
    }
}
