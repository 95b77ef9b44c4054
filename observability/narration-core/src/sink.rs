//! The bounded buffer behind the log, and the one thread that empties it.

use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock;

/// How much is kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most bytes that wait; lines beyond are dropped and counted.
    pub buffer_bytes: usize,
    /// Time in which lines are gathered after the first one, so that a busy daemon pays for few writes and wake-ups.
    pub gather: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { buffer_bytes: 1 << 20, gather: Duration::from_millis(10) }
    }
}

/// The callers' side. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sink(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
    /// Wakes the writer.
    work: Condvar,
    /// Wakes those who wait for a flush.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<u8>,
    dropped: u64,
    /// Someone wants it written now.
    urgent: bool,
    /// The writer is between taking lines and having written them.
    writing: bool,
    closed: bool,
}

impl Sink {
    /// A sink and the thread that writes what is pushed to `output`.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(output: Box<dyn Write + Send>, limits: Limits) -> std::io::Result<(Self, JoinHandle<()>)> {
        let sink =
            Self(Arc::new(Shared { limits, state: Mutex::default(), work: Condvar::new(), written: Condvar::new() }));
        let writer = sink.clone();
        let thread =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_until_closed(output))?;
        Ok((sink, thread))
    }

    /// Takes a line, or drops and counts it when there is no room. Never waits for the output.
    pub(crate) fn push(&self, line: &[u8], urgent: bool) {
        let mut state = self.state();
        if state.waiting.len() + line.len() > self.0.limits.buffer_bytes {
            state.dropped += 1;
            return;
        }
        let (was_empty, was_urgent) = (state.waiting.is_empty(), state.urgent);
        state.waiting.extend_from_slice(line);
        state.urgent |= urgent || state.waiting.len() > self.0.limits.buffer_bytes / 2;
        // While the writer gathers there is nothing to tell it, unless it should stop gathering.
        let wake = was_empty || (state.urgent && !was_urgent);
        drop(state);
        if wake {
            self.0.work.notify_one();
        }
    }

    /// Returns when everything that was pushed before has been handed to the output.
    pub fn flush(&self) {
        let mut state = self.state();
        while state.writing || !state.waiting.is_empty() {
            state.urgent = true;
            self.0.work.notify_one();
            state = self.0.written.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets the writer finish what is there and end.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.0.work.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while holding the lock leaves at worst half a line.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_until_closed(&self, mut output: Box<dyn Write + Send>) {
        let mut batch = Vec::new();
        while let Some(dropped) = self.take(&mut batch) {
            if dropped > 0 {
                batch.extend_from_slice(dropped_line(dropped).as_bytes());
            }
            // There is nobody left to tell when the log itself cannot be written.
            let _ = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
            batch.shrink_to(64 << 10);
            self.state().writing = false;
            self.0.written.notify_all();
        }
    }

    /// Waits for lines, gathers more, and swaps them into `batch`. Gives the number of lines dropped meanwhile, or `None` at
    /// the end.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.state();
        while state.waiting.is_empty() && !state.closed {
            state = self.0.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let gathering = |state: &mut State| !state.urgent && !state.closed;
        let gathered = self.0.work.wait_timeout_while(state, self.0.limits.gather, gathering);
        let (mut state, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        if state.waiting.is_empty() && state.closed {
            return None;
        }
        std::mem::swap(&mut state.waiting, batch);
        state.urgent = false;
        state.writing = true;
        Some(std::mem::take(&mut state.dropped))
    }
}

/// Says that lines are missing. JSON in every format: it is rare, and a count must not be lost.
fn dropped_line(dropped: u64) -> String {
    let now = clock::now();
    let now = std::str::from_utf8(&now).unwrap_or_default();
    format!(
        "{{\"ts\":\"{now}\",\"level\":\"WARN\",\"module\":\"narration_core\",\"message\":\"log lines dropped\",\"dropped\":{dropped}}}\n"
    )
}
