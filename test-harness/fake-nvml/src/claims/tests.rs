use super::{Claim, ClaimError, claim_in, free_in, held};
use crate::{Driver, State};

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
    assert_eq!(std::fs::read_dir(bench.path.with_extension("claims")).expect("a folder").count(), 1, "the lock alone");
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
    let all = held(&bench.path, state.release_ms).expect("claims");
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
