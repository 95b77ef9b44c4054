//! How long sessions last, what they remember, and what they may use.

mod prefix;
mod random;

use api_types::TaskId;
use proptest::prelude::*;

use super::{
    Ask, Budgets, ErrorKind, Home, PolicyLabel, Refusal, SessionId, SessionLimits, Sessions, Tail, Turn, Used,
};

const LIMITS: SessionLimits = SessionLimits {
    ttl_ms: 1_000,
    max_turns: 3,
    max_sessions: 4,
    affinity_ttl_ms: None,
    tokens_budget: None,
    time_budget_ms: None,
    cost_budget: None,
    cost_per_1k_tokens: None,
};

fn home(pool: &str) -> Home {
    Home { pool_id: pool.into(), replica_id: "r0".into() }
}

fn id(number: u8) -> SessionId {
    format!("00000000-0000-4000-8000-0000000000{number:02x}").parse().expect("a UUID")
}

fn task(number: u8) -> TaskId {
    format!("00000000-0000-4000-9000-0000000000{number:02x}").parse().expect("a UUID")
}

const fn ask(max_tokens: u32, decode_ms: Option<u64>) -> Ask {
    Ask { max_tokens, decode_ms }
}

const fn used(tokens_out: u32, decode_ms: u64) -> Used {
    Used { tokens_out, decode_ms }
}

fn admit(sessions: &mut Sessions, session: u8, number: u8, now_ms: u64) -> Result<Turn, Refusal> {
    sessions.admit(id(session), task(number), ask(10, None), now_ms)
}

fn budgets(sessions: &Sessions, session: u8) -> (u64, Option<u64>, Option<u64>, Option<f64>) {
    let budgets = sessions.budgets(id(session)).expect("it is alive");
    (budgets.tokens_used, budgets.tokens_remaining, budgets.time_remaining_ms, budgets.cost_remaining)
}

/// ORCH-3021, ORCH-3099: ten minutes, eight turns and no budget unless configured otherwise.
#[test]
fn defaults_are_those_of_the_contract() {
    let limits = SessionLimits::default();
    assert_eq!((limits.ttl_ms, limits.max_turns), (600_000, 8));
    let mut sessions = Sessions::new(limits);
    let turn = sessions.admit(id(1), task(1), ask(u32::MAX, Some(u64::MAX)), 0).expect("there is no budget");
    assert_eq!(turn, Turn { turn_no: 1, created: true, decode_ms: None });
    assert_eq!(sessions.extend_time(task(1), 7), 7);
    let settled = sessions.settle(task(1), used(5, 6), 0).expect("it was admitted");
    let budgets = Budgets { tokens_used: 5, tokens_remaining: None, time_remaining_ms: None, cost_remaining: None };
    assert_eq!((settled.cost, settled.overrun, settled.budgets), (0.0, Used::default(), budgets));
}

/// LO-SES-02, LO-ERR-08: the turn beyond the limit is refused for good, and the session is gone.
#[test]
fn going_past_the_turns_closes_the_session() {
    let mut sessions = Sessions::new(LIMITS);
    for turn_no in 1..=3 {
        let turn = sessions.admit(id(1), task(turn_no), ask(10, None), 10).expect("a turn is left");
        assert_eq!((turn.turn_no, turn.created), (u32::from(turn_no), turn_no == 1));
    }
    let refusal = admit(&mut sessions, 1, 4, 10).expect_err("none is left");
    assert_eq!(refusal.kind, ErrorKind::AdmissionReject);
    assert_eq!((refusal.policy_label, refusal.is_retriable()), (Some(PolicyLabel::SessionTurns), false));
    assert_eq!(sessions.get(id(1), 10), None);
    assert!(admit(&mut sessions, 1, 4, 10).expect("a new session").created);
}

/// ORCH-3021, LO-SES-01: a session lasts for its time, however often it is used, and is gone then, whoever looks.
#[test]
fn a_session_lasts_for_its_time() {
    let mut sessions = Sessions::new(LIMITS);
    admit(&mut sessions, 1, 1, 0).expect("a turn is left");
    admit(&mut sessions, 2, 2, 400).expect("a turn is left");
    admit(&mut sessions, 1, 3, 900).expect("a turn is left");
    assert_eq!(sessions.get(id(1), 900).map(|view| (view.ttl_ms_remaining, view.turns)), Some((100, 2)));
    assert_eq!(sessions.get(id(1), 1_000), None);
    assert_eq!((sessions.len(), sessions.get(id(2), 1_000).map(|view| view.ttl_ms_remaining)), (1, Some(400)));
    assert!(admit(&mut sessions, 1, 4, 1_000).expect("a new session").created);
    assert_eq!((sessions.prune(1_400), sessions.len()), (1, 1));
    assert_eq!((sessions.settle(task(4), used(1, 1), 2_000), sessions.len()), (None, 0));
}

/// LO-SES-03, ORCH-3023: warm from the first token, cold after a failover.
#[test]
fn warmth_follows_the_first_token_and_the_loss() {
    let mut sessions = Sessions::new(LIMITS);
    let warmth = |sessions: &mut Sessions| {
        let view = sessions.get(id(1), 0).expect("it is alive");
        (view.kv_warmth, view.home)
    };
    let pool = home("a");
    assert!(!sessions.mark_warm(task(1), pool.clone(), 0));
    admit(&mut sessions, 1, 1, 0).expect("a turn is left");
    for lose in [Sessions::mark_cold, Sessions::fail_over] {
        assert_eq!(warmth(&mut sessions), (false, None));
        assert!(sessions.mark_warm(task(1), pool.clone(), 0));
        assert_eq!(warmth(&mut sessions), (true, Some(pool.clone())));
        assert!(lose(&mut sessions, id(1)));
    }
    assert_eq!(warmth(&mut sessions), (false, None));
    assert!(!sessions.fail_over(id(2)));
}

/// ORCH-3009, ORCH-3480: a session returns to its pool until its last first token is too long ago.
#[test]
fn affinity_expires() {
    let mut sessions = Sessions::new(SessionLimits { affinity_ttl_ms: Some(300), ..LIMITS });
    let pool = home("a");
    admit(&mut sessions, 1, 1, 0).expect("a turn is left");
    assert_eq!(sessions.affinity(id(1), 0), None);
    sessions.mark_warm(task(1), pool.clone(), 100);
    sessions.mark_warm(task(1), pool.clone(), 200);
    assert_eq!(sessions.affinity(id(1), 499), Some(pool));
    assert_eq!(sessions.get(id(1), 500).map(|view| (view.kv_warmth, view.home)), Some((false, None)));
    assert_eq!((sessions.affinity(id(1), 500), sessions.affinity(id(2), 0)), (None, None));
}

/// ORCH-2005: deleting what is not there is fine. A refused task costs no turn.
#[test]
fn turns_and_sessions_can_be_taken_back() {
    let mut sessions = Sessions::new(LIMITS);
    admit(&mut sessions, 1, 1, 0).expect("a turn is left");
    admit(&mut sessions, 1, 2, 0).expect("a turn is left");
    sessions.undo(task(2));
    assert_eq!(sessions.get(id(1), 0).map(|view| (view.turns, view.running)), Some((1, 1)));
    sessions.undo(task(1));
    assert!(sessions.is_empty());
    sessions.undo(task(1));
    admit(&mut sessions, 1, 1, 0).expect("a turn is left");
    assert_eq!((sessions.delete(id(1)), sessions.delete(id(1))), (true, false));
}

/// ORCH-3099, OC-CORE-1023, LO-ERR-08: a task that a budget does not cover is refused for good, with what would be
/// covered; the session stays as it was.
#[test]
fn a_task_beyond_a_budget_is_refused() {
    let tokens = SessionLimits { tokens_budget: Some(100), ..LIMITS };
    let time = SessionLimits { time_budget_ms: Some(2_000), ..LIMITS };
    let cost = SessionLimits { cost_budget: Some(0.25), cost_per_1k_tokens: Some(2.5), ..LIMITS };
    let cases = [
        (
            tokens,
            ask(71, None),
            "the task may generate 71 tokens and the session has 70 of its 100 left besides what its running tasks \
             reserve; ask for at most 70 tokens, or start a new session_id to go on",
        ),
        (
            time,
            ask(80, Some(2_000)),
            "the task is predicted to decode for 2000 ms and the session has 1500 ms of its 2000 left besides what its \
             running tasks reserve; ask for at most 60 tokens, or start a new session_id to go on",
        ),
        (
            cost,
            ask(80, Some(2_000)),
            "the task may cost 0.2 and the session has 0.175 of its 0.25 left besides what its running tasks reserve; \
             ask for at most 70 tokens, or start a new session_id to go on",
        ),
    ];
    for (limits, beyond, message) in cases {
        let mut sessions = Sessions::new(limits);
        sessions.admit(id(1), task(1), ask(30, Some(500)), 0).expect("the budget covers it");
        let before = sessions.get(id(1), 0);
        let refusal = sessions.admit(id(1), task(2), beyond, 0).expect_err("it does not");
        assert_eq!(
            (refusal.kind, refusal.policy_label),
            (ErrorKind::AdmissionReject, Some(PolicyLabel::SessionBudget))
        );
        assert_eq!((refusal.is_retriable(), refusal.retry_after_ms), (false, Some(0)));
        assert_eq!(refusal.message, message);
        assert_eq!(sessions.get(id(1), 0), before);
    }
}

/// ORCH-3099: a task larger than a whole budget begins no session, and nothing that would fit is not offered.
#[test]
fn a_refused_task_begins_no_session() {
    let mut sessions = Sessions::new(SessionLimits { tokens_budget: Some(100), time_budget_ms: Some(0), ..LIMITS });
    let refusal = sessions.admit(id(1), task(1), ask(101, Some(0)), 0).expect_err("the budget is smaller");
    assert!(
        refusal
            .message
            .ends_with("has 100 of its 100 left; ask for at most 100 tokens, or start a new session_id to go on")
    );
    let refusal = sessions.admit(id(1), task(1), ask(1, None), 0).expect_err("there is no time");
    assert_eq!(
        refusal.message,
        "the task has to decode and the session has 0 ms of its 0 left; start a new session_id to go on"
    );
    assert!(sessions.is_empty());
    sessions.admit(id(1), task(1), ask(0, None), 0).expect("it generates nothing");
    assert_eq!(budgets(&sessions, 1), (0, Some(100), Some(0), None));
}

/// LO-SES-04, LO-SES-06, OC-CORE-1024, ORCH-3105: at the end what was used is charged and the rest given back, once.
#[test]
fn a_task_is_charged_what_it_used() {
    let mut sessions = Sessions::new(SessionLimits {
        tokens_budget: Some(1_000),
        time_budget_ms: Some(5_000),
        cost_budget: Some(1.0),
        cost_per_1k_tokens: Some(0.3),
        ..LIMITS
    });
    let turn = sessions.admit(id(1), task(1), ask(400, Some(3_000)), 0).expect("the budgets cover it");
    assert_eq!(turn.decode_ms, Some(3_000));
    assert_eq!(budgets(&sessions, 1), (0, Some(600), Some(2_000), Some(0.88)));
    let settled = sessions.settle(task(1), used(100, 700), 0).expect("it was admitted");
    assert_eq!((settled.session_id, settled.cost, settled.overrun), (id(1), 0.03, Used::default()));
    assert_eq!(Some(settled.budgets), sessions.budgets(id(1)));
    assert_eq!(budgets(&sessions, 1), (100, Some(900), Some(4_300), Some(0.97)));
    assert_eq!(sessions.settle(task(1), used(100, 700), 0), None);
    let view = sessions.get(id(1), 0).expect("it is alive");
    assert_eq!((view.turns, view.running, Some(view.budgets)), (1, 0, sessions.budgets(id(1))));
    assert!(sessions.reservations.is_empty());
}

/// LO-SES-04: what a task used beyond its reservation is charged too, and said.
#[test]
fn an_overrun_is_charged_and_said() {
    let mut sessions = Sessions::new(SessionLimits { tokens_budget: Some(100), time_budget_ms: Some(1_000), ..LIMITS });
    sessions.admit(id(1), task(1), ask(60, Some(900)), 0).expect("the budgets cover it");
    sessions.admit(id(1), task(2), ask(40, Some(100)), 0).expect("the budgets cover it");
    let settled = sessions.settle(task(1), used(61, 1_400), 0).expect("it was admitted");
    assert_eq!(settled.overrun, used(1, 500));
    assert_eq!(budgets(&sessions, 1), (61, Some(0), Some(0), None));
    sessions.settle(task(2), used(0, 0), 0);
    assert_eq!(budgets(&sessions, 1), (61, Some(39), Some(0), None));
}

/// OC-CORE-1023: a task whose decode time nobody can tell gets a second at first, and more as long as there is any.
#[test]
fn decode_time_is_extended_from_what_is_left() {
    let mut sessions = Sessions::new(SessionLimits { time_budget_ms: Some(2_500), ..LIMITS });
    let turns = [1, 2, 3].map(|number| admit(&mut sessions, 1, number, 0).expect("there is time").decode_ms);
    assert_eq!(turns, [Some(1_000), Some(1_000), Some(500)]);
    assert_eq!(sessions.extend_time(task(1), 1_000), 0);
    sessions.settle(task(2), used(9, 100), 0);
    assert_eq!((sessions.extend_time(task(1), 800), sessions.extend_time(task(3), 800)), (800, 100));
    assert_eq!(sessions.extend_time(task(1), 1), 0);
    let settled = sessions.settle(task(1), used(10, 1_800), 0).expect("it was admitted");
    assert_eq!((settled.overrun, settled.budgets.time_remaining_ms), (Used::default(), Some(0)));
    assert_eq!(sessions.extend_time(task(9), 1_000), 1_000);
}

/// ORCH-3023: a lost worker resets what was spent; what running tasks have reserved stays reserved.
#[test]
fn a_failover_resets_budgets() {
    let mut sessions = Sessions::new(SessionLimits { tokens_budget: Some(100), time_budget_ms: Some(1_000), ..LIMITS });
    sessions.admit(id(1), task(1), ask(60, Some(500)), 0).expect("the budgets cover it");
    sessions.settle(task(1), used(50, 400), 0);
    sessions.admit(id(1), task(2), ask(30, Some(300)), 0).expect("the budgets cover it");
    assert_eq!(budgets(&sessions, 1), (50, Some(20), Some(300), None));
    assert!(sessions.fail_over(id(1)));
    assert_eq!(budgets(&sessions, 1), (0, Some(70), Some(700), None));
    assert_eq!(sessions.get(id(1), 0).map(|view| view.turns), Some(2));
}

/// ORCH-2005, LO-SES-06: a task that outlives its session runs on and leaves a new session of the same id alone.
#[test]
fn a_task_that_outlives_its_session_touches_no_other() {
    let limits = SessionLimits { tokens_budget: Some(100), time_budget_ms: Some(5_000), ..LIMITS };
    let endings: [fn(&mut Sessions) -> u64; 2] = [
        |sessions| {
            sessions.delete(id(1));
            0
        },
        |_| 1_000,
    ];
    for end in endings {
        let mut sessions = Sessions::new(limits);
        for number in [1, 2, 3] {
            admit(&mut sessions, 1, number, 0).expect("a turn is left");
        }
        let now_ms = end(&mut sessions);
        sessions.admit(id(1), task(4), ask(20, Some(1_000)), now_ms).expect("a new session");
        let before = sessions.get(id(1), now_ms);
        assert_eq!(admit(&mut sessions, 1, 1, now_ms).map_err(|refusal| refusal.kind), Err(ErrorKind::Conflict));
        assert!(!sessions.mark_warm(task(1), home("a"), now_ms));
        assert_eq!(sessions.extend_time(task(1), 500), 500);
        assert_eq!(sessions.settle(task(1), used(10, 10), now_ms), None);
        sessions.undo(task(2));
        assert_eq!(sessions.get(id(1), now_ms), before);
        assert_eq!(sessions.reservations.len(), 2);
    }
}

proptest! {
    /// The number of sessions is bounded, none outlives its time, and turns stay within the limit.
    #[test]
    fn sessions_stay_within_their_limits(
        steps in prop::collection::vec((0_u8..8, 0_u64..400, prop::bool::ANY), 0..100),
    ) {
        let (mut sessions, mut now_ms) = (Sessions::new(LIMITS), 0);
        let mut last_used = std::collections::HashMap::new();
        for (step, (number, passed, delete)) in (0..).zip(steps) {
            now_ms += passed;
            if delete {
                sessions.delete(id(number));
            } else if let Ok(turn) = admit(&mut sessions, number, step, now_ms) {
                prop_assert!(turn.turn_no <= LIMITS.max_turns);
                last_used.insert(number, now_ms);
            }
            prop_assert!(sessions.len() <= LIMITS.max_sessions);
            prop_assert_eq!(sessions.sessions.len(), sessions.expiries.len());
            for number in 0..8 {
                let alive = sessions.get(id(number), now_ms).is_some();
                let used = last_used.get(&number).copied();
                prop_assert!(!alive || used.is_some_and(|used| now_ms < used + LIMITS.ttl_ms));
            }
        }
    }
}
