//! A pool that another host drives, as its orchestrator has it: the same handle, and at its other end whoever passes wishes on and
//! publishes what the host tells.

use api_types::{PoolId, WorkerOrder};
use tokio::sync::{mpsc, oneshot, watch};

use super::{PoolHandle, PoolReport, WISHES, Wish};
use crate::machine::{Conflict, Event};

/// The other end of a handle to a pool of another host. Dropping it answers every wish with [`Conflict::ShuttingDown`].
pub struct RemoteEnd {
    wishes: mpsc::Receiver<Wish>,
    nudges: mpsc::Receiver<()>,
}

/// What somebody wants of such a pool.
pub enum Wanted {
    /// This is to be done, and the answer goes there.
    Order(WorkerOrder, oneshot::Sender<Result<(), Conflict>>),
    /// A task has lost its engine.
    LookNow,
    /// The orchestrator ends. Its pools elsewhere go on.
    Over(oneshot::Sender<Result<(), Conflict>>),
}

impl PoolHandle {
    /// The way to a pool that another host drives, its other end, and where it is told how the pool stands.
    #[must_use]
    pub fn remote(id: PoolId, report: PoolReport) -> (Self, RemoteEnd, watch::Sender<PoolReport>) {
        let (wishes_to, wishes) = mpsc::channel(WISHES);
        let (nudges_to, nudges) = mpsc::channel(1);
        let (reports_to, reports) = watch::channel(report);
        let handle = Self { id, wishes: wishes_to, nudges: nudges_to, report: reports };
        (handle, RemoteEnd { wishes, nudges }, reports_to)
    }
}

impl RemoteEnd {
    /// The next thing that somebody wants; `None` when nobody has a handle any more.
    pub async fn next(&mut self) -> Option<Wanted> {
        tokio::select! {
            biased;
            wish = self.wishes.recv() => wish.map(wanted),
            nudge = self.nudges.recv() => nudge.map(|()| Wanted::LookNow),
        }
    }
}

fn wanted(Wish { event, answer }: Wish) -> Wanted {
    match event {
        Event::Start => Wanted::Order(WorkerOrder::Start, answer),
        Event::Drain { for_ms } => Wanted::Order(WorkerOrder::Drain { for_ms }, answer),
        Event::Stop { for_ms } => Wanted::Order(WorkerOrder::Stop { for_ms }, answer),
        Event::Unload => Wanted::Order(WorkerOrder::Unload, answer),
        Event::Reload { model } => Wanted::Order(WorkerOrder::Reload { model }, answer),
        // A handle wishes for nothing else.
        _ => Wanted::Over(answer),
    }
}
