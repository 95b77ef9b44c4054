//! Which requests of a connection are in progress, so that an idle one can be told from one whose stream is silent.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};

/// The requests of one connection.
#[derive(Default)]
pub(super) struct Requests(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Counts {
    fn read(&self) -> (u64, u64) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Relaxed))
    }
}

impl Requests {
    /// Counts a request whose head has arrived.
    pub(super) fn begin(&self) -> InProgress {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        InProgress(Arc::clone(&self.0))
    }

    /// Whether there has been a request.
    pub(super) fn were_made(&self) -> bool {
        self.0.read().0 > 0
    }

    /// Waits until no request has been in progress for `time`, or for up to twice as long.
    pub(super) async fn idle_for(&self, time: Duration) {
        loop {
            let before = self.0.read();
            tokio::time::sleep(time).await;
            let after = self.0.read();
            if after.0 == after.1 && after == before {
                return;
            }
        }
    }
}

/// A request that is being answered.
pub(super) struct InProgress(Arc<Counts>);

impl InProgress {
    /// Keeps the request in progress until its body has been handed over whole, or is given up.
    pub(super) fn until_sent(self, response: Response<Body>) -> Response<Answer> {
        response.map(|body| Answer { body, _in_progress: self })
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}

/// A response's body, in progress as long as it exists.
pub(super) struct Answer {
    body: Body,
    _in_progress: InProgress,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::Requests;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A connection is idle only while nothing is in progress, however long a stream takes.
    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_not_idle() {
        let (requests, start) = (Requests::default(), Instant::now());
        requests.idle_for(LIMIT).await;
        assert_eq!(start.elapsed(), LIMIT, "nothing was ever asked");
        let stream = requests.begin();
        assert!(tokio::time::timeout(LIMIT * 100, requests.idle_for(LIMIT)).await.is_err());
        drop(stream);
        let end = Instant::now();
        let end_of_idleness = async {
            tokio::time::sleep(LIMIT / 2).await;
            drop(requests.begin());
            requests.idle_for(LIMIT).await;
        };
        end_of_idleness.await;
        assert!(end.elapsed() >= LIMIT * 3 / 2, "a short request begins the wait anew");
    }
}
