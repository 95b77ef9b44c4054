//! An adapter for an engine of another host, which can be let go of all at once: when nothing is heard of the host, its streams are
//! over, however long its sockets would keep quiet about that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use adapter_api::{Job, StreamState, TokenEvent, TokenStream, WorkerAdapter, WorkerError, WorkerHealth, WorkerProps};
use api_types::{Engine, TaskId};
use async_trait::async_trait;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The adapter.
pub(super) struct Leashed {
    pub(super) inner: Arc<dyn WorkerAdapter>,
    /// Fires when the host is given up.
    pub(super) gone: CancellationToken,
    /// The host, for messages.
    pub(super) host: String,
}

impl Leashed {
    fn lost(&self) -> WorkerError {
        WorkerError::PoolUnavailable(format!("its host {} has not been heard from", self.host))
    }

    /// A call that is given up with the host.
    async fn unless_gone<T>(
        &self,
        call: impl Future<Output = Result<T, WorkerError>> + Send,
    ) -> Result<T, WorkerError> {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => Err(self.lost()),
            answer = call => answer,
        }
    }
}

#[async_trait]
impl WorkerAdapter for Leashed {
    fn engine(&self) -> Engine {
        self.inner.engine()
    }

    async fn health(&self) -> Result<WorkerHealth, WorkerError> {
        self.unless_gone(self.inner.health()).await
    }

    async fn props(&self) -> Result<WorkerProps, WorkerError> {
        self.unless_gone(self.inner.props()).await
    }

    async fn engine_version(&self) -> Result<String, WorkerError> {
        self.unless_gone(self.inner.engine_version()).await
    }

    async fn submit(&self, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError> {
        let inner = self.unless_gone(self.inner.submit(job)).await?;
        let gone = Box::pin(self.gone.clone().cancelled_owned());
        Ok(Box::new(LeashedStream { inner, gone, host: self.host.clone() }))
    }

    async fn cancel(&self, task_id: TaskId) -> Result<(), WorkerError> {
        self.unless_gone(self.inner.cancel(task_id)).await
    }

    async fn count_tokens(&self, job: &Job) -> Result<Option<u32>, WorkerError> {
        self.unless_gone(self.inner.count_tokens(job)).await
    }

    async fn busy_slots(&self) -> Result<Option<u32>, WorkerError> {
        self.unless_gone(self.inner.busy_slots()).await
    }
}

struct LeashedStream {
    inner: Box<dyn TokenStream>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
    host: String,
}

impl TokenStream for LeashedStream {
    fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, WorkerError>> {
        let state = self.inner.poll_events(cx, sink);
        // Only who has to wait looks; what has come is handed on first.
        if state.is_pending() && self.gone.as_mut().poll(cx).is_ready() {
            let message = format!("its host {} has not been heard from", self.host);
            return Poll::Ready(Err(WorkerError::WorkerReset(message)));
        }
        state
    }
}
