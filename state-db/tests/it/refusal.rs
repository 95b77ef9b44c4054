//! Files that are not opened, and stay as they are.

use std::fs;
use std::os::unix::fs::FileExt as _;

use rusqlite::Connection;
use state_db::{OpenError, Opened};

use crate::support::{Place, accept, accepted, ended, wait};

/// Where SQLite keeps what `PRAGMA user_version` and `PRAGMA application_id` show.
const USER_VERSION_AT: u64 = 60;
const APPLICATION_ID_AT: u64 = 68;
const PAGE_LEN: usize = 4096;

/// A place that holds a database with some pages of tasks, its log empty.
fn filled() -> Place {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    let write = |number| (db.accept(accepted(number, &"p".repeat(1_000))), db.finish(ended(number + 100, "r")));
    for (accepted, ended) in (0..50).map(write).collect::<Vec<_>>() {
        wait(accepted).expect("it is written");
        wait(ended).expect("it is written");
    }
    drop(db);
    place
}

/// The same with some of it in the log only, as a crash leaves it.
fn filled_with_log() -> Place {
    let place = filled();
    let Opened { db, .. } = place.open();
    accept(&db, accepted(999, "e")).expect("it is written");
    let crashed = Place::new();
    fs::copy(place.file(), crashed.file()).expect("it is copied");
    fs::copy(place.log(), crashed.log()).expect("it is copied");
    crashed
}

fn overwrite(place: &Place, bytes: &[u8], at: u64) {
    let file = fs::OpenOptions::new().write(true).open(place.file()).expect("it is there");
    file.write_all_at(bytes, at).expect("it is written");
}

/// Checks that the file is refused, however often, and that neither it nor its log is touched by that.
fn check(place: &Place, refusal: impl Fn(&OpenError) -> bool, advice: &str) {
    let before = (fs::read(place.file()).ok(), fs::read(place.log()).ok());
    for _ in 0..2 {
        let error = place.refusal();
        assert!(refusal(&error), "{error:?}");
        assert!(error.to_string().contains(advice), "{error}");
        // Not assert_eq: nobody wants to see them.
        assert!((fs::read(place.file()).ok(), fs::read(place.log()).ok()) == before, "{error}: it was touched");
    }
}

fn is_damage(error: &OpenError) -> bool {
    matches!(error, OpenError::Damaged { .. })
}

/// ORCH-3002-G: what is no database is left alone.
#[test]
fn other_files_are_refused() {
    for content in [&b"a shopping list\n"[..], &[0xa5; 10_000], b"SQLite format 2\0"] {
        let place = Place::new();
        fs::write(place.file(), content).expect("it is written");
        check(&place, |error| matches!(error, OpenError::NotADatabase { .. }), "move the file away");
    }
}

/// ORCH-3002-G: another program's database is left alone.
#[test]
fn foreign_databases_are_refused() {
    let place = Place::new();
    let foreign = Connection::open(place.file()).expect("it opens");
    foreign.execute_batch("PRAGMA application_id = 7; CREATE TABLE journal (x)").expect("it is filled");
    drop(foreign);
    check(&place, |error| matches!(error, OpenError::NotOurs { application_id: 7, .. }), "move the file away");
}

/// ORCH-3002-G: a file that a newer version has written is left alone, wherever its version stands.
#[test]
fn newer_files_are_refused() {
    let newer = |error: &OpenError| matches!(error, OpenError::Newer { found: 2, supported: 1, .. });
    for place in [filled(), filled_with_log()] {
        overwrite(&place, &2_u32.to_be_bytes(), USER_VERSION_AT);
        check(&place, newer, "use a version that is as new");
    }

    let place = filled();
    let newer_program = Connection::open(place.file()).expect("it opens");
    newer_program.execute_batch("PRAGMA user_version = 2").expect("it is written");
    let crashed = Place::new();
    fs::copy(place.file(), crashed.file()).expect("it is copied");
    fs::copy(place.log(), crashed.log()).expect("it is copied");
    check(&crashed, newer, "use a version that is as new");
}

/// ORCH-3002-G: a new file says at once whose it is, in the main file.
#[test]
fn a_new_file_is_identified_without_its_log() {
    let place = Place::new();
    let opened = place.open();
    let copy = fs::read(place.file()).expect("it is there");
    let at = |at: u64| &copy[usize::try_from(at).expect("it is small")..][..4];
    assert_eq!((at(APPLICATION_ID_AT), at(USER_VERSION_AT)), (&b"llor"[..], &[0, 0, 0, 1][..]));
    drop(opened);
}

/// ORCH-3002-G: a file that is cut off anywhere is left alone.
#[test]
fn truncated_files_are_refused() {
    let whole = fs::metadata(filled().file()).expect("it is there").len();
    let page = PAGE_LEN as u64;
    for len in [0, 50, 100, page, whole / 2, whole - page, whole - 1] {
        let place = filled();
        let file = fs::OpenOptions::new().write(true).open(place.file()).expect("it is there");
        file.set_len(len).expect("it is cut");
        check(&place, is_damage, "restore it from a backup");
    }
}

/// ORCH-3002-G: a file with a page of something else is left alone, with a log or without.
#[test]
fn files_with_a_bad_page_are_refused() {
    // The roots of the journal, of its index and of the history, and something further in; the log has no history.
    for (place, page) in [(filled(), 1), (filled(), 2), (filled(), 3), (filled(), 10), (filled_with_log(), 3)] {
        overwrite(&place, &[0xa5; PAGE_LEN], page * PAGE_LEN as u64);
        check(&place, is_damage, "restore it from a backup");
    }
}

/// ORCH-3002-G: a log without its file is somebody's data too.
#[test]
fn a_log_alone_is_refused() {
    let place = filled_with_log();
    fs::remove_file(place.file()).expect("it is removed");
    check(&place, is_damage, "restore it from a backup");
    assert!(!place.file().exists());
}

/// ORCH-3002-G: what a crash leaves is no damage, and neither is an unfinished new file.
#[test]
fn leftovers_are_not_refused() {
    let place = filled_with_log();
    let Opened { pending, .. } = place.open();
    assert_eq!(pending.last(), Some(&accepted(999, "e")));

    let place = Place::new();
    for leftover in ["state.db.new", "state.db.new-journal", "state.db.lock"] {
        fs::write(place.dir().join(leftover), b"half a").expect("it is written");
    }
    place.open();
}
