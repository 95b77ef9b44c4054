//! Carries a task from its submission to its last event, through refusals that pass, lost connections and Ctrl-C.

use std::time::Duration;

use api_types::TaskRequest;
use api_types::sse::EndFrame;
use openapi_client::{Budgets, Client, ClientError, Event, Frame, TaskStream};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::show;

/// How often a lost stream is looked for before it is given up; every event that comes sets it back.
const RECONNECTS: u32 = 5;
/// First wait before that; it doubles.
const RECONNECT_STEP: Duration = Duration::from_millis(200);
/// Wait between two submissions when the server does not name one.
const DEFAULT_BACKOFF: Duration = Duration::from_secs(1);
/// How long the end of a canceled stream is waited for.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// Who is told how the task fares.
pub(super) trait Watch {
    /// The next event of the stream.
    fn event(&mut self, event: &Event) -> Result<(), Failure>;

    /// Something about the connection or a wait.
    fn note(&self, text: &str);

    /// Nothing follows but the summary.
    fn finish(&mut self) -> Result<(), Failure>;

    /// Whether the summary is shown at all.
    fn has_summary(&self) -> bool {
        false
    }

    /// What came of the task, and what its session has left.
    fn summary(&self, _end: &EndFrame, _budgets: Budgets) {}
}

/// Runs a task and shows it.
pub(super) async fn follow(
    client: &Client,
    task: &TaskRequest,
    retries: u32,
    display: &mut impl Watch,
) -> Result<Exit, Failure> {
    let mut run = Run { client, task, display, interrupts: Interrupts::listen()?, lost: 0, last_event_id: None };
    let outcome = run.complete(retries).await;
    // The spinner goes before an error is told.
    let finished = run.display.finish();
    let exit = outcome?;
    finished?;
    Ok(exit)
}

struct Run<'a, W> {
    client: &'a Client,
    task: &'a TaskRequest,
    display: &'a mut W,
    interrupts: Interrupts,
    /// Connections lost since the last event.
    lost: u32,
    last_event_id: Option<u64>,
}

impl<W: Watch> Run<'_, W> {
    async fn complete(&mut self, retries: u32) -> Result<Exit, Failure> {
        let mut opened = match self.submit(retries).await? {
            Step::Went(outcome) => outcome,
            Step::Interrupted => return Ok(Exit::Canceled),
        };
        loop {
            let lost = match opened {
                Ok(mut stream) => match self.read(&mut stream).await? {
                    Reading::Over(exit) => return Ok(exit),
                    Reading::Interrupted => return Ok(self.cancel(Some(stream)).await),
                    Reading::Lost(error) => error,
                },
                Err(error) => error,
            };
            opened = match self.reopen(lost).await? {
                Step::Went(outcome) => outcome,
                Step::Interrupted => return Ok(self.cancel(None).await),
            };
        }
    }

    /// Submits, again after the wait asked for when the server says "try later" (OC-CLI-2802, LO-CLI-08).
    async fn submit(&mut self, retries: u32) -> Result<Step<Opening>, Failure> {
        let mut tries = 0;
        loop {
            let outcome = tokio::select! {
                outcome = self.client.submit_stream(self.task) => outcome,
                () = self.interrupts.next() => {
                    // Whether it was admitted is not known; canceling what is not there does no harm.
                    self.cancel(None).await;
                    return Ok(Step::Interrupted);
                }
            };
            let error = match outcome {
                // A connection that broke may have carried the task: it is looked for like a lost stream.
                Ok(_) | Err(ClientError::Broken { .. } | ClientError::TimedOut { .. }) => {
                    return Ok(Step::Went(outcome));
                }
                Err(error) => error,
            };
            if tries == retries || !is_try_later(&error) {
                return Err(error.into());
            }
            tries += 1;
            let wait = error.retry_after().unwrap_or(DEFAULT_BACKOFF);
            self.display.note(&format!("{error}; waiting {} (try {tries} of {retries})", show::duration(wait)));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.interrupts.next() => return Ok(Step::Interrupted),
            }
        }
    }

    /// Reads until the stream ends, breaks or Ctrl-C comes.
    async fn read(&mut self, stream: &mut TaskStream) -> Result<Reading, Failure> {
        loop {
            let next = tokio::select! {
                biased;
                () = self.interrupts.next() => return Ok(Reading::Interrupted),
                next = stream.next() => next,
            };
            self.last_event_id = stream.last_event_id();
            match next {
                Ok(Some(event)) => {
                    self.lost = 0;
                    self.show(&event).await?;
                    if let Some(exit) = self.ending(&event, stream).await? {
                        return Ok(Reading::Over(exit));
                    }
                }
                Ok(None) => return Err(Failure::local("the stream ended without a last event")),
                Err(error) if is_lost(&error) => return Ok(Reading::Lost(error)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Shows an event. When nobody reads any more, the task is canceled.
    async fn show(&mut self, event: &Event) -> Result<(), Failure> {
        let shown = self.display.event(event);
        if shown.is_err() && !event.frame.is_last() {
            // The failure to write is what is reported; a task that goes on alone ends by itself.
            let _ = self.client.cancel_task(self.task.task_id).await;
        }
        shown
    }

    async fn ending(&mut self, event: &Event, stream: &TaskStream) -> Result<Option<Exit>, Failure> {
        match &event.frame {
            Frame::End(end) => {
                self.display.finish()?;
                let budgets = self.budgets_left(stream).await;
                self.display.summary(end, budgets);
                Ok(Some(if end.canceled == Some(true) { Exit::Canceled } else { Exit::Ok }))
            }
            Frame::Error(error) => {
                let id = self.task.task_id;
                Err(Failure::of_task(error, stream.correlation_id())
                    .or_next(|| format!("`llama-orch task {id}` shows what is known about it")))
            }
            _ => Ok(None),
        }
    }

    /// What the session has left after the task; nothing is asked where no budget is configured or nobody would see it.
    async fn budgets_left(&self, stream: &TaskStream) -> Budgets {
        let before = stream.budgets();
        if before == Budgets::default() || !self.display.has_summary() {
            return before;
        }
        match self.client.get_session(self.task.session_id).await {
            Ok(session) => Budgets::from(&session),
            // It is over, so nothing is left of it.
            Err(_) => Budgets::default(),
        }
    }

    /// Looks for a lost stream again. Nothing was seen of it yet: the task is submitted once more, which is safe.
    async fn reopen(&mut self, error: ClientError) -> Result<Step<Opening>, Failure> {
        if self.lost == RECONNECTS || !is_lost(&error) {
            let id = self.task.task_id;
            return Err(Failure::from(error).or_next(|| format!("`llama-orch task {id}` shows whether it goes on")));
        }
        let wait = RECONNECT_STEP * 2_u32.pow(self.lost);
        self.lost += 1;
        self.display.note(&format!("{error}; looking for the stream again in {}", show::duration(wait)));
        let id = self.task.task_id;
        let reopening = async {
            tokio::time::sleep(wait).await;
            match self.last_event_id {
                Some(last) => self.client.stream(id, Some(last)).await,
                None => self.client.submit_stream(self.task).await,
            }
        };
        tokio::select! {
            biased;
            () = self.interrupts.next() => Ok(Step::Interrupted),
            outcome = reopening => Ok(Step::Went(outcome)),
        }
    }

    /// Cancels the task and waits a moment for the stream to say so. Another Ctrl-C ends the wait.
    async fn cancel(&mut self, stream: Option<TaskStream>) -> Exit {
        let (client, id) = (self.client, self.task.task_id);
        let ending = async {
            let canceled = client.cancel_task(id).await;
            match stream {
                Some(stream) if canceled.is_ok() => last_frame(stream).await,
                _ => None,
            }
        };
        let last = tokio::select! {
            last = tokio::time::timeout(CANCEL_PATIENCE, ending) => last.ok().flatten(),
            () = self.interrupts.next() => None,
        };
        // Whoever pressed Ctrl-C may have closed the pipe by it too.
        let _ = self.display.finish();
        if let Some(Frame::End(end)) = last {
            self.display.summary(&end, Budgets::default());
        }
        Exit::Canceled
    }
}

/// Tokens that were on their way are not shown: the person has asked for silence.
async fn last_frame(mut stream: TaskStream) -> Option<Frame> {
    while let Ok(Some(event)) = stream.next().await {
        if event.frame.is_last() {
            return Some(event.frame);
        }
    }
    None
}

type Opening = Result<TaskStream, ClientError>;

enum Step<T> {
    Went(T),
    Interrupted,
}

enum Reading {
    Over(Exit),
    Interrupted,
    Lost(ClientError),
}

/// A refusal that passes; a server that is not there is not one.
fn is_try_later(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused(_)) && error.is_retriable()
}

fn is_lost(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::Unreachable { .. }
            | ClientError::Broken { .. }
            | ClientError::Cut { .. }
            | ClientError::TimedOut { .. }
    )
}
