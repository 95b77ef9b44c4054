//! Lines as they come.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot};

use super::LogLine;

/// What a follower gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// The next line.
    Line(Arc<LogLine>),
    /// So many lines were missed, because they came faster than they were taken.
    Missed(u64),
}

/// Follows a log: old lines first, then each that comes.
#[derive(Debug)]
pub struct Follower {
    old: Option<oneshot::Receiver<Vec<Arc<LogLine>>>>,
    ready: VecDeque<Arc<LogLine>>,
    live: broadcast::Receiver<Arc<LogLine>>,
}

impl Follower {
    pub(super) fn new(old: oneshot::Receiver<Vec<Arc<LogLine>>>, live: broadcast::Receiver<Arc<LogLine>>) -> Self {
        Self { old: Some(old), ready: VecDeque::new(), live }
    }

    /// The next line; `None` once the log is dropped. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Followed> {
        if let Some(old) = &mut self.old {
            let lines = old.await.unwrap_or_default();
            self.old = None;
            self.ready = lines.into();
        }
        if let Some(line) = self.ready.pop_front() {
            return Some(Followed::Line(line));
        }
        match self.live.recv().await {
            Ok(line) => Some(Followed::Line(line)),
            Err(RecvError::Lagged(count)) => Some(Followed::Missed(count)),
            Err(RecvError::Closed) => None,
        }
    }

    /// The same as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Followed> + Send {
        unfold(self, |mut follower| async move { follower.next().await.map(|item| (item, follower)) })
    }
}
