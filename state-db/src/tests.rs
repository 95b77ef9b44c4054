//! What only the inside can bring about: panics, a full database, and the plan of a query.

use std::sync::mpsc::channel;

use api_types::{Priority, SessionId, TaskId, TaskState};
use rusqlite::{Connection, params_from_iter};
use tempfile::TempDir;

use crate::query::Page;
use crate::{AcceptedTask, Opened, Retention, StateDb, TaskQuery, WriteError, file};

fn open(dir: &TempDir) -> Opened {
    StateDb::open(dir.path(), Retention::default(), 0).expect("it opens")
}

fn accepted(entry_len: usize) -> AcceptedTask {
    AcceptedTask { task_id: TaskId::random(), admitted_at_ms: 0, entry: "e".repeat(entry_len) }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

/// A panic fails its group, all of it, and the writer goes on.
#[test]
fn a_panic_does_not_take_the_writer_down() {
    let dir = tempfile::tempdir().expect("a directory");
    let Opened { db, .. } = open(&dir);
    let before = accepted(10);
    wait(db.accept(before.clone())).expect("it is written");

    // While the writer is held up, the next group gathers.
    let (go, held) = channel();
    let (entering, entered) = channel();
    let held_up = db.run(move |_| {
        entering.send(()).expect("it is waited for");
        held.recv().expect("it is told to go on");
    });
    entered.recv().expect("it begins");
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

/// Whatever is filtered by, a page comes off one index in its order and nothing is sorted.
#[test]
fn every_filter_is_served_by_the_index() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(&dir));
    let connection = file::open_read_only(&dir.path().join("state.db")).expect("it opens");
    let all = TaskQuery { limit: 100, ..TaskQuery::default() };
    let queries = [
        all.clone(),
        TaskQuery { before: Some((5, TaskId::random())), ..all.clone() },
        TaskQuery { states: TaskState::ALL.to_vec(), ..all.clone() },
        TaskQuery { priority: Some(Priority::Batch), pool_id: Some("gpu0".to_owned()), ..all.clone() },
        TaskQuery { session_id: Some(SessionId::random()), model_ref: Some("m".to_owned()), ..all.clone() },
        TaskQuery { since_ms: Some(1), until_ms: Some(9), before: Some((5, TaskId::random())), ..all },
    ];
    for query in queries {
        let Page { sql, values } = Page::of(&query);
        let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("it is understood");
        let steps = statement.query_map(params_from_iter(values), |row| row.get(3)).expect("it runs");
        let plan: Vec<String> = steps.map(|step| step.expect("a row")).collect();
        assert!(plan.len() == 1 && plan[0].contains("USING INDEX history_newest"), "{query:?}: {plan:?}");
    }
}
