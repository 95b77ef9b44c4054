//! The driver over simulated engines, in virtual time.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use api_types::{PoolFault, PoolId, PoolState, ReloadState};
use async_trait::async_trait;
use config_schema::{EngineUrl, Supervision};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::{
    Activity, DeviceNews, Driver, Engine, EngineIdentity, Host, PoolHandle, PoolReport, PoolSetup, Sign, StagedModel,
    Started, Workshop,
};
use crate::failure::Failure;
use crate::machine::{Probe, Why};
use crate::registry::Registry;

/// What goes wrong, each with its own share of all the times it could.
#[derive(Clone, Copy, Default)]
struct Flaws {
    devices: f64,
    stage: f64,
    prepare: f64,
    reserve: f64,
    spawn: f64,
    dies_loading: f64,
    dies_serving: f64,
    silent: f64,
    fails_test: f64,
    ignores_sigterm: f64,
}

/// The simulated host: engines, their truth, and what the driver made of it.
struct World {
    rng: SmallRng,
    flaws: Flaws,
    model: String,
    /// The process that is there.
    engine: Option<Truth>,
    spawned: u32,
    takes_tasks: bool,
    open: bool,
    early: Vec<String>,
    news: Option<mpsc::Sender<DeviceNews>>,
}

/// What is true of an engine, whatever it says.
#[derive(Clone, Debug)]
struct Truth {
    number: u32,
    loaded_at: Instant,
    dies_at: Option<Instant>,
    passed_test: bool,
    last_probe_ready: bool,
    terminated: bool,
    ignores_sigterm: bool,
    killed: bool,
}

#[derive(Clone)]
struct Sim(Arc<Mutex<World>>, Arc<Notify>);

impl Sim {
    fn new(seed: u64, flaws: Flaws) -> Self {
        Self(
            Arc::new(Mutex::new(World {
                rng: SmallRng::seed_from_u64(seed),
                flaws,
                model: "old".to_owned(),
                engine: None,
                spawned: 0,
                takes_tasks: false,
                open: false,
                early: Vec::new(),
                news: None,
            })),
            Arc::default(),
        )
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().expect("no test panics while it holds it")
    }

    fn start(&self, supervision: Supervision) -> (PoolHandle, Registry, tokio::task::JoinHandle<()>) {
        let (news, hears) = mpsc::channel(4);
        self.world().news = Some(news);
        let registry = Registry::default();
        let (driver, handle) = Driver::new(PoolSetup {
            id: PoolId::from("gpu0"),
            model: "old".to_owned(),
            lazy: false,
            supervision,
            workshop: Arc::new(self.clone()),
            host: Arc::new(self.clone()),
            registry: registry.clone(),
            news: hears,
        });
        (handle, registry, tokio::spawn(driver.run()))
    }

    async fn some_time(&self, up_to_ms: u64) {
        let ms = self.world().rng.random_range(0..=up_to_ms);
        sleep(Duration::from_millis(ms)).await;
    }

    fn chance(&self, of: impl Fn(&Flaws) -> f64) -> bool {
        let mut world = self.world();
        let share = of(&world.flaws);
        world.rng.random_bool(share)
    }

    fn goes_wrong(&self, fault: PoolFault, of: impl Fn(&Flaws) -> f64) -> Result<(), Failure> {
        if self.chance(of) { Err(Failure::new(fault, "it was drawn so")) } else { Ok(()) }
    }
}

#[async_trait]
impl Workshop for Sim {
    async fn check_devices(&self) -> Result<(), Failure> {
        self.some_time(20).await;
        self.goes_wrong(PoolFault::NoDevice, |flaws| flaws.devices)
    }

    fn check_fit(&self, _: &StagedModel, _: bool) -> Result<(), Failure> {
        Ok(())
    }

    async fn prepare(&self, activity: &Activity, _: &CancellationToken) -> Result<EngineIdentity, Failure> {
        activity.set("building", Some(0.5));
        self.some_time(500).await;
        self.goes_wrong(PoolFault::FetchFailed, |flaws| flaws.prepare)?;
        Ok(EngineIdentity { version: "v1".to_owned(), ..EngineIdentity::default() })
    }

    async fn start(&self, _: &StagedModel) -> Result<Started, Failure> {
        self.some_time(10).await;
        self.goes_wrong(PoolFault::SpawnFailed, |flaws| flaws.spawn)?;
        let [dies_loading, dies_serving, ignores] = [
            |flaws: &Flaws| flaws.dies_loading,
            |flaws: &Flaws| flaws.dies_serving,
            |flaws: &Flaws| flaws.ignores_sigterm,
        ]
        .map(|of| self.chance(of));
        let mut world = self.world();
        assert!(world.engine.is_none(), "two engines of one pool at a time");
        let loads_ms = world.rng.random_range(0..5000);
        let lives_ms = world.rng.random_range(0..60_000);
        let loaded_at = Instant::now() + Duration::from_millis(loads_ms);
        let dies_at = match (dies_loading, dies_serving) {
            (true, _) => Some(Instant::now() + Duration::from_millis(loads_ms / 2)),
            (_, true) => Some(loaded_at + Duration::from_millis(lives_ms)),
            _ => None,
        };
        world.spawned += 1;
        let number = world.spawned;
        world.engine = Some(Truth {
            number,
            loaded_at,
            dies_at,
            passed_test: false,
            last_probe_ready: false,
            terminated: false,
            ignores_sigterm: ignores,
            killed: false,
        });
        let endpoint: EngineUrl = "http://127.0.0.1:1".parse().expect("a URL");
        Ok(Started { engine: Box::new(SimEngine { sim: self.clone(), number }), endpoint })
    }
}

struct SimEngine {
    sim: Sim,
    number: u32,
}

impl Drop for SimEngine {
    fn drop(&mut self) {
        let mut world = self.sim.world();
        if world.engine.as_ref().is_some_and(|truth| truth.number == self.number) {
            world.engine = None;
        }
    }
}

#[async_trait]
impl Engine for SimEngine {
    fn pid(&self) -> Option<u32> {
        Some(self.number)
    }

    fn terminate(&mut self) {
        if let Some(truth) = &mut self.sim.world().engine {
            truth.terminated = true;
        }
        self.sim.1.notify_waiters();
    }

    fn kill(&mut self) {
        if let Some(truth) = &mut self.sim.world().engine {
            truth.killed = true;
        }
        self.sim.1.notify_waiters();
    }

    fn progress(&self) -> u64 {
        0
    }

    async fn sign(&mut self, _: bool) -> Sign {
        loop {
            let told = self.sim.1.notified();
            let truth = self.sim.world().engine.clone().expect("an engine is watched as long as it is there");
            let ends = truth.killed
                || (truth.terminated && !truth.ignores_sigterm)
                || truth.dies_at.is_some_and(|at| at <= Instant::now());
            if ends {
                self.sim.world().engine = None;
                return Sign::Ended(Failure::new(PoolFault::Crashed, "it ended"));
            }
            match truth.dies_at {
                Some(at) => drop(timeout_at(at, told).await),
                None => told.await,
            }
        }
    }
}

#[async_trait]
impl Host for Sim {
    async fn stage(
        &self,
        _: &PoolId,
        model: &str,
        _: &Activity,
        _: &CancellationToken,
    ) -> Result<StagedModel, Failure> {
        self.some_time(300).await;
        self.goes_wrong(PoolFault::ModelUnavailable, |flaws| flaws.stage)?;
        Ok(StagedModel {
            reference: model.to_owned(),
            path: model.into(),
            bytes: 1 << 30,
            need_bytes: None,
            shape: None,
        })
    }

    async fn reserve(&self, _: &PoolId, _: &StagedModel, _: &Activity, _: &CancellationToken) -> Result<(), Failure> {
        self.some_time(500).await;
        self.goes_wrong(PoolFault::VramExhausted, |flaws| flaws.reserve)
    }

    async fn park(&self, _: &PoolId) {
        self.some_time(20).await;
    }

    async fn unpark(&self, _: &PoolId) {}

    fn bind(&self, _: &PoolId, _: &EngineUrl) -> Result<(), Failure> {
        Ok(())
    }

    async fn probe(&self, _: &PoolId) -> Probe {
        self.some_time(20).await;
        let silent = self.chance(|flaws| flaws.silent);
        let mut world = self.world();
        let Some(truth) = &mut world.engine else { return Probe::Silent };
        let probe = match (silent, truth.loaded_at <= Instant::now()) {
            (true, _) => Probe::Silent,
            (_, true) => Probe::Ready,
            (_, false) => Probe::Loading,
        };
        truth.last_probe_ready = probe == Probe::Ready;
        probe
    }

    async fn self_test(&self, _: &PoolId) -> Result<(), Failure> {
        self.some_time(50).await;
        self.goes_wrong(PoolFault::SelfTestFailed, |flaws| flaws.fails_test)?;
        let mut world = self.world();
        let Some(truth) = &mut world.engine else { return Err(Failure::new(PoolFault::SelfTestFailed, "it is gone")) };
        truth.passed_test = true;
        Ok(())
    }

    fn open(&self, _: &PoolId, model: &str) {
        let mut world = self.world();
        world.open = true;
        world.model = model.to_owned();
    }

    fn close(&self, _: &PoolId, _: Why) {
        self.world().open = false;
    }

    fn cut(&self, _: &PoolId) {}

    fn changed(&self, _: &PoolId, report: &PoolReport) {
        let mut world = self.world();
        world.takes_tasks = report.takes_tasks;
        if !report.takes_tasks {
            return;
        }
        let proven = world.engine.as_ref().is_some_and(|truth| {
            truth.passed_test && truth.last_probe_ready && truth.loaded_at <= Instant::now() && !truth.terminated
        });
        if !(proven && world.open) {
            let what = format!("at {:?}: {:?}, open: {}", Instant::now(), world.engine, world.open);
            world.early.push(what);
        }
    }
}

async fn until(handle: &PoolHandle, what: impl Fn(&PoolReport) -> bool) -> PoolReport {
    let mut watch = handle.watch();
    let waited = timeout(Duration::from_secs(100_000), watch.wait_for(|report| what(report))).await;
    waited.expect("it comes about").expect("the driver is there").clone()
}

/// OC-POOL-3003, ORCH-3504: over 500 seeds of engines that are slow, silent, dying and failing their tests, tasks are taken only
/// by one that has loaded, answered and passed its test, and every pool comes to serve in the end.
#[tokio::test(start_paused = true)]
async fn readiness_never_flips_early() {
    let flaws = Flaws {
        devices: 0.1,
        stage: 0.1,
        prepare: 0.1,
        reserve: 0.03,
        spawn: 0.1,
        dies_loading: 0.2,
        dies_serving: 0.5,
        silent: 0.3,
        fails_test: 0.2,
        ignores_sigterm: 0.3,
    };
    let mut served = 0;
    for seed in 0..500 {
        let sim = Sim::new(seed, flaws);
        let (handle, _, driver) = sim.start(Supervision::default());
        handle.start().await.expect("nothing speaks against it");
        for _ in 0..3 {
            until(&handle, |report| report.takes_tasks).await;
            served += 1;
            until(&handle, |report| !report.takes_tasks).await;
        }
        handle.shut_down().await;
        driver.await.expect("the driver does not panic");
        let world = sim.world();
        assert_eq!(world.early, [""; 0], "seed {seed}");
        assert!(world.engine.is_none(), "seed {seed}: an engine is left");
    }
    assert_eq!(served, 1500);
}

/// ORCH-3505, ORCH-3038.1: a reload under running tasks waits for the last of them.
#[tokio::test(start_paused = true)]
async fn a_reload_waits_for_leases() {
    let sim = Sim::new(1, Flaws::default());
    let (handle, registry, driver) = sim.start(Supervision::default());
    handle.start().await.expect("nothing speaks against it");
    until(&handle, |report| report.takes_tasks).await;
    let first = handle.report().pid;
    let leases: Vec<_> = (0..50).map(|_| registry.lease(handle.id())).collect();
    handle.reload("new".to_owned()).await.expect("nothing speaks against it");
    let draining = |report: &PoolReport| report.reload.as_ref().is_some_and(|it| it.state == ReloadState::Draining);
    until(&handle, draining).await;
    sleep_until(Instant::now() + Duration::from_secs(500)).await;
    assert_eq!(handle.report().pid, first, "it serves those that run");
    drop(leases);
    let report = until(&handle, |report| report.takes_tasks).await;
    assert_eq!((report.model.as_str(), sim.world().model.as_str()), ("new", "new"));
    assert_ne!(report.pid, first);
    drop(handle);
    driver.await.expect("it ends with its last handle");
}

/// ORCH-3053: the devices go and come back, and the pool with them, as often as they like.
#[tokio::test(start_paused = true)]
async fn the_pool_follows_its_devices() {
    let sim = Sim::new(2, Flaws::default());
    let (handle, _, _driver) = sim.start(Supervision::default());
    handle.start().await.expect("nothing speaks against it");
    let news = sim.world().news.clone().expect("it is started");
    for _ in 0..3 {
        until(&handle, |report| report.takes_tasks).await;
        let lost = Failure::new(PoolFault::DriverLost, "the driver does not answer");
        news.send(DeviceNews::Lost(lost)).await.expect("it is heard");
        until(&handle, |report| report.state == PoolState::Failed).await;
        assert!(sim.world().engine.is_none());
        news.send(DeviceNews::Back).await.expect("it is heard");
    }
}
