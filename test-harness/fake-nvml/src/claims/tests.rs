use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Claim, ClaimError, Folder, Refused, Release, claim_in, free_in, held, refused_in};
use crate::{Driver, FakeNvml, State};

const GIB: u64 = 1 << 30;

struct Bench {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Bench {
    fn new(state: &State) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        state.write(&path).expect("written");
        Self { _folder: folder, path }
    }

    fn claim(&self, index: usize, gib: u64) -> Result<Claim, ClaimError> {
        claim_in(&self.path, &[(uuid(index), gib * GIB)])
    }

    fn free(&self, index: usize) -> u64 {
        free_in(&self.path, &uuid(index)).expect("it answers")
    }
}

fn uuid(index: usize) -> String {
    State::reference_box().devices[index].uuid.clone()
}

/// However many claim at the same time, exactly as many get memory as there is for.
#[test]
fn claims_at_the_same_time_do_not_overlap() {
    let bench = Bench::new(&State::reference_box());
    let claims: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24).map(|_| scope.spawn(|| bench.claim(1, 1))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    assert_eq!(claims.iter().filter(|claim| claim.is_ok()).count(), 12);
    assert_eq!(bench.free(1), 0);
    drop(claims);
    assert_eq!(bench.free(1), 12 * GIB);
    let left = std::fs::read_dir(bench.path.with_extension("claims")).expect("a folder");
    let left: BTreeSet<_> = left.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(left, ["lock", "refused.jsonl"].map(Into::into).into());
}

/// A claim of several devices is all or nothing.
#[test]
fn a_claim_is_whole_or_not_at_all() {
    let bench = Bench::new(&State::reference_box());
    let error = claim_in(&bench.path, &[(uuid(0), GIB), (uuid(1), 13 * GIB)]).expect_err("too much");
    let ClaimError::DoesNotFit { device, wanted, free } = error else { panic!("{error}") };
    assert_eq!((device, wanted, free), (uuid(1), 13 * GIB, 12 * GIB));
    assert_eq!(bench.free(1), 12 * GIB);
    // Twice the same device counts together.
    let twice = claim_in(&bench.path, &[(uuid(1), 7 * GIB), (uuid(1), 7 * GIB)]);
    assert!(matches!(twice, Err(ClaimError::DoesNotFit { wanted, .. }) if wanted == 14 * GIB));
}

/// Memory of what has ended is released when it is time, and not before.
#[test]
fn release_may_take_its_time() {
    let mut state = State { release_ms: 86_400_000, ..State::reference_box() };
    let bench = Bench::new(&state);
    drop(bench.claim(1, 5).expect("it fits"));
    for _ in 0..2 {
        assert_eq!(bench.free(1), 7 * GIB);
    }
    let all = held(&bench.path, Release::of(&state)).expect("claims");
    assert!(all.len() == 1 && !all[0].lives(), "{all:?}");
    state.release_ms = 0;
    state.write(&bench.path).expect("written");
    assert_eq!(bench.free(1), 12 * GIB);
}

#[test]
fn nothing_is_claimed_of_what_does_not_work() {
    let mut state = State::reference_box();
    state.devices[0].failed = true;
    let bench = Bench::new(&state);
    assert!(matches!(bench.claim(0, 1), Err(ClaimError::NoDevice { .. })));
    state.driver = Driver::Lost;
    state.write(&bench.path).expect("written");
    assert!(matches!(bench.claim(1, 1), Err(ClaimError::Driver(Driver::Lost))));
}

/// Memory of what has ended comes back in pieces: each claim in its own time, which is within bounds, and the same whoever looks;
/// what NVML shows is what can be claimed.
#[test]
fn release_is_noisy() {
    let least = Release { least_ms: 1000, jitter_ms: 0 };
    let noisy = Release { least_ms: 1000, jitter_ms: 500 };
    let delays: Vec<u64> = (0..200).map(|number| noisy.delay_ms(&format!("17-1700000000000-{number}"))).collect();
    assert!(delays.iter().all(|delay| (1000..=1500).contains(delay)), "{delays:?}");
    assert!(delays.iter().collect::<BTreeSet<_>>().len() > 100, "{delays:?}");
    assert_eq!((least.delay_ms("a"), noisy.delay_ms("a")), (1000, noisy.delay_ms("a")));

    let day = 86_400_000;
    let mut state = State { release_jitter_ms: 365 * day, ..State::reference_box() };
    let bench = Bench::new(&state);
    let claims: Vec<_> = (0..12).map(|_| bench.claim(1, 1).expect("it fits")).collect();
    drop(claims);
    assert_eq!(bench.free(1), 0, "none of it comes back within a test, were it not for the noise");
    // With time at a stand, less noise lets the first ones go.
    let all = held(&bench.path, Release::of(&state)).expect("claims");
    assert!(all.len() == 12 && all.iter().all(|claim| !claim.lives()), "{all:?}");
    state.release_jitter_ms = 0;
    state.write(&bench.path).expect("written");
    assert_eq!(bench.free(1), 12 * GIB);
}

/// A state that was written before there was noise is still read.
#[test]
fn old_states_are_read() {
    let mut json = serde_json::to_value(State::reference_box()).expect("JSON");
    json.as_object_mut().expect("an object").remove("release_jitter_ms").expect("it is written");
    assert_eq!(serde_json::from_value::<State>(json).expect("a state"), State::reference_box());
}

/// What did not fit is noted, whoever wanted it; nothing else is.
#[test]
fn refusals_are_counted() {
    let bench = Bench::new(&State::reference_box());
    assert_eq!(refused_in(&bench.path).expect("none"), []);
    let held = bench.claim(1, 10).expect("it fits");
    for gib in [3, 4] {
        bench.claim(1, gib).expect_err("it does not fit");
    }
    claim_in(&bench.path, &[("GPU-other".to_owned(), 1)]).expect_err("there is none");
    drop(held);
    bench.claim(1, 4).expect("it fits");
    let refused = |wanted| Refused { pid: std::process::id(), device: uuid(1), wanted: wanted * GIB, free: 2 * GIB };
    assert_eq!(refused_in(&bench.path).expect("two"), [refused(3), refused(4)]);
}

/// A process of somebody else that takes and returns memory while engines claim it: it gets what is free and no more, so that
/// nothing is ever given twice, and the driver shows it as long as it holds any.
#[test]
fn a_foreign_process_never_takes_what_others_have() {
    let folder = tempfile::tempdir().expect("a folder");
    let fake = FakeNvml::new(folder.path()).expect("fake GPUs");
    let over = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let engines: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..60).filter(|_| fake.claim(&[(uuid(1), 5 * GIB)]).is_ok()).count()))
            .collect();
        let strangers: Vec<_> = [7001, 7002]
            .map(|pid| {
                let (fake, done) = (&fake, &done);
                scope.spawn(move || {
                    let mut taken = 0;
                    while !done.load(Ordering::Relaxed) {
                        taken += fake.foreign(pid, &uuid(1), 4 * GIB).expect("it answers");
                        assert_eq!(fake.foreign_returns(pid, &uuid(1), GIB).expect("it answers"), GIB.min(taken));
                        taken -= GIB.min(taken);
                        taken -= fake.foreign_returns(pid, &uuid(1), u64::MAX).expect("it answers");
                        assert_eq!(taken, 0);
                    }
                })
            })
            .into();
        let watch = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let folder = Folder::open(&fake.state_path()).expect("the lock");
                let state = fake.state().expect("a state");
                let foreign = state.devices[1].processes.iter().filter_map(|process| process.bytes).sum::<u64>();
                let claims = folder.held(Release::of(&state)).expect("claims");
                let used = foreign + claims.iter().map(|claim| claim.bytes[&uuid(1)]).sum::<u64>();
                over.fetch_or(used > 12 * GIB, Ordering::Relaxed);
            }
        });
        let served: usize = engines.into_iter().map(|engine| engine.join().expect("no panic")).sum();
        assert!(served > 0);
        done.store(true, Ordering::Relaxed);
        strangers.into_iter().for_each(|stranger| stranger.join().expect("no panic"));
        watch.join().expect("no panic");
    });
    assert!(!over.load(Ordering::Relaxed));
    let state = fake.state().expect("a state");
    assert_eq!(free_in(&fake.state_path(), &uuid(1)).expect("it answers"), 12 * GIB);
    assert_eq!(state.devices[1].processes, []);

    let _engine = fake.claim(&[(uuid(1), 5 * GIB)]).expect("it fits");
    assert_eq!(fake.foreign(7001, &uuid(1), 4 * GIB).expect("it answers"), 4 * GIB);
    assert_eq!(fake.foreign(7001, &uuid(1), 4 * GIB).expect("it answers"), 3 * GIB, "what is left");
    let before = fake.refused().len();
    let error = fake.claim(&[(uuid(1), 1)]).expect_err("it is full");
    assert!(matches!(error, ClaimError::DoesNotFit { free: 0, .. }), "{error}");
    assert_eq!(fake.refused().len(), before + 1);
    let shown = fake.processes(&uuid(1));
    let mut shown: Vec<_> = shown.iter().map(|process| (process.pid, process.bytes)).collect();
    shown.sort_unstable();
    let mut wanted = [(7001, Some(7 * GIB)), (std::process::id(), Some(5 * GIB))];
    wanted.sort_unstable();
    assert_eq!(shown, wanted);
    assert!(matches!(fake.foreign(7001, "GPU-other", 1), Err(ClaimError::NoDevice { .. })));
}
