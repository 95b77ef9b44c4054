//! A load generator that keeps to its times: a task is sent when it is due, whether or not those before it are answered.
//!
//! Waiting for answers would let a slow server slow down its own load, and the worst waits would never be measured
//! ("coordinated omission"). Each connection has a thread of its own that sleeps until its next task is due: the
//! runtime's timer counts in whole milliseconds, more than an admission takes.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use api_types::{AdmissionResponse, ErrorEnvelope, ErrorKind};
use http_util::Endpoint;
use http_util::stream::{StreamClient, StreamConfig, StreamError, StreamRequest};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::task::Task;
use crate::failure::Failure;

/// Time for the threads to start before the first task is due.
const RUN_UP: Duration = Duration::from_millis(100);
const PROGRESS: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: usize = 64 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Less than the daemon leaves an idle connection open.
const IDLE_LIFETIME: Duration = Duration::from_secs(30);

/// What came of sending one task.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// When the answer had come, counted from the beginning of the load, as the task's own time is.
    pub(super) at: Duration,
    /// Time from sending the task to its answer.
    pub(super) service: Duration,
    pub(super) reply: Reply,
}

/// What the answer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// 202.
    Admitted {
        /// Tasks ahead of it.
        queue_position: i32,
    },
    /// Anything else.
    Refused(ErrorKind),
}

/// Submits tasks, which are in the order of their times; returns the answers in the same order.
pub(super) async fn drive(
    url: &str,
    model: &'static str,
    tasks: &Arc<[Task]>,
    connections: u32,
) -> Result<Vec<Answer>, Failure> {
    sleep_exactly();
    // Unbounded, since each thread sends once.
    let (sender, mut receiver) = unbounded_channel();
    let load = Arc::new(Load {
        endpoint: url.parse().map_err(failed)?,
        model,
        tasks: Arc::clone(tasks),
        taken: AtomicUsize::new(0),
        answered: AtomicUsize::new(0),
        begins: Instant::now() + RUN_UP,
    });
    for _ in 0..connections {
        let (load, sender) = (Arc::clone(&load), sender.clone());
        let work = move || {
            let answers = load.work(&sender);
            // Whoever no longer listens wants no answers.
            let _ = sender.send(answers);
        };
        std::thread::Builder::new().spawn(work).map_err(failed)?;
    }
    drop(sender);
    let mut answers = Vec::with_capacity(tasks.len());
    let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS, PROGRESS);
    loop {
        tokio::select! {
            of_one = receiver.recv() => match of_one {
                Some(of_one) => answers.extend(of_one?),
                None => break,
            },
            _ = progress.tick() => {
                eprintln!("llama-orch: {} of {} tasks submitted", load.answered.load(Ordering::Relaxed), tasks.len());
            }
        }
    }
    answers.sort_unstable_by_key(|(index, _)| *index);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

/// Lets sleeps of this thread, and of those it starts, end when they should; by default the kernel takes 50 µs more.
/// Source: `man 5 proc_pid_timerslack_ns`. Where that is not allowed, tasks are sent a little late, and the figures show
/// it.
fn sleep_exactly() {
    let _ = std::fs::write("/proc/self/timerslack_ns", "1");
}

type Answers = Vec<(usize, Answer)>;

struct Load {
    endpoint: Endpoint,
    model: &'static str,
    tasks: Arc<[Task]>,
    taken: AtomicUsize,
    answered: AtomicUsize,
    begins: Instant,
}

impl Load {
    /// What each thread does: the next task that nobody has taken, one after the other.
    fn work(&self, listener: &UnboundedSender<Result<Answers, Failure>>) -> Result<Answers, Failure> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let config = StreamConfig { idle_lifetime: IDLE_LIFETIME, ..StreamConfig::default() };
        let client = StreamClient::new(self.endpoint.clone(), config).map_err(failed)?;
        let mut answers = Vec::new();
        while !listener.is_closed() {
            let index = self.taken.fetch_add(1, Ordering::Relaxed);
            let Some(task) = self.tasks.get(index) else { break };
            answers.push((index, self.submit(&runtime, &client, task)?));
            self.answered.fetch_add(1, Ordering::Relaxed);
        }
        Ok(answers)
    }

    fn submit(&self, runtime: &Runtime, client: &StreamClient, task: &Task) -> Result<Answer, Failure> {
        let body = serde_json::to_vec(&task.request(self.model)).map_err(failed)?;
        sleep_until(self.begins + task.at);
        let sent = Instant::now();
        let (status, answer) = runtime.block_on(exchange(client, &body)).map_err(failed)?;
        let answered = Instant::now();
        Ok(Answer {
            at: answered.saturating_duration_since(self.begins),
            service: answered.duration_since(sent),
            reply: Reply::read(status, &answer)?,
        })
    }
}

#[expect(clippy::disallowed_methods, reason = "the thread is its connection's own, and runs nothing meanwhile")]
fn sleep_until(when: Instant) {
    std::thread::sleep(when.saturating_duration_since(Instant::now()));
}

async fn exchange(client: &StreamClient, body: &[u8]) -> Result<(u16, Vec<u8>), StreamError> {
    let response = client.send(&StreamRequest::post("/v1/tasks", body)).await?;
    Ok((response.head.status, response.body.collect(ANSWER_LIMIT, ANSWER_TIMEOUT).await?))
}

impl Reply {
    fn read(status: u16, answer: &[u8]) -> Result<Self, Failure> {
        if status == 202 {
            let AdmissionResponse { queue_position, .. } = serde_json::from_slice(answer).map_err(failed)?;
            return Ok(Self::Admitted { queue_position });
        }
        let refusal: ErrorEnvelope = serde_json::from_slice(answer).map_err(failed)?;
        Ok(Self::Refused(refusal.code))
    }
}

fn failed(error: impl Display) -> Failure {
    Failure::local(format!("the benchmark's load failed: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{ErrorKind, Reply};

    #[test]
    fn an_answer_is_an_admission_or_a_typed_refusal() {
        let admission = json!({"task_id": "7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10", "queue_position": 2,
            "predicted_start_ms": 9, "backoff_ms": 0});
        let refusal = json!({"code": "DEADLINE_UNMET", "message": "m"});
        let read = |status, body: &serde_json::Value| Reply::read(status, body.to_string().as_bytes()).ok();
        assert_eq!(read(202, &admission), Some(Reply::Admitted { queue_position: 2 }));
        assert_eq!(read(400, &refusal), Some(Reply::Refused(ErrorKind::DeadlineUnmet)));
        assert_eq!((read(202, &refusal), read(502, &admission)), (None, None));
    }
}
