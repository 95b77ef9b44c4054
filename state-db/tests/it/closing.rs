//! One process at a time, and what a closed file answers.

use state_db::{OpenError, Opened, ReadError, WriteError};

use crate::support::{ALL, Place, accept, accepted, ended, finish, id, wait};

/// ORCH-3002-G: a file in use is refused with the process that has it, and is free once that one has closed it.
#[test]
fn a_file_has_one_user() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    let another = db.clone();
    drop(db);
    let refusal = place.refusal();
    assert!(matches!(refusal, OpenError::InUse { pid: Some(pid), .. } if pid == std::process::id()), "{refusal}");
    assert!(refusal.to_string().contains(&std::process::id().to_string()));
    accept(&another, accepted(1, "e")).expect("the refused one did no harm");

    another.close();
    let opened = place.open();
    assert_eq!(opened.pending, [accepted(1, "e")]);
    drop(opened);
    place.open();
}

/// After closing everything fails with a typed error; closing again is harmless.
#[test]
fn a_closed_file_says_so() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    db.close();
    db.close();
    assert!(matches!(accept(&db, accepted(1, "e")), Err(WriteError::Closed)));
    assert!(matches!(finish(&db, ended(1, "r")), Err(WriteError::Closed)));
    assert!(matches!(wait(db.tasks(ALL)), Err(ReadError::Closed)));
    assert!(matches!(wait(db.task(id(1))), Err(ReadError::Closed)));
    assert_eq!(place.open().pending, []);
}

/// ORCH-3002-G: a closed file is one file: everything has moved from the log into it.
#[test]
fn closing_leaves_one_file() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    accept(&db, accepted(1, "e")).expect("it is written");
    wait(db.tasks(ALL)).expect("it is read");
    assert!(place.log().exists());
    drop(db);
    assert!(!place.log().exists());
}
