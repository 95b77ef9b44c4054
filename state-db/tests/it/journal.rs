//! Accepted tasks.

use std::os::unix::fs::PermissionsExt as _;

use state_db::Opened;

use crate::support::{Place, accept, accepted, ended, finish, id, wait};

/// ORCH-3002-G: what was accepted comes back as it was, in the order of acceptance and not of the ids, until it ends.
#[test]
fn accepted_tasks_come_back_in_order() {
    let place = Place::new();
    let Opened { db, pending } = place.open();
    assert_eq!(pending, []);
    let tasks = [3, 1, 2].map(|number| accepted(number, &format!("{{\"prompt\": \"ä {number}\"}}")));
    for task in &tasks {
        accept(&db, task.clone()).expect("it is written");
    }
    drop(db);

    let Opened { db, pending } = place.open();
    assert_eq!(pending, tasks);
    finish(&db, ended(1, "r")).expect("it is written");
    drop(db);
    assert_eq!(place.open().pending, [tasks[0].clone(), tasks[2].clone()]);
}

/// ORCH-3002-G: a write is on its way when the call returns; nobody has to wait for the receipt.
#[test]
fn dropping_a_receipt_does_not_undo_the_write() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    let tasks: Vec<_> = (0..2_000).rev().map(|number| accepted(number, "e")).collect();
    for task in &tasks {
        drop(db.accept(task.clone()));
    }
    drop(db.finish(ended(7, "r")));
    db.close();
    let left: Vec<_> = tasks.into_iter().filter(|task| task.task_id != id(7)).collect();
    assert_eq!(place.open().pending, left);
}

/// LO-ADM-07: the first entry of an id that is in the journal counts, and keeps its place.
#[test]
fn a_task_accepted_twice_stays_as_it_was() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    for (number, entry) in [(1, "first"), (2, "other"), (1, "second")] {
        accept(&db, accepted(number, entry)).expect("it is written");
    }
    db.close();
    assert_eq!(place.open().pending, [accepted(1, "first"), accepted(2, "other")]);
}

/// ORCH-3002-G: an id that has ended can be accepted again; its old end stays in the history until the new one.
#[test]
fn a_task_that_has_ended_can_be_accepted_again() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    accept(&db, accepted(1, "first")).expect("it is written");
    finish(&db, ended(1, "first end")).expect("it is written");
    accept(&db, accepted(1, "second")).expect("it is written");
    assert_eq!(wait(db.task(id(1))).expect("it is read").map(|task| task.record).as_deref(), Some("first end"));
    drop(db);
    let Opened { db, pending } = place.open();
    assert_eq!(pending, [accepted(1, "second")]);
    finish(&db, ended(1, "second end")).expect("it is written");
    assert_eq!(wait(db.task(id(1))).expect("it is read").map(|task| task.record).as_deref(), Some("second end"));
}

/// LO-ERR-01: nobody but the owner can read prompts from the disk.
#[test]
fn only_the_owner_may_read_what_is_created() {
    let place = Place::new();
    let dir = place.dir().join("deep/data");
    let opened = state_db::StateDb::open(&dir, state_db::Retention::default(), 0).expect("it opens");
    accept(&opened.db, accepted(1, "e")).expect("it is written");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for name in ["state.db", "state.db-wal", "state.db-shm", "state.db.lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
}
