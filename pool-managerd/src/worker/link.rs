//! The link to the orchestrator: registration, heartbeats, commands.

mod refusal;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::{
    Heartbeat, HeartbeatAnswer, HostRegistration, RelaySecret, WORKER_PROTOCOL, WorkerRegistered, WorkerTerms,
};
use http_util::{Control, ControlConfig, ControlError, Secret};
use rand::RngExt as _;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::refusal::{RefusedError, Unanswered, refusal, refusal_of};
use super::{Shared, narrate};
use crate::protocol::Inbox;

/// Longest that a heartbeat may go without an answer: a second that it is held, and what the network takes.
const BEAT_LIMIT: Duration = Duration::from_secs(3);
/// Shortest gap between two heartbeats: what changes together is told together.
const GAP: Duration = Duration::from_millis(10);
/// Longest time without an answer in which changes still make an unanswered heartbeat give way to a new one.
const GIVE_WAY: Duration = Duration::from_secs(1);
/// Pauses after an attempt that failed: they double, from the first to the second.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(4));
/// Pauses after a refusal that only an operator can change.
const REFUSED_PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// One end of it.
pub(super) struct Link {
    shared: Arc<Shared>,
    control: Control,
    port: u16,
    seq: u64,
}

/// The commands of a session.
#[derive(Default)]
struct Commands(Mutex<Inbox>);

impl Commands {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a session came to its end.
enum Over {
    /// The orchestrator knows it no more.
    Forgotten,
    /// It does not take the token any more.
    Refused(RefusedError),
    /// This daemon stops.
    Stopped,
}

impl Link {
    pub(super) fn new(shared: Arc<Shared>, port: u16) -> Result<Self, ControlError> {
        let endpoint = shared.worker.orchestrator.as_str().parse();
        let endpoint = endpoint.map_err(|error| ControlError::Setup(Box::<http_util::EndpointError>::new(error)))?;
        let config = ControlConfig {
            api_key: Some(Secret::from(shared.token.expose())),
            connect_timeout: Duration::from_secs(2),
            ..ControlConfig::new(endpoint)
        };
        Ok(Self { control: Control::new(&config)?, shared, port, seq: 0 })
    }

    /// Registers, sends heartbeats, and registers again, until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut failed = 0;
        let mut told = None;
        loop {
            let error = tokio::select! {
                registered = self.register() => match registered {
                    Ok(terms) => {
                        (failed, told) = (0, None);
                        match self.session(terms, &stop).await {
                            Over::Stopped => return,
                            Over::Forgotten => {
                                self.shared.board.break_off();
                                continue;
                            }
                            Over::Refused(error) => error,
                        }
                    }
                    Err(error) => error,
                },
                () = stop.cancelled() => return,
            };
            self.is_up(false);
            let pause = pause(if error.is_lasting() { REFUSED_PAUSE } else { PAUSE }, failed);
            failed += 1;
            // The same thing again and again is said once.
            let text = error.to_string();
            if told.as_ref() != Some(&text) {
                narrate::not_registered(self.orchestrator(), &error, pause);
                told = Some(text);
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    fn orchestrator(&self) -> &str {
        self.shared.worker.orchestrator.as_str()
    }

    fn is_up(&self, is_up: bool) {
        self.shared.lives.link_is_up.store(is_up, Ordering::Relaxed);
    }

    async fn register(&self) -> Result<WorkerTerms, RefusedError> {
        let shared = &self.shared;
        let registration = HostRegistration {
            worker_id: shared.id.clone(),
            protocol: WORKER_PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: shared.boot_id.clone(),
            relay_port: self.port,
            advertise: shared.worker.advertise.clone(),
            relay_secret: RelaySecret(shared.secret.expose().to_owned()),
            devices: shared.devices.clone(),
        };
        let answer = self.control.post("/v1/workers/register", &registration, None).await?;
        if answer.status != 200 {
            return Err(refusal(&answer));
        }
        let registered: WorkerRegistered = answer.json()?;
        registered.terms.ok_or_else(|| {
            RefusedError::Refused("it takes this host for an engine; run the same version on both".to_owned())
        })
    }

    /// Sends heartbeats for as long as the session lasts.
    async fn session(&mut self, terms: WorkerTerms, stop: &CancellationToken) -> Over {
        narrate::registered(self.orchestrator(), &terms.version, terms.pools.len());
        self.is_up(true);
        let commands = Arc::new(Commands::default());
        let (shared, pools) = (Arc::clone(&self.shared), terms.pools);
        // Taking them on takes a while, in which heartbeats go on.
        tokio::spawn(async move { shared.lives.take_on(&shared, pools).await });
        let (mut failed, mut answered_at) = (0, Instant::now());
        loop {
            let beat = self.beat(&terms.session, &commands);
            let path = format!("/v1/workers/{}/heartbeat", self.shared.id);
            let sent = self.control.post(&path, &beat, Some(BEAT_LIMIT));
            let answer = tokio::select! {
                answer = sent => answer,
                () = self.news(answered_at) => {
                    sleep(GAP).await;
                    continue;
                }
                () = stop.cancelled() => {
                    let last = Heartbeat { leaving: true, ..self.beat(&terms.session, &commands) };
                    // It finds out by itself, too.
                    let _ = self.control.post(&path, &last, Some(BEAT_LIMIT)).await;
                    return Over::Stopped;
                }
            };
            let answer = answer.map_err(Unanswered::from).and_then(|answer| match answer.status {
                200 => Ok(answer.json::<HeartbeatAnswer>()?),
                _ => Err(refusal_of(&answer)),
            });
            match answer {
                Ok(answer) => {
                    if failed > 0 {
                        narrate::back(self.orchestrator());
                    }
                    failed = 0;
                    answered_at = Instant::now();
                    self.is_up(true);
                    commands.inbox().known(&beat.done);
                    self.shared.board.answered(&beat, &answer);
                    self.begin(&commands, answer);
                }
                Err(Unanswered::Forgotten) => return Over::Forgotten,
                Err(Unanswered::For(error)) if error.is_lasting() => return Over::Refused(error),
                Err(Unanswered::For(error)) => {
                    if failed == 0 {
                        narrate::cut_off(self.orchestrator(), &error);
                    }
                    self.is_up(false);
                    let pause = pause((PAUSE.0, Duration::from_secs(1)), failed);
                    failed += 1;
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = stop.cancelled() => return Over::Stopped,
                    }
                }
            }
        }
    }

    /// Waits for something that should be told at once. While nothing is answered, what is to be done would never come if each change
    /// made a heartbeat give way.
    async fn news(&self, answered_at: Instant) {
        let readings = async {
            match self.shared.lives.present() {
                Some(life) if self.shared.board.is_busy() => {
                    let mut readings = life.manager.readings();
                    // From now on: what was read before is told already.
                    readings.mark_unchanged();
                    if readings.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.board.changed.notified() => {}
            () = readings => {}
        }
        if answered_at.elapsed() > GIVE_WAY {
            std::future::pending::<()>().await;
        }
    }

    /// The next heartbeat.
    fn beat(&mut self, session: &str, commands: &Commands) -> Heartbeat {
        self.seq += 1;
        let life = self.shared.lives.present();
        let (devices, age) = life.as_ref().map_or_else(|| (self.shared.devices.clone(), None), |life| life.devices());
        let mut pools = self.shared.board.tell();
        if let Some(life) = life {
            life.manager.hurry(self.shared.board.is_busy());
            for pool in &mut pools {
                pool.memory = life.memory(pool, &devices);
                let asked = || life.manager.takes_over(&pool.pool_id);
                pool.takes_over = self.shared.board.takes_over(&pool.pool_id, asked);
            }
        }
        let (taken_through, done) = commands.inbox().report();
        Heartbeat {
            session: session.to_owned(),
            seq: self.seq,
            taken_through,
            done,
            pools,
            devices,
            devices_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            leaving: false,
        }
    }

    /// Begins what is to be done. Tasks of the one thread begin in the order in which they are spawned, and each passes its wish on
    /// at once; what comes of it may take a while.
    fn begin(&self, commands: &Arc<Commands>, answer: HeartbeatAnswer) {
        for command in commands.inbox().take(answer.commands) {
            let (shared, commands) = (Arc::clone(&self.shared), Arc::clone(commands));
            tokio::spawn(async move {
                let result = shared.lives.carry_out(&shared.board, &command).await;
                commands.inbox().done(command.number, result);
                shared.board.changed.notify_one();
            });
        }
    }
}

/// The pause after so many failures in a row: doubled each time, and half of it left to chance, so that hosts do not come all at
/// once.
fn pause((first, longest): (Duration, Duration), failures: u32) -> Duration {
    let full = first.saturating_mul(1 << failures.min(16)).min(longest);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}
