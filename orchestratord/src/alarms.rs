//! Deadlines of tasks that nothing else is watching: a task in the queue, a stream that nobody has opened, a client that may
//! come back. One timer serves all of them; a running task's own limits are its runner's business.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use api_types::TaskId;
use tokio::sync::Notify;

use crate::clock::Clock;

/// What is due when an alarm goes off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alarm {
    /// The task's deadline passed while it was waiting.
    Deadline,
    /// Nobody has opened the stream of an interactive task.
    Unattended,
    /// The last reader went away and has not come back.
    Abandoned,
    /// Readers of a waiting task are told how things stand.
    Report,
}

impl Alarm {
    const ALL: [Self; 4] = [Self::Deadline, Self::Unattended, Self::Abandoned, Self::Report];
}

/// Pending alarms, at most one of each kind per task.
#[derive(Debug, Default)]
pub struct Alarms {
    pending: Mutex<Pending>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    by_time: BTreeSet<(u64, TaskId, Alarm)>,
    by_task: HashMap<(TaskId, Alarm), u64>,
    /// When whoever waits for alarms looks again by itself; `None` while it waits for the first one. An alarm that was taken
    /// back still counts, so that a task that comes and goes wakes nobody.
    looks_again_ms: Option<u64>,
}

impl Alarms {
    /// Sets or moves an alarm.
    pub fn set(&self, task: TaskId, alarm: Alarm, at_ms: u64) {
        let mut pending = self.lock();
        if let Some(old) = pending.by_task.insert((task, alarm), at_ms) {
            pending.by_time.remove(&(old, task, alarm));
        }
        pending.by_time.insert((at_ms, task, alarm));
        let is_too_late = pending.looks_again_ms.is_none_or(|looks_again_ms| at_ms < looks_again_ms);
        drop(pending);
        if is_too_late {
            self.earlier.notify_one();
        }
    }

    /// Takes back every alarm of a task.
    pub fn clear(&self, task: TaskId) {
        self.clear_all(task, &Alarm::ALL);
    }

    /// Takes back the alarms that wait for a reader.
    pub fn clear_attendance(&self, task: TaskId) {
        self.clear_all(task, &[Alarm::Unattended, Alarm::Abandoned]);
    }

    fn clear_all(&self, task: TaskId, alarms: &[Alarm]) {
        let mut pending = self.lock();
        for &alarm in alarms {
            if let Some(at_ms) = pending.by_task.remove(&(task, alarm)) {
                pending.by_time.remove(&(at_ms, task, alarm));
            }
        }
    }

    /// Whether no alarm is set.
    pub fn is_empty(&self) -> bool {
        self.lock().by_time.is_empty()
    }

    /// Waits for alarms and hands each to `due`. Runs until dropped.
    pub async fn run(&self, clock: Clock, mut due: impl FnMut(TaskId, Alarm)) {
        loop {
            match self.next() {
                None => self.earlier.notified().await,
                Some((at_ms, task, alarm)) if at_ms <= clock.now_ms() => {
                    self.clear_all(task, &[alarm]);
                    due(task, alarm);
                }
                Some((at_ms, ..)) => tokio::select! {
                    () = self.earlier.notified() => {}
                    () = tokio::time::sleep_until(clock.instant(at_ms)) => {}
                },
            }
        }
    }

    /// The first alarm, which is what is waited for now.
    fn next(&self) -> Option<(u64, TaskId, Alarm)> {
        let mut pending = self.lock();
        let next = pending.by_time.first().copied();
        pending.looks_again_ms = next.map(|(at_ms, ..)| at_ms);
        next
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::{Alarm, Alarms, Clock, TaskId};

    #[tokio::test]
    async fn alarms_go_off_in_order_and_cleared_ones_never() {
        let alarms = Alarms::default();
        let clock = Clock::start();
        let (first, second, third) = (TaskId::random(), TaskId::random(), TaskId::random());
        let now = clock.now_ms();
        alarms.set(second, Alarm::Deadline, now + 30);
        alarms.set(first, Alarm::Unattended, now + 60);
        alarms.set(first, Alarm::Unattended, now + 10);
        alarms.set(third, Alarm::Deadline, now + 5);
        alarms.clear(third);
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let running = alarms.run(clock, |task, alarm| sender.send((task, alarm)).expect("the test listens"));
        let listening = async { [receiver.recv().await, receiver.recv().await] };
        let got = tokio::select! {
            () = running => unreachable!("it runs until dropped"),
            got = listening => got,
            () = tokio::time::sleep(Duration::from_secs(20)) => panic!("no alarm went off"),
        };
        assert_eq!(got, [Some((first, Alarm::Unattended)), Some((second, Alarm::Deadline))]);
        assert!(alarms.is_empty());
    }
}
