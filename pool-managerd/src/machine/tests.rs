//! Stories of a pool, and what holds in any of them.

use api_types::{PoolFault, PoolState, ReloadState};
use proptest::prelude::*;

use super::{Action, Conflict, Event, Limits, Machine, Probe, Probing, Why};
use crate::failure::Failure;

const LIMITS: Limits = Limits {
    start_ms: 1000,
    start_ms_per_gib: 100,
    stop_grace_ms: 50,
    probe_failures: 3,
    backoff_ms: 100,
    backoff_max_ms: 800,
    circuit_restarts: 5,
    circuit_window_ms: 10_000,
    self_test: true,
    park_ms: 30,
};

/// A machine with a clock of its own.
struct Story {
    machine: Machine,
    now_ms: u64,
}

impl Story {
    fn new() -> Self {
        Self { machine: Machine::new("old".to_owned(), false, LIMITS), now_ms: 1_000_000 }
    }

    fn serving() -> Self {
        let mut story = Self::new();
        story.come_up();
        story
    }

    /// From a start that has begun, or begins, to readiness.
    fn come_up(&mut self) {
        self.on(Event::Start);
        let ticket = self.machine.ticket();
        self.on(Event::Devices(ticket, Ok(())));
        self.on(Event::Staged(ticket, Ok(2 << 30)));
        self.on(Event::Prepared(ticket, Ok(())));
        self.load();
    }

    fn load(&mut self) {
        let ticket = self.machine.ticket();
        self.on(Event::Reserved(ticket, Ok(())));
        self.on(Event::Spawned(ticket, Ok(())));
        self.on(Event::Probed(ticket, Probe::Ready));
        self.on(Event::Tested(ticket, Ok(())));
        assert!(self.machine.takes_tasks());
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.machine.on(event, self.now_ms)
    }

    fn after(&mut self, ms: u64) -> Vec<Action> {
        self.now_ms += ms;
        self.on(Event::Tick)
    }

    fn fails(&mut self, fault: PoolFault) -> Vec<Action> {
        let exited = Event::Exited(self.machine.ticket(), Failure::new(fault, "it ended"));
        self.on(exited)
    }
}

/// ORCH-3504, ORCH-3421, ORCH-3821, ORCH-3049, LO-POOL-06, LO-SWP-02: devices, weights, engine, memory, probe, self-test, in this order.
#[test]
fn the_gates_are_passed_in_order() {
    let mut story = Story::new();
    assert_eq!(story.on(Event::Start), [Action::CheckDevices(1)]);
    // What comes out of order opens nothing.
    for early in
        [Event::Prepared(1, Ok(())), Event::Staged(1, Ok(1)), Event::Probed(1, Probe::Ready), Event::Tested(1, Ok(()))]
    {
        assert_eq!(story.on(early), []);
    }
    assert_eq!(story.on(Event::Devices(1, Ok(()))), [Action::Stage { ticket: 1, model: "old".to_owned() }]);
    assert_eq!(story.on(Event::Staged(1, Ok(7))), [Action::Prepare(1)]);
    assert_eq!(story.on(Event::Prepared(1, Ok(()))), [Action::Reserve { ticket: 1, model: "old".to_owned() }]);
    assert_eq!(story.machine.state(), PoolState::Preparing, "no engine before there is memory");
    assert_eq!(story.on(Event::Reserved(1, Ok(()))), [Action::Spawn { ticket: 1, model: "old".to_owned() }]);
    assert_eq!(story.on(Event::Spawned(1, Ok(()))), []);
    assert_eq!(story.machine.state(), PoolState::Starting);
    assert_eq!(story.on(Event::Probed(1, Probe::Loading)), []);
    assert_eq!(story.on(Event::Probed(1, Probe::Ready)), [Action::Test(1)]);
    assert!(!story.machine.takes_tasks(), "it has not passed its self-test");
    assert_eq!(story.on(Event::Tested(1, Ok(()))), [Action::Open { model: "old".to_owned() }]);
    assert!(story.machine.takes_tasks());
}

/// ORCH-3003, OC-POOL-3002, LO-POOL-02: a gate that does not open leaves the pool unready, with its error.
#[test]
fn a_gate_that_stays_shut_ends_the_start() {
    let failure = |fault| Failure::new(fault, "no");
    let cases = [
        (PoolFault::NoDriver, PoolState::Failed),
        (PoolFault::ModelUnavailable, PoolState::BackingOff),
        (PoolFault::VramExhausted, PoolState::BackingOff),
        (PoolFault::BuildFailed, PoolState::Failed),
    ];
    for (fault, state) in cases {
        let mut story = Story::new();
        story.on(Event::Start);
        assert_eq!(story.on(Event::Devices(1, Err(failure(fault)))), []);
        assert_eq!(story.machine.state(), state, "{fault}");
        assert_eq!(story.machine.failure(), Some(&failure(fault)));
        assert!(!story.machine.has_engine());
    }
}

/// OC-POOL-3011, OC-POOL-3010, ORCH-3038.2: pauses double up to their limit, and after too many restarts the pool rests.
#[test]
fn restart_storms_are_bounded() {
    let mut story = Story::serving();
    let mut pauses = Vec::new();
    while story.fails(PoolFault::Crashed).is_empty() || story.machine.state() != PoolState::Failed {
        assert_eq!(story.machine.state(), PoolState::BackingOff);
        let pause = story.machine.next_attempt_ms().expect("it is tried again") - story.now_ms;
        pauses.push(pause);
        assert_eq!(story.after(pause - 1), []);
        assert!(matches!(story.after(1)[..], [Action::CheckDevices(_)]));
        story.come_up();
    }
    assert_eq!(pauses, [100, 200, 400, 800, 800]);
    // After its rest it is tried once more, by itself.
    assert!(matches!(story.after(LIMITS.circuit_window_ms)[..], [Action::CheckDevices(_)]));
}

/// OC-POOL-3011: an engine that served long enough begins anew.
#[test]
fn a_long_life_forgives_old_failures() {
    let mut story = Story::serving();
    for _ in 0..20 {
        story.now_ms += LIMITS.circuit_window_ms;
        story.fails(PoolFault::Crashed);
        assert_eq!(story.machine.next_attempt_ms(), Some(story.now_ms + 100));
        story.after(100);
        story.come_up();
    }
    assert_eq!(story.machine.restarts(), 20);
}

/// A start's deadline grows with the model, moves on progress, and has an end.
#[test]
fn a_start_has_time_as_long_as_it_gets_on() {
    let mut story = Story::new();
    story.on(Event::Start);
    story.on(Event::Devices(1, Ok(())));
    story.on(Event::Staged(1, Ok(10 << 30)));
    story.on(Event::Prepared(1, Ok(())));
    story.on(Event::Reserved(1, Ok(())));
    story.on(Event::Spawned(1, Ok(())));
    let started = story.now_ms;
    let window = 1000 + 10 * 100;
    assert_eq!(story.machine.wakes_at_ms(), Some(started + window));
    for _ in 0..100 {
        if !story.after(window - 1).is_empty() {
            break;
        }
        story.on(Event::Progress(1));
    }
    assert_eq!(story.machine.state(), PoolState::Stopping);
    assert_eq!(story.machine.failure().map(|failure| failure.fault), Some(PoolFault::StartTimeout));
    assert!(story.now_ms - started <= 9 * window);
}

/// A hung engine is told from a slow one by probes that fail in a row, and is killed at once.
#[test]
fn an_engine_that_does_not_answer_is_exchanged() {
    let mut story = Story::serving();
    let ticket = story.machine.ticket();
    for _ in 0..10 {
        story.on(Event::Probed(ticket, Probe::Silent));
        assert!(!story.machine.takes_tasks(), "nothing is given to an engine that did not answer");
        assert_eq!(story.machine.probing(), Probing::Often);
        story.on(Event::Probed(ticket, Probe::Ready));
        assert!(story.machine.takes_tasks());
    }
    story.on(Event::Probed(ticket, Probe::Silent));
    story.on(Event::Probed(ticket, Probe::Silent));
    assert_eq!(story.on(Event::Probed(ticket, Probe::Silent)), [Action::Abandon, Action::Terminate, Action::Kill]);
    story.fails(PoolFault::Killed);
    assert_eq!(story.machine.state(), PoolState::BackingOff);
    assert_eq!(
        story.machine.failure().map(|failure| failure.fault),
        Some(PoolFault::Hung),
        "not what our own kill looks like"
    );
}

/// ORCH-3505: running tasks have until the deadline; then they are ended.
#[test]
fn a_drain_waits_and_then_does_not() {
    let mut story = Story::serving();
    assert_eq!(story.on(Event::Drain { for_ms: 500 }), [Action::Close(Why::Drain)]);
    assert!(!story.machine.takes_tasks());
    assert_eq!(story.after(499), []);
    assert_eq!(story.after(1), [Action::Cut]);
    assert_eq!(story.on(Event::Idle), []);
    assert_eq!(story.machine.state(), PoolState::Draining, "the engine stays up");
    assert_eq!(story.on(Event::Start), [Action::Open { model: "old".to_owned() }]);
    assert!(story.machine.takes_tasks());
}

/// A stop drains first, asks politely, then kills, and the pool stays stopped.
#[test]
fn a_stop_is_polite_then_firm() {
    let mut story = Story::serving();
    assert_eq!(story.on(Event::Stop { for_ms: 500 }), [Action::Close(Why::Stop)]);
    assert_eq!(story.on(Event::Idle), [Action::Terminate]);
    assert_eq!(story.after(LIMITS.stop_grace_ms), [Action::Kill]);
    story.fails(PoolFault::Killed);
    assert_eq!(story.machine.state(), PoolState::Stopped);
    assert_eq!(story.machine.failure(), None, "an end that was asked for is no failure");
    assert_eq!(story.after(1_000_000), []);
}

/// LO-SWP-03, LO-SWP-07: an engine whose memory is wanted ends when nothing runs on it, after it has put its sessions away, and the pool
/// waits to be asked for again; one that somebody has stopped does not.
#[test]
fn an_unloaded_pool_waits_to_be_asked_for() {
    let mut story = Story::serving();
    assert_eq!(story.on(Event::Unload), [Action::Close(Why::Unload)]);
    assert_eq!(story.after(1_000_000), [], "nothing is cut");
    let ticket = story.machine.ticket();
    assert_eq!(story.on(Event::Idle), [Action::Park(ticket)]);
    assert_eq!(story.on(Event::Parked(ticket)), [Action::Terminate]);
    story.fails(PoolFault::Killed);
    assert_eq!((story.machine.state(), story.machine.failure()), (PoolState::Cold, None));
    assert!(matches!(story.on(Event::Start)[..], [Action::CheckDevices(_)]));
    assert_eq!(story.on(Event::Unload), [Action::Abandon], "nobody waits for it any more");
    assert_eq!(story.machine.state(), PoolState::Cold);
    story.come_up();
    story.on(Event::Stop { for_ms: 0 });
    story.on(Event::Idle);
    story.fails(PoolFault::Killed);
    assert_eq!(story.machine.state(), PoolState::Stopped);
}

/// LO-SWP-07: an engine that does not come to an end with its sessions loses them.
#[test]
fn sessions_hold_up_an_unload_for_a_while_only() {
    let mut story = Story::serving();
    story.on(Event::Unload);
    story.on(Event::Idle);
    assert_eq!(story.after(LIMITS.park_ms - 1), []);
    assert_eq!(story.after(1), [Action::Abandon, Action::Terminate]);
    // Somebody asks for it in the meantime.
    let mut story = Story::serving();
    story.on(Event::Unload);
    story.on(Event::Idle);
    assert_eq!(story.on(Event::Start), [Action::Abandon, Action::Terminate]);
    assert!(matches!(story.fails(PoolFault::Killed)[..], [Action::CheckDevices(_)]));
}

/// ORCH-3038.1, LO-POOL-01: a reload exchanges the engine when no task runs, and cuts none.
#[test]
fn a_reload_waits_for_running_tasks() {
    let mut story = Story::serving();
    let todo = story.on(Event::Reload { model: "new".to_owned() });
    let [Action::Stage { ticket, ref model }] = todo[..] else { panic!("{todo:?}") };
    assert_eq!(model, "new");
    assert!(story.machine.takes_tasks(), "the old model serves while the new one is staged");
    assert_eq!(story.machine.check(&Event::Reload { model: "third".to_owned() }), Err(Conflict::Reloading));
    assert_eq!(story.machine.check(&Event::Drain { for_ms: 1 }), Err(Conflict::Reloading));
    assert_eq!(story.on(Event::Staged(ticket, Ok(5))), [Action::Close(Why::Reload)]);
    assert_eq!(story.after(1_000_000_000), [], "nothing is cut");
    assert_eq!(story.on(Event::Idle), [Action::Terminate]);
    let todo = story.fails(PoolFault::Crashed);
    assert!(matches!(&todo[..], [Action::Reserve { model, .. }] if model == "new"), "{todo:?}");
    story.load();
    assert_eq!(story.machine.model(), "new");
    assert_eq!(story.machine.reload().map(|reload| reload.state), Some(ReloadState::Done));
}

/// ORCH-3031.2: whatever fails, the old model serves in the end.
#[test]
fn a_reload_that_fails_brings_the_old_model_back() {
    // Staging fails: the old one has not been touched.
    let mut story = Story::serving();
    let todo = story.on(Event::Reload { model: "new".to_owned() });
    let [Action::Stage { ticket, .. }] = todo[..] else { panic!("{todo:?}") };
    story.on(Event::Staged(ticket, Err(Failure::new(PoolFault::ModelUnavailable, "no such file"))));
    assert!(story.machine.takes_tasks());
    assert_eq!(story.machine.reload().map(|reload| reload.state), Some(ReloadState::RolledBack));
    // The new engine fails: the old one is started at once.
    story.on(Event::Reload { model: "new".to_owned() });
    let ticket = story.machine.reload().and_then(|reload| reload.ticket).expect("it is staged");
    story.on(Event::Staged(ticket, Ok(5)));
    story.on(Event::Idle);
    story.fails(PoolFault::Crashed);
    let reserved = Event::Reserved(story.machine.ticket(), Ok(()));
    story.on(reserved);
    let spawned = Event::Spawned(story.machine.ticket(), Ok(()));
    story.on(spawned);
    assert!(matches!(story.fails(PoolFault::ModelUnusable)[..], [Action::Abandon, Action::CheckDevices(_)]));
    let reload = story.machine.reload().expect("it is remembered").clone();
    assert_eq!((reload.state, reload.error.as_deref()), (ReloadState::RolledBack, Some("it ended")));
    story.come_up();
    assert_eq!(story.machine.model(), "old");
    assert_eq!(story.machine.failure(), None);
}

/// ORCH-3053, ORCH-3038.2: a lost driver takes the engine with it; when it is back, so is the pool.
#[test]
fn devices_that_come_back_bring_the_pool_back() {
    let mut story = Story::serving();
    let lost = Failure::new(PoolFault::DriverLost, "the driver does not answer");
    assert_eq!(story.on(Event::DevicesLost(lost)), [Action::Abandon, Action::Terminate]);
    story.fails(PoolFault::Crashed);
    assert_eq!(story.machine.state(), PoolState::Failed);
    assert!(matches!(story.on(Event::DevicesBack)[..], [Action::CheckDevices(_)]));
    story.come_up();
}

/// A daemon that ends leaves nothing behind, whatever the pool was doing.
#[test]
fn a_shutdown_ends_everything() {
    let mut story = Story::serving();
    assert_eq!(story.on(Event::ShutDown), [Action::Abandon, Action::Terminate]);
    assert_eq!(story.machine.check(&Event::Start), Err(Conflict::ShuttingDown));
    story.fails(PoolFault::Crashed);
    assert_eq!(story.machine.state(), PoolState::Stopped);
    assert_eq!(story.on(Event::Start), []);
    let mut story = Story::new();
    story.on(Event::Start);
    assert_eq!(story.on(Event::ShutDown), [Action::Abandon]);
    assert_eq!(story.on(Event::Devices(1, Ok(()))), []);
}

/// What happens in a random story; tickets are the present one or an old one.
fn any_event() -> impl Strategy<Value = (u64, Happening)> {
    let happening = prop_oneof![
        Just(Happening::Wish(Event::Start)),
        (0..400_u64).prop_map(|for_ms| Happening::Wish(Event::Drain { for_ms })),
        (0..400_u64).prop_map(|for_ms| Happening::Wish(Event::Stop { for_ms })),
        Just(Happening::Wish(Event::Unload)),
        prop_oneof![Just("a"), Just("b")].prop_map(|model| Happening::Wish(Event::Reload { model: model.to_owned() })),
        Just(Happening::Back(true)),
        Just(Happening::Back(true)),
        Just(Happening::Back(true)),
        Just(Happening::Back(true)),
        Just(Happening::Back(true)),
        Just(Happening::Back(false)),
        Just(Happening::Late),
        proptest::bool::weighted(0.3).prop_map(Happening::SpawnsFail),
        Just(Happening::Wish(Event::Idle)),
        Just(Happening::Wish(Event::DevicesBack)),
        Just(Happening::Wish(Event::DevicesLost(Failure::new(PoolFault::DriverLost, "lost")))),
        Just(Happening::Probe(Probe::Silent)),
        Just(Happening::Probe(Probe::Ready)),
        Just(Happening::Dies),
    ];
    (0..500_u64, happening)
}

#[derive(Clone, Debug)]
enum Happening {
    Wish(Event),
    /// The oldest work that is under way comes back, well or not.
    Back(bool),
    /// Something comes back that was given up long ago.
    Late,
    Probe(Probe),
    /// Whether the next engines cannot be started.
    SpawnsFail(bool),
    /// The engine's process ends.
    Dies,
}

/// What carries out actions, and holds them against the promises.
#[derive(Default)]
struct World {
    work: Vec<Action>,
    /// The ticket of the process that is there.
    process: Option<u64>,
    open: bool,
    spawns_fail: bool,
}

impl World {
    fn carry_out(&mut self, machine: &mut Machine, actions: Vec<Action>, now_ms: u64) {
        for action in actions {
            match action {
                Action::Spawn { ticket, .. } => {
                    assert_eq!(self.process, None, "two engines at a time");
                    self.process = (!self.spawns_fail).then_some(ticket);
                    let spawned = match self.process {
                        Some(_) => Ok(()),
                        None => Err(Failure::new(PoolFault::SpawnFailed, "no")),
                    };
                    let more = machine.on(Event::Spawned(ticket, spawned), now_ms);
                    self.carry_out(machine, more, now_ms);
                }
                Action::CheckDevices(_)
                | Action::Stage { .. }
                | Action::Prepare(_)
                | Action::Reserve { .. }
                | Action::Park(_)
                | Action::Test(_) => self.work.push(action),
                Action::Abandon => self.work.clear(),
                Action::Open { .. } => self.open = true,
                Action::Close(_) => self.open = false,
                Action::Terminate | Action::Kill => assert!(self.process.is_some(), "there is nothing to end"),
                Action::Cut => assert!(!self.open, "tasks are cut while others are let in"),
            }
        }
    }

    fn back(&mut self, well: bool) -> Option<Event> {
        if self.work.is_empty() {
            return None;
        }
        let failure = || Failure::new(PoolFault::ExitedDuringLoad, "no");
        let done = |well: bool| if well { Ok(()) } else { Err(failure()) };
        Some(match self.work.remove(0) {
            Action::CheckDevices(ticket) => Event::Devices(ticket, done(well)),
            Action::Stage { ticket, .. } => Event::Staged(ticket, done(well).map(|()| 1 << 30)),
            Action::Prepare(ticket) => Event::Prepared(ticket, done(well)),
            Action::Reserve { ticket, .. } => Event::Reserved(ticket, done(well)),
            Action::Park(ticket) => Event::Parked(ticket),
            Action::Test(ticket) => Event::Tested(ticket, done(well)),
            other => unreachable!("{other:?} is no work"),
        })
    }
}

proptest! {
    /// OC-POOL-3011, LO-POOL-01, ORCH-3505: in any story there is one process at most, tasks are taken only by one that has
    /// passed every gate, a stop is obeyed, and the pool never waits for something that does not come.
    #[test]
    fn promises_hold_in_any_story(story in proptest::collection::vec(any_event(), 1..300)) {
        let mut machine = Machine::new("a".to_owned(), false, LIMITS);
        let mut world = World::default();
        let (mut now_ms, mut tested) = (1_000_000, None);
        for (later_ms, happening) in story {
            now_ms += later_ms;
            let actions = machine.on(Event::Tick, now_ms);
            world.carry_out(&mut machine, actions, now_ms);
            let event = match happening {
                Happening::Wish(event) => Some(event),
                Happening::Back(well) => world.back(well),
                Happening::Late => Some(Event::Tested(0, Ok(()))),
                Happening::Probe(probe) => world.process.map(|ticket| Event::Probed(ticket, probe)),
                Happening::SpawnsFail(fail) => {
                    world.spawns_fail = fail;
                    None
                }
                Happening::Dies => world.process.take().map(|ticket| {
                    Event::Exited(ticket, Failure::new(PoolFault::Crashed, "it crashed"))
                }),
            };
            let Some(event) = event else { continue };
            if let Event::Tested(ticket @ 1.., Ok(())) = &event {
                tested = Some(*ticket);
            }
            let before = machine.clone();
            let refused = machine.check(&event).is_err() && event.is_wish();
            let actions = machine.on(event, now_ms);
            if refused {
                prop_assert_eq!(machine.state(), before.state());
                prop_assert!(actions.is_empty());
            }
            world.carry_out(&mut machine, actions, now_ms);
            if machine.takes_tasks() {
                prop_assert!(world.open, "tasks are taken and the door is shut");
                prop_assert_eq!(world.process, tested, "an engine takes tasks that has not passed its self-test");
                prop_assert_eq!(world.process, Some(machine.ticket()));
            }
            if !machine.has_engine() {
                prop_assert_eq!(world.process, None, "a process is forgotten in {:?}", machine.state());
            }
            // Whatever it waits for will come: work, a process that may end, an alarm, or a wish.
            let waits_for_work = matches!(machine.state(), PoolState::Preparing);
            prop_assert!(!waits_for_work || !world.work.is_empty(), "it waits for work that nobody does");
            let waits_for_time = matches!(machine.state(), PoolState::BackingOff);
            prop_assert!(!waits_for_time || machine.wakes_at_ms().is_some());
        }
    }
}
