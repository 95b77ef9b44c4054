use proptest::prelude::*;

use super::*;

const POLICY: BreakerPolicy = BreakerPolicy {
    failures: NonZeroU32::new(3).expect("3 is not zero"),
    window: Duration::from_millis(100),
    cool_down: Duration::from_millis(50),
};

#[derive(Clone, Copy, Debug)]
enum Step {
    Pass(u64),
    Admit,
    /// The fate of one of the tasks that run.
    Worked(usize),
    Failed(usize),
    Withdrawn(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..60_u64).prop_map(Step::Pass),
        4 => Just(Step::Admit),
        1 => any::<usize>().prop_map(Step::Worked),
        3 => any::<usize>().prop_map(Step::Failed),
        1 => any::<usize>().prop_map(Step::Withdrawn),
    ];
    prop::collection::vec(step, 0..120)
}

/// What must hold, from the whole history instead of a state.
#[derive(Default)]
struct History {
    now: u64,
    /// Failures of usual tasks while it was closed.
    failures: Vec<u64>,
    closed_at: u64,
    opened_at: Option<u64>,
    trial_runs: bool,
}

impl History {
    fn admits(&self) -> bool {
        self.opened_at.is_none_or(|at| self.now >= at + 50 && !self.trial_runs)
    }

    fn failed(&mut self, was_trial: bool) -> bool {
        if was_trial {
            self.trial_runs = false;
        } else if self.opened_at.is_some() {
            return false;
        } else {
            self.failures.push(self.now);
            let counts = |at: &&u64| **at + 100 >= self.now && **at >= self.closed_at;
            if self.failures.iter().filter(counts).count() < 3 {
                return false;
            }
        }
        self.opened_at = Some(self.now);
        true
    }

    fn closed(&mut self) {
        (self.opened_at, self.trial_runs, self.closed_at) = (None, false, self.now);
        self.failures.clear();
    }
}

proptest! {
    /// ORCH-3602: it opens after so many failures within the window, lets nothing through while it is open, one task at a time
    /// while it is half-open, and only that one's fate decides.
    #[test]
    fn it_does_what_its_history_says(steps in steps()) {
        let begin = Instant::now();
        let (mut breaker, mut history, mut running) = (Breaker::new(POLICY), History::default(), Vec::new());
        for step in steps {
            let now = begin + Duration::from_millis(history.now);
            let mut take = |number: usize| (!running.is_empty()).then(|| running.swap_remove(number % running.len()));
            match step {
                Step::Pass(ms) => history.now += ms,
                Step::Admit => {
                    let leave = breaker.admit(now);
                    prop_assert_eq!(leave.is_ok(), history.admits());
                    if let Ok(leave) = leave {
                        prop_assert_eq!(leave == Leave::Trial, history.opened_at.is_some());
                        history.trial_runs |= leave == Leave::Trial;
                        running.push(leave);
                    }
                }
                Step::Worked(number) => if let Some(leave) = take(number) {
                    let closed = breaker.worked(&leave);
                    prop_assert_eq!(closed, leave == Leave::Trial);
                    if closed {
                        history.closed();
                    }
                }
                Step::Failed(number) => if let Some(leave) = take(number) {
                    let opened = breaker.failed(&leave, now);
                    prop_assert_eq!(opened, history.failed(leave == Leave::Trial));
                }
                Step::Withdrawn(number) => if let Some(leave) = take(number) {
                    breaker.withdrawn(&leave);
                    history.trial_runs &= leave != Leave::Trial;
                }
            }
            let now = begin + Duration::from_millis(history.now);
            let expected = match history.opened_at {
                None => BreakerState::Closed,
                Some(at) if history.now < at + 50 => BreakerState::Open { until: begin + Duration::from_millis(at + 50) },
                Some(_) => BreakerState::HalfOpen { tried: history.trial_runs },
            };
            prop_assert_eq!(breaker.state(now), expected);
        }
    }
}

/// ORCH-3602: the defaults are those of the design.
#[test]
fn five_failures_within_thirty_seconds_open_it_for_five() {
    let policy = BreakerPolicy::default();
    let (begin, second) = (Instant::now(), Duration::from_secs(1));
    let mut breaker = Breaker::new(policy);
    for (at, opens) in [(0, false), (1, false), (30, false), (31, false), (31, false), (31, true)] {
        let leave = breaker.admit(begin + second * at).expect("it is closed");
        assert_eq!(breaker.failed(&leave, begin + second * at), opens, "after {at} s");
    }
    assert_eq!(breaker.state(begin + second * 35), BreakerState::Open { until: begin + second * 36 });
    assert_eq!(breaker.state(begin + second * 36), BreakerState::HalfOpen { tried: false });
}

/// ORCH-3602: what the client did, a lack of room, and our own mistakes say nothing about the engine.
#[test]
fn what_counts_as_a_failure() {
    let text = String::new;
    for (error, counts) in [
        (WorkerError::PoolUnavailable(text()), true),
        (WorkerError::DecodeTimeout(text()), true),
        (WorkerError::WorkerReset(text()), true),
        (WorkerError::Adapter(text()), true),
        (WorkerError::Rejected(text()), false),
        (WorkerError::DeadlineUnmet(text()), false),
        (WorkerError::Busy(text()), false),
        (WorkerError::Internal(text()), false),
    ] {
        assert_eq!(is_failure(&error), counts, "{error:?}");
    }
}
