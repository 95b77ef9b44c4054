//! Which adapter serves which replica.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use adapter_api::{WorkerAdapter, WorkerError};
use api_types::{PoolId, ReplicaId};

use crate::binding::{Binding, CallPolicy};

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
        policy: CallPolicy,
    ) -> Option<Arc<Binding>> {
        self.write(|pools| {
            let replicas = pools.entry(pool.clone()).or_default();
            let counts = replicas.get(&replica).map(|old| Arc::clone(&old.counts)).unwrap_or_default();
            let binding = Binding::new(pool, replica.clone(), adapter, policy, counts);
            replicas.insert(replica, Arc::new(binding))
        })
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
