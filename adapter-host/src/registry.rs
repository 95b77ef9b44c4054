//! Which adapter serves which replica.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use adapter_api::{WorkerAdapter, WorkerError, WorkerHealth, WorkerProps};
use api_types::{PoolId, ReplicaId};

use crate::cache::Cached;

/// An adapter in its place, with what its engine last said. A new adapter starts with nothing remembered.
pub(crate) struct Binding {
    pub(crate) adapter: Arc<dyn WorkerAdapter>,
    pub(crate) health: Cached<WorkerHealth>,
    pub(crate) props: Cached<Arc<WorkerProps>>,
    pub(crate) version: Cached<Arc<str>>,
}

impl Binding {
    fn new(adapter: Arc<dyn WorkerAdapter>) -> Self {
        Self { adapter, health: Cached::default(), props: Cached::default(), version: Cached::default() }
    }
}

type Pools = HashMap<PoolId, HashMap<ReplicaId, Arc<Binding>>>;

/// Every binding. Two levels, so that looking one up needs no owned key.
#[derive(Default)]
pub(crate) struct Registry {
    pools: RwLock<Pools>,
}

impl Registry {
    pub(crate) fn bind(
        &self,
        pool: PoolId,
        replica: ReplicaId,
        adapter: Arc<dyn WorkerAdapter>,
    ) -> Option<Arc<Binding>> {
        self.write(|pools| pools.entry(pool).or_default().insert(replica, Arc::new(Binding::new(adapter))))
    }

    pub(crate) fn unbind(&self, pool: &PoolId, replica: &ReplicaId) -> Option<Arc<Binding>> {
        self.write(|pools| {
            let replicas = pools.get_mut(pool)?;
            let old = replicas.remove(replica);
            if replicas.is_empty() {
                pools.remove(pool);
            }
            old
        })
    }

    pub(crate) fn find(&self, pool: &PoolId, replica: &ReplicaId) -> Result<Arc<Binding>, WorkerError> {
        let found = self.read(|pools| pools.get(pool).and_then(|replicas| replicas.get(replica)).cloned());
        found.ok_or_else(|| {
            WorkerError::PoolUnavailable(format!("no engine is bound to replica {replica} of pool {pool}"))
        })
    }

    pub(crate) fn replicas(&self, pool: &PoolId) -> Vec<ReplicaId> {
        let mut replicas: Vec<_> =
            self.read(|pools| pools.get(pool).into_iter().flat_map(HashMap::keys).cloned().collect());
        replicas.sort_unstable();
        replicas
    }

    fn read<T>(&self, look: impl FnOnce(&Pools) -> T) -> T {
        look(&self.pools.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Pools) -> T) -> T {
        change(&mut self.pools.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |pools: &Pools| {
            f.debug_map()
                .entries(pools.iter().map(|(pool, replicas)| (pool, replicas.keys().collect::<Vec<_>>())))
                .finish()
        };
        self.read(bound)
    }
}
