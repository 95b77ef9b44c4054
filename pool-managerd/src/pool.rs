//! One managed pool: the driver of its [`Machine`].
//!
//! The driver is one asynchronous task. It waits for a closed list of things (wishes, ends of work, signs of the engine, time),
//! tells the machine, publishes what the machine says, and carries out its actions. What a pool is made of lies behind two seams:
//! a [`Workshop`] makes devices, engine and process available, and a [`Host`] is whoever gives tasks to the engine.

mod driver;
mod remote;
mod report;
mod seams;
mod wire;

use api_types::PoolId;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::driver::{Driver, PoolSetup};
pub use self::remote::{RemoteEnd, Wanted};
pub use self::report::{Activity, EngineIdentity, PoolReport};
pub use self::seams::{Engine, Host, Sign, StagedModel, Started, Workshop};
use crate::failure::Failure;
use crate::machine::{Conflict, Event};

/// Wishes that wait for a driver; each is carried out within milliseconds.
const WISHES: usize = 16;

/// A wish, and where the answer goes.
struct Wish {
    event: Event,
    answer: oneshot::Sender<Result<(), Conflict>>,
}

/// What is heard of a pool's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceNews {
    /// The driver, or one of them, does not answer any more.
    Lost(Failure),
    /// They can be used again.
    Back,
    /// One of them has reported an error after which what runs on it is lost.
    Fault(Failure),
}

/// The way to a pool that is driven elsewhere. Cloning is cheap.
#[derive(Clone)]
pub struct PoolHandle {
    id: PoolId,
    wishes: mpsc::Sender<Wish>,
    nudges: mpsc::Sender<()>,
    report: watch::Receiver<PoolReport>,
}

impl PoolHandle {
    /// The pool.
    #[must_use]
    pub const fn id(&self) -> &PoolId {
        &self.id
    }

    /// Has it serve.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub async fn start(&self) -> Result<(), Conflict> {
        self.wish(Event::Start).await
    }

    /// Has it take no new tasks; those that run have `for_ms` milliseconds.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub async fn drain(&self, for_ms: u64) -> Result<(), Conflict> {
        self.wish(Event::Drain { for_ms }).await
    }

    /// Has its engine stopped; tasks that run have `for_ms` milliseconds.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub async fn stop(&self, for_ms: u64) -> Result<(), Conflict> {
        self.wish(Event::Stop { for_ms }).await
    }

    /// Has its engine unloaded once nothing runs on it; it is loaded again when it is asked for.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub async fn unload(&self) -> Result<(), Conflict> {
        self.wish(Event::Unload).await
    }

    /// Has it serve another model, if that works.
    ///
    /// # Errors
    /// [`Conflict`]; nothing is changed.
    pub async fn reload(&self, model: String) -> Result<(), Conflict> {
        self.wish(Event::Reload { model }).await
    }

    /// Ends it with the daemon, and returns when nothing of it is left.
    pub async fn shut_down(&self) {
        // A driver that is gone has nothing left either.
        let _ = self.wish(Event::ShutDown).await;
        let mut report = self.report.clone();
        let _ = report.wait_for(|report| report.is_over).await;
    }

    /// A task has lost its engine: it is asked how it is at once.
    pub fn look_now(&self) {
        // One nudge that waits already is as good.
        let _ = self.nudges.try_send(());
    }

    /// How it stands.
    #[must_use]
    pub fn report(&self) -> PoolReport {
        self.report.borrow().clone()
    }

    /// How it stands, for whoever waits for a change.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<PoolReport> {
        self.report.clone()
    }

    async fn wish(&self, event: Event) -> Result<(), Conflict> {
        let (answer, answered) = oneshot::channel();
        if self.wishes.send(Wish { event, answer }).await.is_err() {
            return Err(Conflict::ShuttingDown);
        }
        answered.await.unwrap_or(Err(Conflict::ShuttingDown))
    }
}

#[cfg(test)]
mod tests;
