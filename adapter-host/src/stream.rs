//! A running task as its driver sees it.

use std::fmt;
use std::task::{Context, Poll};

use adapter_api::{StreamState, TokenEvent};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::HostError;
use crate::task::Entered;

/// A running task. Like [`adapter_api::TokenStream`], except that it can also end as [`HostError::Canceled`]. Dropping it
/// cancels the task at the engine.
pub struct HostedStream {
    entered: Entered,
    /// One future, in a set because that polls it only when it has been woken, and not for every token.
    canceled: FuturesUnordered<WaitForCancellationFutureOwned>,
}

impl HostedStream {
    pub(crate) fn new(entered: Entered) -> Self {
        let canceled = FuturesUnordered::from_iter([entered.task.token.clone().cancelled_owned()]);
        Self { entered, canceled }
    }

    /// Waits for the engine's next bytes or for cancellation, and hands every event of one read to `sink`, in order.
    ///
    /// The sink runs under the task's lock: it must not wait for anything that cancels this very task.
    ///
    /// # Errors
    /// [`HostError::Canceled`] when the task's token fired or [`crate::AdapterHost::cancel`] was called, from the first call
    /// after that on; [`HostError::Worker`] for what the engine reports. After any error or `Ended` it must not be called
    /// again.
    pub fn poll_events(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(TokenEvent<'_>),
    ) -> Poll<Result<StreamState, HostError>> {
        let task = &self.entered.task;
        if self.canceled.poll_next_unpin(cx).is_ready() {
            return Poll::Ready(Err(self.cancel()));
        }
        match task.poll(cx, sink) {
            None => Poll::Ready(Err(self.cancel())),
            Some(goes_on @ (Poll::Pending | Poll::Ready(Ok(StreamState::Open)))) => goes_on.map_err(HostError::Worker),
            Some(ended) => {
                self.entered.leave();
                ended.map_err(HostError::Worker)
            }
        }
    }

    /// [`HostedStream::poll_events`] as a future. Dropping the future loses nothing; the next call goes on where it stood.
    ///
    /// # Errors
    /// As there.
    pub async fn next_events(&mut self, sink: &mut dyn FnMut(TokenEvent<'_>)) -> Result<StreamState, HostError> {
        std::future::poll_fn(|cx| self.poll_events(cx, sink)).await
    }

    fn cancel(&self) -> HostError {
        self.entered.abandon();
        HostError::Canceled
    }
}

impl fmt::Debug for HostedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostedStream").field(&self.entered.task).finish()
    }
}
