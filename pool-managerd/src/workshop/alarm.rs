//! What a living engine says of being lost.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::diagnose::{Alarm, diagnose_living};
use crate::failure::Failure;
use crate::logs::EngineLog;

/// Time for the rest of what an engine has to say, and for its end: the first line is seldom the one that says most.
const REST: Duration = Duration::from_millis(200);

/// Waits for an engine to say that it is lost although its process is alive.
pub(super) struct LostAlarm {
    log: EngineLog,
    alarm: watch::Receiver<Option<Alarm>>,
    /// When it began to say so.
    since: Option<Instant>,
    told: bool,
}

impl LostAlarm {
    pub(super) fn new(log: &EngineLog) -> Self {
        Self { log: log.clone(), alarm: log.alarm(), since: None, told: false }
    }

    /// Waits until it is said, which is told once: what is said afterwards changes nothing. May be dropped and called again.
    pub(super) async fn lost(&mut self) -> Failure {
        if self.told {
            std::future::pending::<()>().await;
        }
        let is_lost = |alarm: &Option<Alarm>| alarm.as_ref().is_some_and(|alarm| alarm.lost);
        let Some(first) = self.alarm.wait_for(is_lost).await.ok().and_then(|alarm| alarm.clone()) else {
            // Nobody writes to the log any more.
            return std::future::pending().await;
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        sleep_until(since + REST).await;
        self.told = true;
        diagnose_living(&self.log.tail()).unwrap_or(first.diagnosis)
    }
}
