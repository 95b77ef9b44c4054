//! The loop.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_types::{PoolFault, PoolId, PoolState};
use config_schema::Supervision;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::report::Activity;
use super::seams::{Engine, Host, Sign, StagedModel, Workshop};
use super::{DeviceNews, EngineIdentity, PoolHandle, PoolReport, WISHES, Wish};
use crate::failure::Failure;
use crate::machine::{Action, Event, Limits, Machine, Probe, Probing, Ticket};
use crate::registry::{HealthStatus, Registry};

/// Gap between two looks at what is under way: an engine that somebody waits for, work that goes on.
const PULSE: Duration = Duration::from_millis(250);
/// Longest that starting a process or a container may take; what it does then is its own matter.
const SPAWN_LIMIT: Duration = Duration::from_secs(120);
/// Time an engine has to put its sessions away before it is unloaded, in milliseconds: a few gigabytes to a disk.
const PARK_MS: u64 = 15_000;
/// Longest that looking at the devices may take.
const DEVICES_LIMIT: Duration = Duration::from_secs(30);

/// What a driver needs.
pub struct PoolSetup {
    /// The pool.
    pub id: PoolId,
    /// The model it begins with.
    pub model: String,
    /// It is loaded when it is asked for, and not before.
    pub lazy: bool,
    /// How it is supervised.
    pub supervision: Supervision,
    /// What its engine is made of.
    pub workshop: Arc<dyn Workshop>,
    /// Who gives it tasks.
    pub host: Arc<dyn Host>,
    /// Where its leases are counted.
    pub registry: Registry,
    /// News of the pool's devices.
    pub news: mpsc::Receiver<DeviceNews>,
}

/// Drives one pool.
pub struct Driver {
    setup: PoolSetup,
    machine: Machine,
    epoch: Instant,
    wishes: mpsc::Receiver<Wish>,
    nudges: mpsc::Receiver<()>,
    report: watch::Sender<PoolReport>,
    engine: Option<RunningEngine>,
    identity: Option<EngineIdentity>,
    /// The models that were staged and may be started: the one that serves, and the one of a reload.
    staged: Vec<StagedModel>,
    activity: Activity,
    work: JoinSet<Done>,
    cancel: CancellationToken,
    probe: Option<Pin<Box<dyn Future<Output = Probe> + Send>>>,
    probe_at: Instant,
}

struct RunningEngine {
    engine: Box<dyn Engine>,
    ticket: Ticket,
    /// The progress it had made when it was looked at last.
    progress: u64,
}

/// Work that came back.
enum Done {
    Event(Event),
    Staged(Ticket, Result<StagedModel, Failure>),
    Prepared(Ticket, Result<EngineIdentity, Failure>),
}

/// What the loop woke up for.
enum Woken {
    Wish(Option<Wish>),
    Nudge,
    News(DeviceNews),
    Sign(Sign),
    Probed(Probe),
    Done(Done),
    Idle,
    ProbeDue,
    Pulse,
    Alarm,
}

impl Driver {
    /// A driver of a pool that is stopped, and the way to it.
    #[must_use]
    pub fn new(setup: PoolSetup) -> (Self, PoolHandle) {
        let machine = Machine::new(setup.model.clone(), setup.lazy, limits(&setup.supervision));
        let (wishes_to, wishes) = mpsc::channel(WISHES);
        let (nudges_to, nudges) = mpsc::channel(1);
        let (report, reports) = watch::channel(PoolReport::new(&machine));
        let handle = PoolHandle { id: setup.id.clone(), wishes: wishes_to, nudges: nudges_to, report: reports };
        let driver = Self {
            setup,
            machine,
            epoch: Instant::now(),
            wishes,
            nudges,
            report,
            engine: None,
            identity: None,
            staged: Vec::new(),
            activity: Activity::default(),
            work: JoinSet::new(),
            cancel: CancellationToken::new(),
            probe: None,
            probe_at: Instant::now(),
        };
        (driver, handle)
    }

    /// Drives the pool until it was shut down, or nobody has a handle any more. Dropping the future kills the engine.
    pub async fn run(mut self) {
        let mut pulse = interval(PULSE);
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(self.machine.is_shutting_down() && self.engine.is_none()) {
            let woken = self.wait(&mut pulse).await;
            self.wake(woken).await;
        }
        self.work.abort_all();
        self.report.send_modify(|report| report.is_over = true);
    }

    /// Waits for the next thing to happen.
    async fn wait(&mut self, pulse: &mut Interval) -> Woken {
        let alarm = self.machine.wakes_at_ms().map(|ms| self.epoch + Duration::from_millis(ms));
        let state = self.machine.state();
        let probe_due = self.probe.is_none() && self.engine.is_some() && self.machine.probing() != Probing::Not;
        let (registry, id) = (&self.setup.registry, &self.setup.id);
        tokio::select! {
            biased;
            wish = self.wishes.recv(), if !self.machine.is_shutting_down() => Woken::Wish(wish),
            sign = sign(&mut self.engine, state == PoolState::Starting) => Woken::Sign(sign),
            Some(news) = self.setup.news.recv() => Woken::News(news),
            Some(Ok(done)) = self.work.join_next() => Woken::Done(done),
            probe = answer(&mut self.probe) => Woken::Probed(probe),
            () = registry.idle(id), if self.machine.awaits_idle() => Woken::Idle,
            () = sleep_until(self.probe_at), if probe_due => Woken::ProbeDue,
            Some(()) = self.nudges.recv() => Woken::Nudge,
            () = at(alarm) => Woken::Alarm,
            _ = pulse.tick() => Woken::Pulse,
        }
    }

    async fn wake(&mut self, woken: Woken) {
        let ticket = self.machine.ticket();
        match woken {
            Woken::Wish(Some(Wish { event, answer })) => {
                let answered = self.machine.check(&event);
                if answered.is_ok() || event == Event::ShutDown {
                    self.tell(event).await;
                }
                // Who asked may have gone.
                let _ = answer.send(answered);
            }
            Woken::Wish(None) => self.tell(Event::ShutDown).await,
            Woken::Nudge => self.probe_at = Instant::now(),
            Woken::News(DeviceNews::Lost(failure)) => self.tell(Event::DevicesLost(failure)).await,
            Woken::News(DeviceNews::Back) => self.tell(Event::DevicesBack).await,
            Woken::News(DeviceNews::Fault(failure)) => self.tell(Event::Faulted(ticket, failure)).await,
            Woken::Sign(Sign::Lost(failure)) => {
                let of = self.engine.as_ref().map_or(ticket, |running| running.ticket);
                self.tell(Event::Faulted(of, failure)).await;
            }
            Woken::Sign(Sign::Ended(failure)) => {
                let of = self.engine.take().map_or(ticket, |running| running.ticket);
                self.probe = None;
                self.tell(Event::Exited(of, failure)).await;
            }
            Woken::Probed(probe) => {
                self.probe = None;
                let of = self.engine.as_ref().map_or(0, |running| running.ticket);
                self.tell(Event::Probed(of, probe)).await;
                let gap = match self.machine.probing() {
                    Probing::Seldom => self.setup.supervision.probe_interval(),
                    Probing::Often | Probing::Not => PULSE,
                };
                self.probe_at = Instant::now() + gap;
            }
            Woken::ProbeDue => self.ask(),
            Woken::Done(done) => self.done(done).await,
            Woken::Idle => self.tell(Event::Idle).await,
            Woken::Alarm => {
                // What it has done by now counts, also where nobody found the time to look.
                self.pulse().await;
                self.tell(Event::Tick).await;
            }
            Woken::Pulse => self.pulse().await,
        }
    }

    /// Tells the machine, publishes what it says, and does what it wants.
    async fn tell(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let took_tasks = self.machine.takes_tasks();
            let actions = self.machine.on(event, self.now_ms());
            if took_tasks && !self.machine.takes_tasks() {
                // Before anything else: from here on no task is given to the engine.
                self.publish();
            }
            for action in actions {
                events.extend(self.carry_out(action).await);
            }
            self.publish();
        }
    }

    async fn carry_out(&mut self, action: Action) -> Option<Event> {
        let (host, id) = (Arc::clone(&self.setup.host), self.setup.id.clone());
        match action {
            Action::CheckDevices(ticket) => {
                self.activity.set("looking at the GPUs", None);
                let workshop = Arc::clone(&self.setup.workshop);
                self.work.spawn(async move {
                    let looked = timeout(DEVICES_LIMIT, workshop.check_devices()).await.unwrap_or_else(|_| {
                        Err(Failure::new(PoolFault::DriverLost, "the NVIDIA driver does not answer"))
                    });
                    Done::Event(Event::Devices(ticket, looked))
                });
            }
            Action::Stage { ticket, model } => {
                let (activity, cancel) = (self.activity.clone(), self.cancel.clone());
                self.work.spawn(async move { Done::Staged(ticket, host.stage(&id, &model, &activity, &cancel).await) });
            }
            Action::Prepare(ticket) => {
                self.activity.set("looking for the engine", None);
                let (activity, cancel) = (self.activity.clone(), self.cancel.clone());
                let workshop = Arc::clone(&self.setup.workshop);
                self.work.spawn(async move { Done::Prepared(ticket, workshop.prepare(&activity, &cancel).await) });
            }
            Action::Reserve { ticket, model } => {
                self.activity.set("waiting for memory of the GPUs", None);
                let Some(staged) = self.staged.iter().find(|staged| staged.reference == model).cloned() else {
                    return Some(Event::Reserved(ticket, Err(not_staged(&model))));
                };
                let (activity, cancel) = (self.activity.clone(), self.cancel.clone());
                self.work.spawn(async move {
                    let reserved = host.reserve(&id, &staged, &activity, &cancel).await;
                    Done::Event(Event::Reserved(ticket, reserved))
                });
            }
            Action::Park(ticket) => {
                self.work.spawn(async move {
                    host.park(&id).await;
                    Done::Event(Event::Parked(ticket))
                });
            }
            Action::Spawn { ticket, model } => return Some(Event::Spawned(ticket, self.spawn(ticket, &model).await)),
            Action::Test(ticket) => {
                self.activity.set("testing the engine", None);
                self.work.spawn(async move {
                    let tested = host.self_test(&id).await;
                    if tested.is_ok() {
                        host.unpark(&id).await;
                    }
                    Done::Event(Event::Tested(ticket, tested))
                });
            }
            Action::Abandon => {
                std::mem::take(&mut self.cancel).cancel();
                self.work.abort_all();
                self.activity.clear();
            }
            Action::Close(why) => host.close(&id, why),
            Action::Open { model } => {
                self.activity.clear();
                self.staged.retain(|staged| staged.reference == model);
                host.open(&id, &model);
            }
            Action::Cut => host.cut(&id),
            Action::Terminate => self.with_engine(|engine| engine.terminate()),
            Action::Kill => self.with_engine(|engine| engine.kill()),
        }
        None
    }

    async fn spawn(&mut self, ticket: Ticket, model: &str) -> Result<(), Failure> {
        self.activity.set("starting the engine", None);
        self.publish();
        let staged = self.staged.iter().find(|staged| staged.reference == model);
        let staged = staged.ok_or_else(|| not_staged(model))?;
        let starting = self.setup.workshop.start(staged);
        let started = timeout(SPAWN_LIMIT, starting).await.unwrap_or_else(|_| {
            let message = format!("the engine could not be started within {} s", SPAWN_LIMIT.as_secs());
            Err(Failure::new(PoolFault::SpawnFailed, message))
        })?;
        self.setup.host.bind(&self.setup.id, &started.endpoint)?;
        let progress = started.engine.progress();
        self.engine = Some(RunningEngine { engine: started.engine, ticket, progress });
        self.probe_at = Instant::now();
        self.activity.set("loading the model", None);
        Ok(())
    }

    async fn done(&mut self, done: Done) {
        let event = match done {
            Done::Event(event) => event,
            Done::Prepared(ticket, prepared) => Event::Prepared(
                ticket,
                prepared.map(|identity| {
                    self.identity = Some(identity);
                }),
            ),
            Done::Staged(ticket, staged) => {
                // Whether there is memory now is asked before the engine is started.
                let fits = |staged: &StagedModel| self.setup.workshop.check_fit(staged, true);
                let staged = staged.and_then(|staged| fits(&staged).map(|()| staged));
                Event::Staged(
                    ticket,
                    staged.map(|staged| {
                        let bytes = staged.bytes;
                        self.staged.retain(|other| other.reference != staged.reference);
                        self.staged.push(staged);
                        bytes
                    }),
                )
            }
        };
        self.tell(event).await;
    }

    /// Looks at what is under way.
    async fn pulse(&mut self) {
        let moved = self.engine.as_mut().and_then(|running| {
            let progress = running.engine.progress();
            (std::mem::replace(&mut running.progress, progress) != progress).then_some(running.ticket)
        });
        match moved.filter(|_| self.machine.state() == PoolState::Starting) {
            Some(ticket) => self.tell(Event::Progress(ticket)).await,
            None => self.publish(),
        }
    }

    /// Asks the engine how it is.
    fn ask(&mut self) {
        let (host, id) = (Arc::clone(&self.setup.host), self.setup.id.clone());
        let limit = self.setup.supervision.probe_timeout();
        self.probe = Some(Box::pin(async move { timeout(limit, host.probe(&id)).await.unwrap_or(Probe::Silent) }));
    }

    fn with_engine(&mut self, what: impl FnOnce(&mut dyn Engine)) {
        if let Some(running) = &mut self.engine {
            what(running.engine.as_mut());
        }
    }

    /// Tells everybody how the pool stands, if that is news.
    fn publish(&mut self) {
        let next_attempt = self.machine.next_attempt_ms().map(|ms| self.epoch + Duration::from_millis(ms));
        let is_busy = matches!(self.machine.state(), PoolState::Preparing | PoolState::Starting)
            || self.machine.reload().is_some_and(|reload| reload.is_under_way());
        let report = PoolReport {
            activity: self.activity.get().filter(|_| is_busy),
            next_attempt,
            pid: self.engine.as_ref().and_then(|running| running.engine.pid()),
            engine: self.identity.clone(),
            ..PoolReport::new(&self.machine)
        };
        self.register(&report);
        if *self.report.borrow() != report {
            self.report.send_replace(report.clone());
            self.setup.host.changed(&self.setup.id, &report);
        }
    }

    fn register(&self, report: &PoolReport) {
        let (registry, id) = (&self.setup.registry, &self.setup.id);
        registry.set_health(id, HealthStatus { live: report.pid.is_some(), ready: report.takes_tasks });
        registry.set_last_error(id, report.failure.as_ref().map(ToString::to_string));
        registry.set_version(id, report.engine.as_ref().map(|engine| engine.version.clone()));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        registry.set_heartbeat(id, i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

async fn sign(engine: &mut Option<RunningEngine>, loading: bool) -> Sign {
    match engine {
        Some(running) => running.engine.sign(loading).await,
        None => pending().await,
    }
}

async fn answer(probe: &mut Option<Pin<Box<dyn Future<Output = Probe> + Send>>>) -> Probe {
    match probe {
        Some(probe) => probe.await,
        None => pending().await,
    }
}

async fn at(alarm: Option<Instant>) {
    match alarm {
        Some(alarm) => sleep_until(alarm).await,
        None => pending().await,
    }
}

fn not_staged(model: &str) -> Failure {
    Failure::new(PoolFault::ModelUnavailable, format!("{model} was not staged"))
}

fn limits(supervision: &Supervision) -> Limits {
    Limits {
        start_ms: supervision.start_timeout_ms,
        start_ms_per_gib: supervision.start_ms_per_gib,
        stop_grace_ms: supervision.stop_grace_ms,
        probe_failures: supervision.probe_failures.get(),
        backoff_ms: supervision.restart_backoff_ms,
        backoff_max_ms: supervision.restart_backoff_max_ms,
        circuit_restarts: usize::try_from(supervision.circuit_restarts.get()).unwrap_or(usize::MAX),
        circuit_window_ms: supervision.circuit_window_ms,
        self_test: supervision.self_test,
        park_ms: PARK_MS,
    }
}
