//! What only the inside can bring about: panics, a full database, and the plan of a query.

use std::sync::mpsc::channel;

use api_types::TaskId;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::{AcceptedTask, Opened, Retention, StateDb, WriteError};

fn open(dir: &TempDir) -> Opened {
    StateDb::open(dir.path(), Retention::default(), 0).expect("it opens")
}

fn accepted(entry_len: usize) -> AcceptedTask {
    AcceptedTask { task_id: TaskId::random(), admitted_at_ms: 0, entry: "e".repeat(entry_len) }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// LO-PLAT-04: a panic fails its group, all of it, and the writer goes on.
#[test]
fn a_panic_does_not_take_the_writer_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { db, .. } = open(&dir);
    let before = accepted(10);
    wait(db.accept(before.clone())).expect("it is written");

    // While the writer is held up, the next group gathers.
    let (go, held) = channel();
    let held_up = db.run(move |_| held.recv().expect("it is told to go on"));
    let with_it = db.accept(accepted(10));
    let panicked = db.run(|_| panic!("as the test wants it"));
    go.send(()).expect("it listens");
    wait(held_up).expect("it is written");
    assert!(matches!(wait(with_it), Err(WriteError::Panicked)));
    assert!(matches!(wait(panicked), Err(WriteError::Panicked)));

    let after = accepted(10);
    wait(db.accept(after.clone())).expect("it is written");
    drop(db);
    assert_eq!(open(&dir).pending, [before, after]);
}

/// ORCH-3002-G: what does not fit fails with a typed error, and later writes work once there is room.
#[test]
fn a_full_database_recovers() {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { db, .. } = open(&dir);
    let limit = |pages: i64| {
        move |connection: &Connection| {
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), (), |_| Ok(())).expect("it is set");
        }
    };
    wait(db.run(limit(20))).expect("it is written");
    assert!(matches!(wait(db.accept(accepted(1_000_000))), Err(WriteError::DiskFull { .. })));
    let small = accepted(10);
    wait(db.accept(small.clone())).expect("there is room for this one");
    assert!(matches!(wait(db.accept(accepted(1_000_000))), Err(WriteError::DiskFull { .. })));
    wait(db.run(limit(1_000_000))).expect("it is written");
    let large = accepted(1_000_000);
    wait(db.accept(large.clone())).expect("it is written");
    drop(db);
    assert_eq!(open(&dir).pending, [small, large]);
}
