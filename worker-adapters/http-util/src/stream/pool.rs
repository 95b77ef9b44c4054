//! Idle connections, kept for the next request.
//!
//! A tokio socket belongs to the reactor of the runtime it was made in, and the daemon runs one runtime per core: so each
//! thread keeps its own, and an endpoint's limit is one counter that all threads share. llama.cpp's server parks a thread
//! per kept-alive connection and gives up on it after 5 s, which is why the limit is low and idle time short.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, Id};
use tokio::time::Instant;

use super::connection::Connection;

thread_local! {
    static IDLE: RefCell<Vec<Idle>> = const { RefCell::new(Vec::new()) };
}

/// How many connections of one client are idle, over all threads. Its address is the client's identity.
pub(super) type IdleCount = Arc<AtomicUsize>;

struct Idle {
    permit: Permit,
    runtime: Id,
    until: Instant,
    connection: Connection,
}

/// A place among an endpoint's idle connections, given back when dropped, also by the end of a thread.
struct Permit(IdleCount);

impl Permit {
    fn acquire(count: &IdleCount, limit: usize) -> Option<Self> {
        count
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |idle| (idle < limit).then_some(idle + 1))
            .ok()
            .map(|_| Self(Arc::clone(count)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes the client's most recently used idle connection, and closes those whose time is over.
pub(super) fn take(client: &IdleCount) -> Option<Connection> {
    let runtime = Handle::try_current().ok()?.id();
    let now = Instant::now();
    IDLE.try_with(|idle| {
        let mut idle = idle.borrow_mut();
        idle.retain(|entry| entry.until > now);
        let mine = |entry: &Idle| Arc::ptr_eq(&entry.permit.0, client) && entry.runtime == runtime;
        while let Some(at) = idle.iter().rposition(mine) {
            let entry = idle.swap_remove(at);
            if entry.connection.looks_alive() {
                return Some(entry.connection);
            }
        }
        None
    })
    .ok()?
}

/// Keeps a connection for later, or closes it when the endpoint has enough of them.
pub(super) fn put(client: &IdleCount, limit: usize, lifetime: Duration, connection: Connection) {
    let (Ok(handle), Some(permit)) = (Handle::try_current(), Permit::acquire(client, limit)) else {
        return;
    };
    let now = Instant::now();
    let entry = Idle { permit, runtime: handle.id(), until: now + lifetime, connection };
    // A thread that is ending keeps nothing.
    let _ = IDLE.try_with(|idle| {
        let mut idle = idle.borrow_mut();
        idle.retain(|entry| entry.until > now);
        idle.push(entry);
    });
}
