//! Who the drivers of this host's pools work for: the orchestrator, by way of the board.

use std::collections::HashMap;
use std::sync::Arc;

use adapter_api::WorkerHealth;
use adapter_host::{AdapterHost, CallPolicy};
use api_types::{PoolFault, PoolId, ReplicaId, Workload};
use async_trait::async_trait;
use config_schema::{EngineUrl, Pool};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use super::models::Models;
use super::narrate;
use crate::adapter::adapter_at;
use crate::failure::Failure;
use crate::machine::{Probe, Why};
use crate::pool::{Activity, Host, PoolReport, StagedModel};
use crate::registry::Registry;
use crate::selftest::{self, Tested};
use crate::{doctor, staging};

/// The host of the drivers.
pub(super) struct WorkerHost {
    pools: HashMap<PoolId, Pool>,
    models: Models,
    board: Arc<Board>,
    registry: Registry,
    /// For probes and self-tests, which are made here; tasks come through the relay.
    adapters: AdapterHost,
    replica: ReplicaId,
    link_is_up: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl WorkerHost {
    pub(super) fn new(
        pools: &[Pool],
        models: Models,
        board: Arc<Board>,
        registry: Registry,
        link_is_up: Arc<dyn Fn() -> bool + Send + Sync>,
    ) -> Self {
        Self {
            pools: pools.iter().map(|pool| (pool.id.clone(), pool.clone())).collect(),
            models,
            board,
            registry,
            adapters: AdapterHost::default(),
            replica: ReplicaId::from("r0"),
            link_is_up,
        }
    }

    fn pool(&self, id: &PoolId) -> &Pool {
        self.pools.get(id).expect("drivers know the pools of the configuration and no others")
    }
}

#[async_trait]
impl Host for WorkerHost {
    async fn stage(
        &self,
        pool: &PoolId,
        model: &str,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<StagedModel, Failure> {
        let pool = self.pool(pool);
        if !pool.has_adapter() {
            // Before anything is fetched for it.
            return Err(doctor::no_adapter(pool.engine));
        }
        let path = self.models.present(pool, model, activity, cancel).await?;
        activity.set("reading the model's header", None);
        let staged = staging::inspect(pool, model, path).await?;
        self.board.staged(&pool.id, &staged);
        Ok(staged)
    }

    async fn reserve(
        &self,
        pool: &PoolId,
        model: &StagedModel,
        activity: &Activity,
        cancel: &CancellationToken,
    ) -> Result<(), Failure> {
        self.board.staged(pool, model);
        activity.set("waiting for the orchestrator to give it memory of the GPUs", None);
        let called_off = || Failure::new(PoolFault::VramExhausted, "the start was called off");
        // When this is dropped the wish is withdrawn with it.
        let answer = self.board.want_memory(pool);
        tokio::select! {
            answer = answer => answer.unwrap_or_else(|_| Err(called_off())),
            () = cancel.cancelled() => Err(called_off()),
        }
    }

    async fn park(&self, _: &PoolId) {}

    async fn unpark(&self, _: &PoolId) {}

    fn bind(&self, pool: &PoolId, endpoint: &EngineUrl) -> Result<(), Failure> {
        let config = self.pool(pool);
        let adapter = adapter_at(config.engine, endpoint, None, config.slots)
            .map_err(|reason| Failure::new(PoolFault::Unsupported, reason))?;
        self.adapters.bind(pool.clone(), self.replica.clone(), adapter, CallPolicy::default());
        self.board.bind(pool, endpoint.clone());
        Ok(())
    }

    async fn probe(&self, pool: &PoolId) -> Probe {
        match self.adapters.probe(pool, &self.replica).await {
            Ok(WorkerHealth { ready: true, .. }) => Probe::Ready,
            Ok(WorkerHealth { live: true, .. }) => Probe::Loading,
            Ok(WorkerHealth { .. }) | Err(_) => Probe::Silent,
        }
    }

    async fn self_test(&self, pool: &PoolId) -> Result<(), Failure> {
        let config = self.pool(pool);
        let props = self.adapters.props(pool, &self.replica).await;
        let workloads = props.map(|observed| observed.value.workloads.clone()).unwrap_or_default();
        if !workloads.is_empty() && !workloads.contains(&Workload::Completion) {
            return Ok(());
        }
        let tested =
            Tested { host: &self.adapters, pool, replica: &self.replica, engine: config.engine, model: &config.model };
        let tokens = selftest::run(tested).await?;
        narrate::self_tested(pool, tokens);
        Ok(())
    }

    fn open(&self, pool: &PoolId, _: &str) {
        self.board.open(pool);
    }

    fn close(&self, pool: &PoolId, why: Why) {
        self.board.close(pool, why, &self.registry);
    }

    fn cut(&self, pool: &PoolId) {
        self.board.cut(pool, (self.link_is_up)());
    }

    fn changed(&self, pool: &PoolId, report: &PoolReport) {
        let before = self.board.report(pool, report);
        let is_news = before.is_none_or(|it| (it.state, &it.failure) != (report.state, &report.failure));
        if is_news {
            narrate::pool(pool, report);
        }
    }
}
