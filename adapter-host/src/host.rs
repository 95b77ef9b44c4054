//! The facade.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::retry::{Idempotency, with_retries};
use adapter_api::{Job, SlotFile, SlotView, TokenStream, WorkerAdapter, WorkerError, WorkerHealth, WorkerProps};
use api_types::{Engine, PoolId, ReplicaId, TaskId};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::binding::{Binding, CallPolicy, CallReport};
use crate::cache::Observed;
use crate::error::HostError;
use crate::narrate;
use crate::registry::Registry;
use crate::stream::HostedStream;
use crate::task::{Task, Tasks};

/// Time limits of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Time an engine has to take a task (LO-WAD-11).
    pub establish: Duration,
    /// Time for which an answer about an engine, or the failure to get one, is not asked for again.
    pub fresh_for: Duration,
    /// Longest that an engine is given to notice that a task was dropped.
    pub settle: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { establish: Duration::from_secs(10), fresh_for: Duration::from_secs(1), settle: Duration::from_secs(30) }
    }
}

/// What a cancel found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// The task was running or being submitted, and is canceled now.
    Canceled,
    /// The pool runs no such task: never, not yet, or no longer.
    NotRunning,
}

/// Every bound adapter and every task that runs on one (ORCH-3600, ORCH-3601).
#[derive(Debug)]
pub struct AdapterHost {
    config: HostConfig,
    registry: Registry,
    tasks: Arc<Tasks>,
}

impl Default for AdapterHost {
    fn default() -> Self {
        Self::new(HostConfig::default())
    }
}

impl AdapterHost {
    /// A host without adapters.
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        Self { config, registry: Registry::default(), tasks: Arc::new(Tasks::new(config.settle)) }
    }

    /// Binds an adapter to a replica and returns the one that was bound there. Tasks that run on the old one stay with it
    /// until they end; new ones, and questions about the engine, go to the new one, whose breaker is closed (LO-HOST-01).
    pub fn bind(
        &self,
        pool: PoolId,
        replica: ReplicaId,
        adapter: Arc<dyn WorkerAdapter>,
        policy: CallPolicy,
    ) -> Option<Arc<dyn WorkerAdapter>> {
        self.registry.bind(pool, replica, adapter, policy).map(|old| Arc::clone(&old.adapter))
    }

    /// Takes a replica's adapter away and returns it. Tasks that run on it stay with it until they end.
    pub fn unbind(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Arc<dyn WorkerAdapter>> {
        self.registry.unbind(pool, replica).map(|old| Arc::clone(&old.adapter))
    }

    /// The bound replicas of a pool, in order.
    #[must_use]
    pub fn replicas(&self, pool: &PoolId) -> Vec<ReplicaId> {
        self.registry.replicas(pool)
    }

    /// The kind of engine bound to a replica.
    #[must_use]
    pub fn engine(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Engine> {
        self.registry.find(pool, replica).ok().map(|binding| binding.adapter.engine())
    }

    /// Number of tasks being submitted or running.
    #[must_use]
    pub fn running(&self) -> usize {
        self.tasks.len()
    }

    /// Gives a task to a replica's engine. `token` cancels it from now until its end, also while the engine makes up its
    /// mind; dropping the future does the same. A submission that fails for a passing reason is repeated, unless `give_up`
    /// says, then or when the pause before it is over, that the task has better prospects: another engine could take it at once, or
    /// this one is not ready any more.
    ///
    /// # Errors
    /// [`HostError::Canceled`] when the token fired or [`AdapterHost::cancel`] was called; [`HostError::Worker`] when
    /// nothing is bound there or the breaker lets nothing through (`PoolUnavailable`), the task is running already
    /// (`Internal`), the engine does not answer in time (`DecodeTimeout`) or refuses.
    pub async fn submit(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
        job: &Job,
        token: CancellationToken,
        give_up: &(dyn Fn() -> bool + Sync),
    ) -> Result<HostedStream, HostError> {
        let binding = self.registry.find(pool, replica).map_err(HostError::Worker)?;
        let call = binding.admit().map_err(HostError::Worker)?;
        let task = Task::new(job.request.task_id, token, call);
        let entered = self.tasks.enter(task).map_err(HostError::Worker)?;
        let begun = Instant::now();
        let result = self.establish(&entered.task, job, give_up).await;
        narrate::submitted(&entered.task, job, begun.elapsed(), result.as_ref().err());
        match result {
            Ok(()) => Ok(HostedStream::new(entered)),
            Err(error) => {
                if let HostError::Worker(error) = &error {
                    entered.task.failed(error);
                }
                if !may_have_taken_it(&error) {
                    entered.task.close(|| ());
                }
                Err(error)
            }
        }
    }

    async fn establish(&self, task: &Task, job: &Job, give_up: &(dyn Fn() -> bool + Sync)) -> Result<(), HostError> {
        let is_worth_a_retry = |error: &WorkerError| {
            let again = is_passing(error) && !give_up();
            if again {
                task.binding().count_retry();
                narrate::retried(task, job, error);
            }
            again
        };
        let mut repeats = false;
        let attempt = || {
            let is_repeat = std::mem::replace(&mut repeats, true);
            async move {
                // Where it listened, another one may listen by now that is not ready yet.
                if is_repeat && give_up() {
                    return Err(WorkerError::PoolUnavailable("it was not ready any more".to_owned()));
                }
                self.submit_in_time(task, job).await
            }
        };
        let retry = &task.binding().policy.retry;
        let submission = with_retries(retry, Idempotency::Idempotent, is_worth_a_retry, attempt);
        let stream = tokio::select! {
            biased;
            () = task.token.cancelled() => return Err(HostError::Canceled),
            stream = submission => stream.map_err(HostError::Worker)?,
        };
        if task.begin(stream) { Ok(()) } else { Err(HostError::Canceled) }
    }

    async fn submit_in_time(&self, task: &Task, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError> {
        let limit = self.config.establish;
        timeout(limit, task.binding().adapter.submit(job)).await.unwrap_or_else(|_| {
            Err(WorkerError::DecodeTimeout(format!("it did not take the task within {} ms", limit.as_millis())))
        })
    }

    /// Cancels a task that runs in a pool: its stream at the engine is dropped before this waits for anything, its token
    /// fires, and engines that want to be told are told. Once this returns, the task's [`HostedStream`] hands on nothing.
    pub async fn cancel(&self, pool: &PoolId, task: TaskId) -> CancelOutcome {
        let Some(task) = self.tasks.find(pool, task) else { return CancelOutcome::NotRunning };
        let Some(settling) = self.tasks.close(&task) else { return CancelOutcome::NotRunning };
        self.tasks.leave(&task);
        task.token.cancel();
        task.tell_engine().await;
        tokio::spawn(settling.run());
        CancelOutcome::Canceled
    }

    /// Tells the host that a task's engine has failed it in a way that only its driver can see, such as silence, before the
    /// driver drops it. Does nothing when the task does not run.
    pub fn blame(&self, pool: &PoolId, task: TaskId, error: &WorkerError) {
        if let Some(task) = self.tasks.find(pool, task) {
            task.failed(error);
        }
    }

    /// Waits until the engine has let go of a task whose stream was dropped before its end, or had long enough to; returns at
    /// once for a task whose stream ended by itself. Until then the task's slot is not free.
    pub async fn settled(&self, task: TaskId) {
        self.tasks.settled(task).await;
    }

    /// How the calls to a replica go; `None` when nothing is bound there.
    #[must_use]
    pub fn calls(&self, pool: &PoolId, replica: &ReplicaId) -> Option<CallReport> {
        self.bound(pool, replica).map(|binding| binding.report())
    }

    /// Whether a replica's engine can work.
    ///
    /// # Errors
    /// What the adapter reports, when the engine never answered; nothing bound there is `PoolUnavailable`.
    pub async fn health(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Observed<WorkerHealth>, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        binding.health.get(self.config.fresh_for, || binding.adapter.health()).await
    }

    /// [`AdapterHost::health`], asked for now.
    ///
    /// # Errors
    /// As there, and when the engine does not answer this time.
    pub async fn probe(&self, pool: &PoolId, replica: &ReplicaId) -> Result<WorkerHealth, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        let observed = binding.health.get(Duration::ZERO, || binding.adapter.health()).await?;
        observed.refresh_error.map_or(Ok(observed.value), Err)
    }

    /// [`AdapterHost::props`] and [`AdapterHost::engine_version`], asked for now.
    ///
    /// # Errors
    /// As there, and when the engine does not answer this time.
    pub async fn describe(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
    ) -> Result<(Arc<WorkerProps>, Arc<str>), WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        let props = binding.props.get(Duration::ZERO, || binding.ask_props()).await?;
        let version = binding.version.get(Duration::ZERO, || binding.ask_version()).await?;
        match props.refresh_error.or(version.refresh_error) {
            Some(error) => Err(error),
            None => Ok((props.value, version.value)),
        }
    }

    /// What a replica's engine tells about itself.
    ///
    /// # Errors
    /// As [`AdapterHost::health`].
    pub async fn props(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Observed<Arc<WorkerProps>>, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        binding.props.get(self.config.fresh_for, || binding.ask_props()).await
    }

    /// The version of a replica's engine.
    ///
    /// # Errors
    /// As [`AdapterHost::health`].
    pub async fn engine_version(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Observed<Arc<str>>, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        binding.version.get(self.config.fresh_for, || binding.ask_version()).await
    }

    /// The last good answer of [`AdapterHost::health`], without asking.
    #[must_use]
    pub fn last_health(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Observed<WorkerHealth>> {
        self.bound(pool, replica)?.health.last()
    }

    /// The last good answer of [`AdapterHost::props`], without asking.
    #[must_use]
    pub fn last_props(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Observed<Arc<WorkerProps>>> {
        self.bound(pool, replica)?.props.last()
    }

    fn bound(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Arc<Binding>> {
        self.registry.find(pool, replica).ok()
    }

    /// Number of tokens a replica's engine makes of a job's input, when it has a way to tell.
    ///
    /// # Errors
    /// What the adapter reports; nothing bound there is `PoolUnavailable`.
    pub async fn count_tokens(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
        job: &Job,
    ) -> Result<Option<u32>, WorkerError> {
        self.registry.find(pool, replica)?.adapter.count_tokens(job).await
    }

    /// Every slot of a replica's engine, when it has a way to tell.
    ///
    /// # Errors
    /// What the adapter reports; nothing bound there is `PoolUnavailable`.
    pub async fn slots(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Option<Vec<SlotView>>, WorkerError> {
        self.registry.find(pool, replica)?.adapter.slots().await
    }

    /// Has a replica's engine write what a slot remembers to a file ([`WorkerAdapter::save_slot`]).
    ///
    /// # Errors
    /// As [`AdapterHost::slots`].
    pub async fn save_slot(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
        slot: u32,
        file: &str,
    ) -> Result<Option<SlotFile>, WorkerError> {
        self.registry.find(pool, replica)?.adapter.save_slot(slot, file).await
    }

    /// Has a replica's engine take up what a slot is to remember from a file ([`WorkerAdapter::restore_slot`]).
    ///
    /// # Errors
    /// As [`AdapterHost::slots`].
    pub async fn restore_slot(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
        slot: u32,
        file: &str,
    ) -> Result<Option<SlotFile>, WorkerError> {
        self.registry.find(pool, replica)?.adapter.restore_slot(slot, file).await
    }
}

/// Whether an engine may be at work on a task whose submission failed, so that it must be told to stop.
fn may_have_taken_it(error: &HostError) -> bool {
    matches!(error, HostError::Canceled | HostError::Worker(WorkerError::DecodeTimeout(_)))
}

/// Whether the same engine may take the same task in a moment.
const fn is_passing(error: &WorkerError) -> bool {
    matches!(error, WorkerError::PoolUnavailable(_) | WorkerError::Busy(_))
}
