//! Idle connections, kept for the next request on whatever thread it comes.
//!
//! llama.cpp's server parks a thread per kept-alive connection and gives up on it after 5 s, which is why the limit is low
//! and idle time short. A limit of one is usual, so the connection must be of use to all threads: a tokio socket belongs to
//! the reactor of the runtime it was made in, and the daemon runs one runtime per core, so an idle socket is taken off its
//! reactor and put on that of its next user. That costs two system calls where a fresh connection costs ten times as much.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::{Connection, Parked};

/// The idle connections of one client.
#[derive(Debug, Default)]
pub(super) struct IdlePool {
    idle: Mutex<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    until: Instant,
    connection: Parked,
}

impl IdlePool {
    /// Takes the connection used last that is still alive, and closes those whose time is over.
    pub(super) fn take(&self) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let newest = {
                let mut idle = self.lock();
                idle.retain(|entry| entry.until > now);
                idle.pop()?
            };
            if let Some(connection) = newest.connection.unpark() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection for later, or closes it when there are `limit` of them.
    pub(super) fn put(&self, limit: usize, lifetime: Duration, connection: Connection) {
        let now = Instant::now();
        let mut idle = self.lock();
        idle.retain(|entry| entry.until > now);
        if idle.len() < limit
            && let Some(connection) = connection.park()
        {
            idle.push(Idle { until: now + lifetime, connection });
        }
    }

    /// How many connections are idle.
    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
