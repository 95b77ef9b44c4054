//! What a promise is called that was not kept.

/// A promise that was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// ORCH-3004.
    #[error("the queue of pool {pool} has grown beyond its capacity")]
    Capacity {
        /// The pool.
        pool: &'static str,
    },
    /// Of a replica.
    #[error("replica {replica} of pool {pool} runs more tasks than it has slots")]
    Slots {
        /// The pool.
        pool: &'static str,
        /// The replica, by its place.
        replica: usize,
    },
    /// ORCH-3004: first come, first served.
    #[error("pool {pool} started task {task} before an older one of its class")]
    Overtaken {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// OC-CORE-1004.
    #[error("pool {pool} started batch task {task} while an interactive one waited there")]
    BatchFirst {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// The operator's shares.
    #[error("pool {pool} started task {task} although its class had had its turns")]
    OutOfTurn {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// OC-CORE-1005: it was canceled, has ended, or runs already.
    #[error("pool {pool} started task {task}, which was not waiting")]
    NotWaiting {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// ORCH-3011, and what the client asked for.
    #[error("task {task} was put on pool {pool}, which it must not use")]
    Crossed {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// ORCH-3010.
    #[error("task {task} was given to pool {pool}, which takes no work")]
    NotReady {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// FR-PF-001.
    #[error("pool {pool} has a free slot and a waiting task, and starts nothing")]
    Idle {
        /// The pool.
        pool: &'static str,
    },
    /// A task was taken away from a pool that could have started it.
    #[error("pool {pool} took over task {task} from a pool that had a free slot for it")]
    TakenFromAble {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// LO-ADM-02.
    #[error("task {task} was evicted from pool {pool}, and it was not its turn to go")]
    Evicted {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// One end per task.
    #[error("what was said of task {task} does not fit what was said of it before")]
    Story {
        /// The task.
        task: usize,
    },
    /// LO-ADM-05.
    #[error("task {task} does not stand where it should in the queue of pool {pool}")]
    Position {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
    },
    /// Its own counts.
    #[error("pool {pool} counts its tasks wrong")]
    Count {
        /// The pool.
        pool: &'static str,
    },
    /// LO-SWP-02.
    #[error("an engine of pool {pool} found less memory on device {device} than it was promised")]
    OverCommitted {
        /// The pool.
        pool: &'static str,
        /// The device.
        device: usize,
    },
    /// LO-SWP-03.
    #[error("the engine of pool {pool} was ended while tasks ran on it")]
    Killed {
        /// The pool.
        pool: &'static str,
    },
    /// LO-SWP-04: where the load can be done in time.
    #[error("task {task} waited {wait_ms} ms for pool {pool}, longer than the age limit")]
    TooLate {
        /// The pool.
        pool: &'static str,
        /// The task.
        task: usize,
        /// How long.
        wait_ms: u64,
    },
}
