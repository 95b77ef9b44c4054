//! What is known of every pool of this host, for whoever must know it without asking (ORCH-3501, ORCH-3503).
//!
//! Managers write it, and whoever hands tasks to engines takes leases here. An entry is as fresh as its heartbeat: managers
//! write at least every [`HEARTBEAT`], and what is older than [`STALE_AFTER`] must not be relied on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::PoolId;
use tokio::sync::Notify;

/// Longest gap between two heartbeats of a pool that is watched.
pub const HEARTBEAT: Duration = Duration::from_secs(1);
/// Age at which an entry says nothing about the present (ORCH-3971.2).
pub const STALE_AFTER: Duration = Duration::from_secs(5);

/// Whether an engine is there, and whether it takes tasks (ORCH-3500).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthStatus {
    /// The engine's process answers.
    pub live: bool,
    /// A task submitted now would be taken.
    pub ready: bool,
}

/// What is known of one pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolEntry {
    /// How its engine is.
    pub health: HealthStatus,
    /// When it was last heard from, in milliseconds since the Unix epoch.
    pub last_heartbeat_ms: Option<i64>,
    /// The engine's version.
    pub version: Option<String>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Tasks that hold one of its slots. Never below 0.
    pub active_leases: i32,
}

/// Every pool of this host. Cloning shares it.
#[derive(Clone, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Default)]
struct Shared {
    pools: Mutex<HashMap<PoolId, PoolEntry>>,
    /// Some pool has no lease any more.
    idle: Notify,
}

/// A slot of a pool in use. It is free again when this is dropped.
pub struct Lease {
    registry: Registry,
    pool: PoolId,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.registry.release_lease(&self.pool);
    }
}

impl Registry {
    /// What is known of a pool; `None` when nothing was ever written.
    #[must_use]
    pub fn get(&self, pool: &PoolId) -> Option<PoolEntry> {
        self.lock().get(pool).cloned()
    }

    /// How its engine is; neither live nor ready when nothing is known.
    #[must_use]
    pub fn get_health(&self, pool: &PoolId) -> HealthStatus {
        self.read(pool, |entry| entry.health)
    }

    /// Says how a pool's engine is.
    pub fn set_health(&self, pool: &PoolId, health: HealthStatus) {
        self.write(pool, |entry| entry.health = health);
    }

    /// What went wrong last.
    #[must_use]
    pub fn get_last_error(&self, pool: &PoolId) -> Option<String> {
        self.read(pool, |entry| entry.last_error.clone())
    }

    /// Says what went wrong, or that nothing is wrong any more.
    pub fn set_last_error(&self, pool: &PoolId, error: Option<String>) {
        self.write(pool, |entry| entry.last_error = error);
    }

    /// When it was last heard from, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn get_heartbeat(&self, pool: &PoolId) -> Option<i64> {
        self.read(pool, |entry| entry.last_heartbeat_ms)
    }

    /// Says that it was heard from. One that is older than the last changes nothing.
    pub fn set_heartbeat(&self, pool: &PoolId, at_ms: i64) {
        self.write(pool, |entry| entry.last_heartbeat_ms = entry.last_heartbeat_ms.max(Some(at_ms)));
    }

    /// The engine's version.
    #[must_use]
    pub fn get_version(&self, pool: &PoolId) -> Option<String> {
        self.read(pool, |entry| entry.version.clone())
    }

    /// Says which version the engine is.
    pub fn set_version(&self, pool: &PoolId, version: Option<String>) {
        self.write(pool, |entry| entry.version = version);
    }

    /// Takes a slot until what is returned is dropped.
    #[must_use]
    pub fn lease(&self, pool: &PoolId) -> Lease {
        self.allocate_lease(pool);
        Lease { registry: self.clone(), pool: pool.clone() }
    }

    /// Counts a lease, and says how many there are then.
    pub fn allocate_lease(&self, pool: &PoolId) -> i32 {
        self.write(pool, |entry| {
            entry.active_leases = entry.active_leases.saturating_add(1);
            entry.active_leases
        })
    }

    /// Counts one lease less, down to 0, and says how many there are then (ORCH-3502, ORCH-3971.1).
    pub fn release_lease(&self, pool: &PoolId) -> i32 {
        let left = self.write(pool, |entry| {
            entry.active_leases = (entry.active_leases - 1).max(0);
            entry.active_leases
        });
        if left == 0 {
            self.0.idle.notify_waiters();
        }
        left
    }

    /// Leases of a pool; 0 for one that is not known.
    #[must_use]
    pub fn get_active_leases(&self, pool: &PoolId) -> i32 {
        self.read(pool, |entry| entry.active_leases)
    }

    /// Waits until no slot of a pool is in use.
    pub async fn idle(&self, pool: &PoolId) {
        loop {
            let released = self.0.idle.notified();
            if self.get_active_leases(pool) == 0 {
                return;
            }
            released.await;
        }
    }

    fn read<T: Default>(&self, pool: &PoolId, look: impl FnOnce(&PoolEntry) -> T) -> T {
        self.lock().get(pool).map(look).unwrap_or_default()
    }

    /// Changes an entry, which is made with defaults if need be.
    fn write<T>(&self, pool: &PoolId, change: impl FnOnce(&mut PoolEntry) -> T) -> T {
        let mut pools = self.lock();
        match pools.get_mut(pool) {
            Some(entry) => change(entry),
            None => change(pools.entry(pool.clone()).or_default()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PoolId, PoolEntry>> {
        self.0.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use api_types::PoolId;
    use proptest::prelude::*;

    use super::{HealthStatus, Registry};

    /// ORCH-3501, ORCH-3503, ORCH-3500: the first setter makes an entry with defaults; what is not known reads as nothing.
    #[test]
    fn entries_come_with_the_first_word_about_them() {
        let (registry, pool) = (Registry::default(), PoolId::from("gpu0"));
        assert_eq!(registry.get(&pool), None);
        assert_eq!(registry.get_health(&pool), HealthStatus { live: false, ready: false });
        registry.set_version(&pool, Some("b6891".to_owned()));
        registry.set_heartbeat(&pool, 20);
        registry.set_heartbeat(&pool, 10);
        registry.set_health(&pool, HealthStatus { live: true, ready: false });
        registry.set_last_error(&pool, Some("it loads".to_owned()));
        let entry = registry.get(&pool).expect("there is one");
        assert_eq!((entry.last_heartbeat_ms, entry.active_leases), (Some(20), 0));
        assert_eq!(registry.get_version(&pool).as_deref(), Some("b6891"));
        assert_eq!(registry.get_heartbeat(&pool), Some(20));
        assert_eq!(registry.get_last_error(&pool).as_deref(), Some("it loads"));
    }

    proptest! {
        /// ORCH-3502, ORCH-3971.1: leases are counted exactly, and never below 0.
        #[test]
        fn leases_saturate_at_zero(steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let (registry, pool) = (Registry::default(), PoolId::from("gpu0"));
            prop_assert_eq!(registry.get_active_leases(&pool), 0);
            let mut expected = 0;
            for take in steps {
                expected = if take { expected + 1 } else { (expected - 1_i32).max(0) };
                let told = if take { registry.allocate_lease(&pool) } else { registry.release_lease(&pool) };
                prop_assert_eq!(told, expected);
            }
        }
    }

    /// ORCH-3505: whoever waits for the last task is woken by its end, however it ends.
    #[tokio::test]
    async fn the_last_lease_wakes_who_waits() {
        let (registry, pool) = (Registry::default(), PoolId::from("gpu0"));
        registry.idle(&pool).await;
        let leases = [registry.lease(&pool), registry.lease(&pool)];
        let (waiting, of) = (registry.clone(), pool.clone());
        let waiter = tokio::spawn(async move { waiting.idle(&of).await });
        tokio::task::yield_now().await;
        for lease in leases {
            assert!(!waiter.is_finished());
            drop(lease);
        }
        waiter.await.expect("it is woken");
    }
}
