//! Long work on models, one job at a time for each of them: its state, its progress, and the thread it runs on.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use api_types::{ErrorEnvelope, FeedEvent, ModelId, ModelJob, ModelJobKind, ModelJobState};
use catalog_core::{FetchContext, Progress};
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::feed::Feed;
use crate::wire::{int, long};

/// Ended jobs that are remembered.
const KEPT: usize = 256;
/// Gap between two reports of a job's progress.
const REPORT: Duration = Duration::from_millis(250);
/// Weight of the newest speed in the one that is shown.
const NEWEST: f64 = 0.2;

/// The jobs, and the thread they run on.
pub(super) struct Jobs {
    jobs: Mutex<HashMap<ModelId, Arc<Job>>>,
    runtime: Handle,
    stop: CancellationToken,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Long work on one model.
pub struct Job {
    model_id: ModelId,
    kind: ModelJobKind,
    started_ms: i64,
    bytes_done: AtomicI64,
    files_done: AtomicUsize,
    bytes_per_s: AtomicI64,
    stage: Mutex<Stage>,
    /// Stops it.
    pub cancel: CancellationToken,
    over: CancellationToken,
}

#[derive(Clone)]
struct Stage {
    state: ModelJobState,
    bytes_total: Option<i64>,
    files_total: usize,
    ended_ms: Option<i64>,
    error: Option<ErrorEnvelope>,
}

/// There is work on the model already.
pub(super) struct Busy(pub ModelJobKind);

impl Jobs {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let body = move || runtime.block_on(stopped.cancelled());
        let thread = std::thread::Builder::new().name("models".to_owned()).spawn(body)?;
        Ok(Self { jobs: Mutex::default(), runtime: handle, stop, thread: Mutex::new(Some(thread)) })
    }

    /// Cancels what is under way and ends the thread.
    pub(super) fn shut_down(&self) {
        for job in self.lock().values() {
            job.cancel.cancel();
        }
        self.stop.cancel();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread for work on models panicked; its message is above");
        }
    }

    /// Where the work runs.
    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    /// The job on a model that is under way, or the last that ended.
    pub(super) fn get(&self, id: &ModelId) -> Option<Arc<Job>> {
        self.lock().get(id).cloned()
    }

    /// Whether any job is under way.
    pub(super) fn any_under_way(&self) -> bool {
        self.lock().values().any(|job| job.is_under_way())
    }

    /// Opens a job. `None` when one of its kind is under way already.
    ///
    /// # Errors
    /// [`Busy`] when one of another kind is.
    pub(super) fn open(&self, id: &ModelId, kind: ModelJobKind, now_ms: i64) -> Result<Option<Arc<Job>>, Busy> {
        let mut jobs = self.lock();
        match jobs.get(id).filter(|job| job.is_under_way()) {
            Some(job) if job.kind == kind => return Ok(None),
            Some(job) => return Err(Busy(job.kind)),
            None => {}
        }
        if jobs.len() >= KEPT {
            jobs.retain(|_, job| job.is_under_way());
        }
        let job = Arc::new(Job::new(id.clone(), kind, now_ms));
        jobs.insert(id.clone(), Arc::clone(&job));
        Ok(Some(job))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ModelId, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn new(model_id: ModelId, kind: ModelJobKind, started_ms: i64) -> Self {
        Self {
            model_id,
            kind,
            started_ms,
            bytes_done: AtomicI64::new(0),
            files_done: AtomicUsize::new(0),
            bytes_per_s: AtomicI64::new(0),
            stage: Mutex::new(Stage {
                state: ModelJobState::Running,
                bytes_total: None,
                files_total: 0,
                ended_ms: None,
                error: None,
            }),
            cancel: CancellationToken::new(),
            over: CancellationToken::new(),
        }
    }

    /// Whether it has not ended.
    pub fn is_under_way(&self) -> bool {
        self.stage().ended_ms.is_none()
    }

    /// Share of it that is done, 0 to 1; `None` while nobody knows how much there is.
    pub fn share(&self) -> Option<f64> {
        let total = self.stage().bytes_total.filter(|total| *total > 0)?;
        #[expect(clippy::cast_precision_loss, reason = "a share is shown, not counted with")]
        let share = self.bytes_done.load(Ordering::Relaxed) as f64 / total as f64;
        Some(share.clamp(0.0, 1.0))
    }

    /// It has ended: done, or why not.
    pub fn close(&self, result: Result<(), ErrorEnvelope>, now_ms: i64) {
        let mut stage = self.stage();
        stage.ended_ms = Some(now_ms);
        stage.state = match &result {
            Ok(()) => ModelJobState::Done,
            Err(_) if self.cancel.is_cancelled() => ModelJobState::Canceled,
            Err(_) => ModelJobState::Failed,
        };
        stage.error = result.err();
        drop(stage);
        self.over.cancel();
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// What a fetch reports to and is stopped by.
    pub fn fetch_context(self: &Arc<Self>, configured: bool) -> FetchContext {
        FetchContext { progress: Arc::clone(self) as Arc<dyn Progress>, cancel: self.cancel.clone(), configured }
    }

    /// The job for the outside.
    pub fn view(&self) -> ModelJob {
        let stage = self.stage().clone();
        let bytes_per_s = self.bytes_per_s.load(Ordering::Relaxed);
        ModelJob {
            model_id: self.model_id.to_string(),
            kind: self.kind,
            state: stage.state,
            bytes_done: self.bytes_done.load(Ordering::Relaxed),
            bytes_total: stage.bytes_total,
            files_done: int(self.files_done.load(Ordering::Relaxed)),
            files_total: int(stage.files_total),
            bytes_per_s: (bytes_per_s > 0 && stage.ended_ms.is_none()).then_some(bytes_per_s),
            started_ms: self.started_ms,
            ended_ms: stage.ended_ms,
            error: stage.error,
        }
    }

    /// Tells watchers how far it is until it has ended.
    pub async fn report(&self, feed: &Feed) {
        let mut before = self.bytes_done.load(Ordering::Relaxed);
        while self.is_under_way() {
            feed.tell(FeedEvent::ModelJob, || self.view());
            tokio::select! {
                () = self.ended() => break,
                () = tokio::time::sleep(REPORT) => {}
            }
            let now = self.bytes_done.load(Ordering::Relaxed);
            // What an earlier try has left comes all at once and says nothing of the speed.
            if before > 0 {
                self.measure(now - before);
            }
            before = now;
        }
        feed.tell(FeedEvent::ModelJob, || self.view());
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a speed is shown, not counted with"
    )]
    fn measure(&self, bytes: i64) {
        let newest = bytes.max(0) as f64 / REPORT.as_secs_f64();
        let before = self.bytes_per_s.load(Ordering::Relaxed) as f64;
        let speed = if before > 0.0 { before.mul_add(1.0 - NEWEST, newest * NEWEST) } else { newest };
        self.bytes_per_s.store(speed as i64, Ordering::Relaxed);
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for Job {
    fn waiting(&self) {
        self.stage().state = ModelJobState::Waiting;
    }

    fn planned(&self, files: usize, bytes: Option<u64>) {
        let mut stage = self.stage();
        stage.state = ModelJobState::Running;
        stage.files_total = files;
        stage.bytes_total = bytes.map(long);
    }

    fn advanced(&self, bytes: u64) {
        self.bytes_done.fetch_add(long(bytes), Ordering::Relaxed);
    }

    fn lost(&self, bytes: u64) {
        self.bytes_done.fetch_sub(long(bytes), Ordering::Relaxed);
    }

    fn file_done(&self, _name: &str) {
        self.files_done.fetch_add(1, Ordering::Relaxed);
    }
}
