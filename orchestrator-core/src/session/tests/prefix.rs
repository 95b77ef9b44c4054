//! What becomes of prefixes when engines end and begin again.

use super::{LIMITS, Sessions, Tail, admit, home, id, task, used};

/// A task of a session that streams at a time and ends with so many tokens in a slot.
fn turn(sessions: &mut Sessions, session: u8, number: u8, pool: &str, now_ms: u64) {
    admit(sessions, session, number, now_ms).expect("there is a turn left");
    assert!(sessions.mark_warm(task(number), home(pool), now_ms));
    assert!(sessions.hold(task(number), Tail { slot: Some(session.into()), tokens: 100 + u64::from(number) }));
    sessions.settle(task(number), used(1, 1), now_ms);
}

fn is_warm(sessions: &mut Sessions, session: u8, now_ms: u64) -> bool {
    sessions.get(id(session), now_ms).is_some_and(|view| view.kv_warmth)
}

/// LO-SWP-07: an engine that ends leaves its sessions cold, and no others; what it has put away and taken up again warms them.
#[test]
fn prefixes_go_with_their_engine_and_come_back() {
    let mut sessions = Sessions::new(LIMITS);
    turn(&mut sessions, 1, 1, "a", 10);
    turn(&mut sessions, 2, 2, "a", 20);
    turn(&mut sessions, 3, 3, "b", 30);
    let held = sessions.warm_on(&"a".into(), 40);
    let ids: Vec<_> = held.iter().map(|prefix| prefix.session_id).collect();
    assert_eq!(ids, [id(2), id(1)], "the latest first");
    assert_eq!(held[0].tail, Some(Tail { slot: Some(2), tokens: 102 }));
    assert_eq!((sessions.cool(&"a".into()), sessions.cool(&"a".into())), (2, 0));
    assert_eq!([1, 2, 3].map(|session| is_warm(&mut sessions, session, 50)), [false, false, true]);
    assert_eq!(sessions.affinity(id(1), 50), None);
    assert!(held.iter().all(|prefix| sessions.is_wanted(prefix, 50)));
    assert!(sessions.rewarm(&held[1], 60));
    assert_eq!([1, 2, 3].map(|session| is_warm(&mut sessions, session, 60)), [true, false, true]);
    assert_eq!(sessions.affinity(id(1), 60), Some(home("a")));
    assert_eq!(sessions.warm_on(&"a".into(), 60), held[1..]);
}

/// LO-SWP-07: a prefix that is not its session's latest warms nobody: the session went on, lost a worker, ended, or was begun anew.
#[test]
fn what_is_out_of_date_warms_nobody() {
    for story in 0..6 {
        let mut sessions = Sessions::new(LIMITS);
        turn(&mut sessions, 1, 1, "a", 10);
        let held = sessions.warm_on(&"a".into(), 20).remove(0);
        sessions.cool(&"a".into());
        let now_ms = 30;
        match story {
            0 => turn(&mut sessions, 1, 2, "a", now_ms),
            1 => turn(&mut sessions, 1, 2, "b", now_ms),
            2 => assert!(sessions.fail_over(id(1))),
            3 => assert!(sessions.delete(id(1))),
            4 => {
                sessions.delete(id(1));
                turn(&mut sessions, 1, 2, "a", 10);
            }
            _ => assert!(sessions.mark_cold(id(1))),
        }
        let before = sessions.get(id(1), now_ms);
        assert!(!sessions.is_wanted(&held, now_ms) && !sessions.rewarm(&held, now_ms), "story {story}");
        assert_eq!(sessions.get(id(1), now_ms), before, "story {story}");
    }
    let mut sessions = Sessions::new(super::SessionLimits { affinity_ttl_ms: Some(50), ..LIMITS });
    turn(&mut sessions, 1, 1, "a", 10);
    let held = sessions.warm_on(&"a".into(), 20).remove(0);
    assert!(sessions.warm_on(&"a".into(), 60).is_empty(), "it is not asked for any more");
    sessions.cool(&"a".into());
    assert!(!sessions.rewarm(&held, 60));
}

/// LO-SWP-07: what an engine holds is not known while a task runs there, nor of one that did not end as meant.
#[test]
fn a_running_task_leaves_nothing_to_put_away() {
    let mut sessions = Sessions::new(LIMITS);
    turn(&mut sessions, 1, 1, "a", 10);
    admit(&mut sessions, 1, 2, 20).expect("there is a turn left");
    sessions.mark_warm(task(2), home("a"), 20);
    assert_eq!(sessions.warm_on(&"a".into(), 20)[0].tail, None);
    sessions.delete(id(1));
    assert!(!sessions.hold(task(2), Tail { slot: None, tokens: 1 }));
}
