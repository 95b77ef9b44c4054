//! Damage that comes after the file was opened.

use std::fs;
use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;
use state_db::{OpenError, Opened, ReadError, WriteError};

use crate::support::{ALL, Place, accepted, ended, finish, id, wait};

fn with_one_ended() -> Place {
    let place = Place::new();
    finish(&place.open().db, ended(1, "r")).expect("it is written");
    place
}

/// Pages that go bad under the running program are a typed error for readers and writers.
#[test]
fn bad_pages_are_told() {
    let place = with_one_ended();
    let Opened { db, .. } = place.open();
    let file = fs::OpenOptions::new().write(true).open(place.file()).expect("it is there");
    let len = file.metadata().expect("it has one").len();
    let garbage = vec![0xa5; usize::try_from(len).expect("it is small") - 4096];
    file.write_all_at(&garbage, 4096).expect("it is written");
    assert!(matches!(wait(db.task(id(1))), Err(ReadError::Damaged { .. })));
    assert!(matches!(wait(db.tasks(ALL)), Err(ReadError::Damaged { .. })));
    assert!(matches!(finish(&db, ended(2, "r")), Err(WriteError::Damaged { .. })));
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map(chain).unwrap_or_default();
    format!("{error}: {source}")
}

/// LO-ERR-01: a value that is not what was written is damage, and the error does not repeat it.
#[test]
fn errors_do_not_repeat_what_is_stored() {
    let place = with_one_ended();
    let editor = Connection::open(place.file()).expect("it opens");
    editor.execute_batch("UPDATE history SET summary = '{\"state\": \"SECRET\"}'").expect("it is written");
    editor.execute("INSERT INTO journal VALUES (1, x'00', 0, 'SECRET')", ()).expect("it is written");
    drop(editor);
    let refusal = place.refusal();
    assert!(matches!(refusal, OpenError::Damaged { .. }), "{refusal}");
    assert!(!chain(&refusal).contains("SECRET"), "{}", chain(&refusal));

    Connection::open(place.file()).expect("it opens").execute_batch("DELETE FROM journal").expect("it is written");
    let Opened { db, .. } = place.open();
    for error in [wait(db.task(id(1))).expect_err("it fails"), wait(db.tasks(ALL)).expect_err("it fails")] {
        assert!(matches!(error, ReadError::Damaged { .. }), "{error}");
        assert!(!format!("{} {error:?}", chain(&error)).contains("SECRET"), "{error:?}");
    }
}

/// LO-ERR-01: entries and records, which hold prompts, cannot be logged by accident.
#[test]
fn prompts_are_not_debug_output() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    finish(&db, ended(1, "SECRET")).expect("it is written");
    let stored = wait(db.task(id(1))).expect("it is read");
    let text = format!("{:?} {:?} {stored:?} {db:?}", accepted(1, "SECRET"), ended(1, "SECRET"));
    assert!(!text.contains("SECRET"), "{text}");
}
