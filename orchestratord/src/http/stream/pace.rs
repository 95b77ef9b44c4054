//! When a reader is sent what there is: gathered for a moment, or a comment so that nobody takes silence for death.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use config_schema::Stream;
use tokio::time::{Instant, Sleep, sleep_until};
use transcript::{Behind, Reader};

/// LO-SSE-03: parsers pass over it.
const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// The timers of one reader.
pub(super) struct Pace {
    gather: Option<Gather>,
    beat: Option<Beat>,
}

impl Pace {
    /// What the configuration asks for; `None` when that is nothing.
    pub(super) fn new(config: &Stream) -> Option<Self> {
        let (gather, beat) = (config.microbatch().map(Gather::new), config.heartbeat().map(Beat::new));
        (gather.is_some() || beat.is_some()).then_some(Self { gather, beat })
    }

    /// [`Reader::poll_read`] at this pace.
    pub(super) fn poll_read(
        &mut self,
        reader: &mut Reader,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Behind>>> {
        if self.gather.as_mut().is_none_or(|gather| gather.poll(reader, cx).is_ready())
            && let Poll::Ready(read) = reader.poll_read(cx)
        {
            if let Some(beat) = &mut self.beat {
                beat.has_sent = true;
            }
            return Poll::Ready(read);
        }
        match &mut self.beat {
            Some(beat) => beat.poll(cx).map(|()| Some(Ok(KEEP_ALIVE))),
            None => Poll::Pending,
        }
    }
}

/// LO-SSE-02: what comes within a short time goes out together, in order.
struct Gather {
    window: Duration,
    timer: Pin<Box<Sleep>>,
    /// Something waits to be sent and the time runs.
    is_running: bool,
    /// Nothing has been sent yet: how a stream begins must not wait.
    is_first: bool,
}

impl Gather {
    fn new(window: Duration) -> Self {
        Self { window, timer: Box::pin(sleep_until(Instant::now())), is_running: false, is_first: true }
    }

    /// Waits until what there is may be sent: when its time is over, or nothing more is to come.
    fn poll(&mut self, reader: &mut Reader, cx: &mut Context<'_>) -> Poll<()> {
        ready!(reader.poll_unread(cx));
        if !std::mem::replace(&mut self.is_running, true) {
            self.timer.as_mut().reset(Instant::now() + self.window);
        }
        if !self.is_first && reader.poll_sealed(cx).is_pending() {
            ready!(self.timer.as_mut().poll(cx));
        }
        (self.is_running, self.is_first) = (false, false);
        Poll::Ready(())
    }
}

/// A comment after a silence.
struct Beat {
    /// Half of the longest silence: what went out since the timer last went off may have gone out just after that.
    every: Duration,
    timer: Pin<Box<Sleep>>,
    has_sent: bool,
}

impl Beat {
    fn new(longest_silence: Duration) -> Self {
        let every = longest_silence / 2;
        Self { every, timer: Box::pin(sleep_until(Instant::now() + every)), has_sent: false }
    }

    /// Waits until the silence has been too long.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(cx));
            self.timer.as_mut().reset(Instant::now() + self.every);
            if !std::mem::take(&mut self.has_sent) {
                return Poll::Ready(());
            }
        }
    }
}
