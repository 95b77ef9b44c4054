//! Heartbeats: what a host tells is taken in at once, and answered when there is something to do, or after a while.

use std::sync::Arc;
use std::time::Duration;

use api_types::{ErrorEnvelope, ErrorKind, Heartbeat, HeartbeatAnswer, PoolLeases};
use futures_util::future::{Either, pending, select_all};
use pool_managerd::registry::HEARTBEAT;
use tokio::time::{Instant, sleep_until};

use super::{ReadDevices, Worker, answer};
use crate::app::App;
use crate::narrate;
use crate::pools::managed::DaemonHost;

impl Worker {
    /// Takes a heartbeat in, waits for something to do, and says what. Dropping the future loses nothing.
    ///
    /// # Errors
    /// `NOT_FOUND` when its session is over: the host is to register again.
    pub async fn heartbeat(
        &self,
        app: &Arc<App>,
        host: &DaemonHost,
        beat: Heartbeat,
    ) -> Result<HeartbeatAnswer, ErrorEnvelope> {
        let (session, leaving) = (beat.session.clone(), beat.leaving);
        self.take_in(app, host, beat)?;
        app.metrics.heartbeat(self.id.as_str());
        if leaving {
            return Ok(HeartbeatAnswer::default());
        }
        let until = Instant::now() + HEARTBEAT;
        loop {
            let news = self.news.notified();
            tokio::pin!(news);
            // From here on no word of it is missed.
            news.as_mut().enable();
            let (so_far, waits) = self.answer_now(app, &session)?;
            if !so_far.commands.is_empty() {
                return Ok(so_far);
            }
            tokio::select! {
                () = news => {}
                () = idle(app, &waits) => return self.answer_now(app, &session).map(|(answer, _)| answer),
                () = sleep_until(until) => return self.answer_now(app, &session).map(|(answer, _)| answer),
            }
        }
    }

    fn take_in(&self, app: &Arc<App>, host: &DaemonHost, beat: Heartbeat) -> Result<(), ErrorEnvelope> {
        let _taking = self.taking();
        let (done, relay) = {
            let mut link = self.link();
            let link = &mut *link;
            let (Some(session), Some(last)) = (&mut link.session, &mut link.last) else { return Err(self.over()) };
            if session.id != beat.session {
                return Err(self.over());
            }
            session.heard = Instant::now();
            last.heard = session.heard;
            if beat.seq <= session.seq {
                // A newer one was faster.
                return Ok(());
            }
            session.seq = beat.seq;
            last.read = beat.devices_age_ms.and_then(|age_ms| {
                let taken = std::time::Instant::now().checked_sub(Duration::from_millis(age_ms))?;
                Some(Arc::new(ReadDevices::new(&beat.devices, taken)))
            });
            last.devices = beat.devices;
            (session.orders.acknowledge(beat.taken_through, &beat.done), last.relay.clone())
        };
        for told in &beat.pools {
            if let Some(pool) = self.pools.get(&told.pool_id) {
                pool.take_in(app, host, &self.id, &relay, told);
            }
        }
        app.residency.nudge();
        for (waiter, done) in done {
            answer(waiter, done.map_err(Into::into));
        }
        if beat.leaving {
            narrate::worker_left(&self.id);
            self.give_up(app, host);
        }
        Ok(())
    }

    /// What there is to say now, and the closed pools whose tasks have not all ended.
    fn answer_now(&self, app: &App, session: &str) -> Result<(HeartbeatAnswer, Vec<api_types::PoolId>), ErrorEnvelope> {
        let (seq, commands) = {
            let link = self.link();
            let session = link.session.as_ref().filter(|now| now.id == session).ok_or_else(|| self.over())?;
            (session.seq, session.orders.to_send().cloned().collect())
        };
        let registry = app.manager.registry();
        let leases: Vec<_> = self
            .pools
            .keys()
            .map(|pool| PoolLeases {
                pool_id: pool.clone(),
                count: u32::try_from(registry.get_active_leases(pool)).unwrap_or(0),
            })
            .filter(|leases| leases.count > 0)
            .collect();
        let is_closed = |leases: &&PoolLeases| self.pools.get(&leases.pool_id).is_some_and(|pool| pool.is_closed());
        let waits = leases.iter().filter(is_closed).map(|leases| leases.pool_id.clone()).collect();
        Ok((HeartbeatAnswer { seq, commands, leases }, waits))
    }

    fn over(&self) -> ErrorEnvelope {
        let message =
            format!("worker {} is not registered, or was and has not been heard from since; register again", self.id);
        ErrorEnvelope::new(ErrorKind::NotFound, message)
    }
}

/// Waits until one of these pools has no task.
async fn idle(app: &App, pools: &[api_types::PoolId]) {
    let waiting = if pools.is_empty() {
        Either::Left(pending())
    } else {
        let each = pools.iter().map(|pool| Box::pin(app.manager.registry().idle(pool)));
        Either::Right(async { drop(select_all(each).await) })
    };
    waiting.await;
}
