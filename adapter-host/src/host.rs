//! The facade.

use std::sync::Arc;
use std::time::Duration;

use adapter_api::{Job, TokenStream, WorkerAdapter, WorkerError, WorkerHealth, WorkerProps};
use api_types::{Engine, PoolId, ReplicaId, TaskId};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::cache::Observed;
use crate::error::HostError;
use crate::narrate;
use crate::registry::{Binding, Registry};
use crate::stream::HostedStream;
use crate::task::{Task, Tasks};

/// Time limits of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Time an engine has to take a task (LO-WAD-11).
    pub establish: Duration,
    /// Time for which an answer about an engine, or the failure to get one, is not asked for again.
    pub fresh_for: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self { establish: Duration::from_secs(10), fresh_for: Duration::from_secs(1) }
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
#[derive(Debug, Default)]
pub struct AdapterHost {
    config: HostConfig,
    registry: Registry,
    tasks: Arc<Tasks>,
}

impl AdapterHost {
    /// A host without adapters.
    #[must_use]
    pub fn new(config: HostConfig) -> Self {
        Self { config, ..Self::default() }
    }

    /// Binds an adapter to a replica and returns the one that was bound there. Tasks that run on the old one stay with it
    /// until they end; new ones, and questions about the engine, go to the new one (LO-HOST-01).
    pub fn bind(
        &self,
        pool: PoolId,
        replica: ReplicaId,
        adapter: Arc<dyn WorkerAdapter>,
    ) -> Option<Arc<dyn WorkerAdapter>> {
        self.registry.bind(pool, replica, adapter).map(|old| Arc::clone(&old.adapter))
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
    /// mind; dropping the future does the same.
    ///
    /// # Errors
    /// [`HostError::Canceled`] when the token fired or [`AdapterHost::cancel`] was called; [`HostError::Worker`] when
    /// nothing is bound there (`PoolUnavailable`), the task is running already (`Internal`), the engine does not answer in
    /// time (`DecodeTimeout`) or refuses.
    pub async fn submit(
        &self,
        pool: &PoolId,
        replica: &ReplicaId,
        job: &Job,
        token: CancellationToken,
    ) -> Result<HostedStream, HostError> {
        let binding = self.registry.find(pool, replica).map_err(HostError::Worker)?;
        let adapter = Arc::clone(&binding.adapter);
        let task = Task::new(job.request.task_id, pool.clone(), replica.clone(), token, adapter);
        let entered = self.tasks.enter(task).map_err(HostError::Worker)?;
        let begun = Instant::now();
        let result = self.establish(&entered.task, job).await;
        narrate::submitted(&entered.task, job, begun.elapsed(), result.as_ref().err());
        match result {
            Ok(()) => Ok(HostedStream::new(entered)),
            Err(error) => {
                if !may_have_taken_it(&error) {
                    entered.task.close();
                }
                Err(error)
            }
        }
    }

    async fn establish(&self, task: &Task, job: &Job) -> Result<(), HostError> {
        let stream = tokio::select! {
            biased;
            () = task.token.cancelled() => return Err(HostError::Canceled),
            stream = self.submit_in_time(task, job) => stream.map_err(HostError::Worker)?,
        };
        if task.begin(stream) { Ok(()) } else { Err(HostError::Canceled) }
    }

    async fn submit_in_time(&self, task: &Task, job: &Job) -> Result<Box<dyn TokenStream>, WorkerError> {
        let limit = self.config.establish;
        timeout(limit, task.adapter.submit(job)).await.unwrap_or_else(|_| {
            Err(WorkerError::DecodeTimeout(format!("it did not take the task within {} ms", limit.as_millis())))
        })
    }

    /// Cancels a task that runs in a pool: its stream at the engine is dropped before this waits for anything, its token
    /// fires, and engines that want to be told are told. Once this returns, the task's [`HostedStream`] hands on nothing.
    pub async fn cancel(&self, pool: &PoolId, task: TaskId) -> CancelOutcome {
        let Some(task) = self.tasks.find(pool, task) else { return CancelOutcome::NotRunning };
        if !task.close() {
            return CancelOutcome::NotRunning;
        }
        self.tasks.leave(&task);
        task.token.cancel();
        task.tell_engine().await;
        CancelOutcome::Canceled
    }

    /// Whether a replica's engine can work.
    ///
    /// # Errors
    /// What the adapter reports, when the engine never answered; nothing bound there is `PoolUnavailable`.
    pub async fn health(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Observed<WorkerHealth>, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        binding.health.get(self.config.fresh_for, || binding.adapter.health()).await
    }

    /// What a replica's engine tells about itself.
    ///
    /// # Errors
    /// As [`AdapterHost::health`].
    pub async fn props(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Observed<Arc<WorkerProps>>, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        let ask = || async { binding.adapter.props().await.map(Arc::new) };
        binding.props.get(self.config.fresh_for, ask).await
    }

    /// The version of a replica's engine.
    ///
    /// # Errors
    /// As [`AdapterHost::health`].
    pub async fn engine_version(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Observed<Arc<str>>, WorkerError> {
        let binding = self.registry.find(pool, replica)?;
        let ask = || async { binding.adapter.engine_version().await.map(Arc::from) };
        binding.version.get(self.config.fresh_for, ask).await
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
}

/// Whether an engine may be at work on a task whose submission failed, so that it must be told to stop.
fn may_have_taken_it(error: &HostError) -> bool {
    matches!(error, HostError::Canceled | HostError::Worker(WorkerError::DecodeTimeout(_)))
}
