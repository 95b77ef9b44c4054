//! A process that dies at each step of a write (LO-CAT-02).

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use super::{JsonFile, Record, Step};

const CHILD: &str = "json_file::tests::child";
const CHILD_DIR: &str = "CATALOG_CRASH_DIR";
const CHILD_STEP: &str = "CATALOG_CRASH_STEP";

/// What a step calls in the child.
static DIE: Mutex<Option<Death>> = Mutex::new(None);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Death {
    At(Step),
    /// Between [`Step::Created`] and [`Step::Written`].
    HalfWritten,
}

const DEATHS: [Death; 6] = [
    Death::At(Step::Created),
    Death::HalfWritten,
    Death::At(Step::Written),
    Death::At(Step::Synced),
    Death::At(Step::Renamed),
    Death::At(Step::FolderSynced),
];

pub(super) fn reached(step: Step, path: &Path) {
    match *DIE.lock().expect("nobody panics with it") {
        Some(Death::At(last)) if last == step => std::process::abort(),
        Some(Death::HalfWritten) if step == Step::Written => {
            let whole = std::fs::read(path).expect("it is there");
            std::fs::write(path, &whole[..whole.len() / 2]).expect("it is written");
            std::process::abort();
        }
        _ => {}
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note(String);

impl Record for Note {
    const SCHEMA_VERSION: u64 = 3;

    fn key(&self) -> &str {
        &self.0
    }
}

fn open(dir: &Path) -> JsonFile<Note> {
    JsonFile::open(dir, "notes.json").expect("it opens")
}

fn put(file: &JsonFile<Note>, text: &str) {
    let change = file.change(|notes| {
        notes.insert(text.into(), Note(text.to_owned()).into());
        Ok(((), true))
    });
    change.expect("it is written");
}

fn texts(file: &JsonFile<Note>) -> Vec<String> {
    file.read().expect("it is read").records.keys().map(ToString::to_string).collect()
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let step: usize = std::env::var(CHILD_STEP).expect("it is given").parse().expect("a number");
    let file = open(Path::new(&dir));
    *DIE.lock().expect("nobody panics with it") = Some(DEATHS[step]);
    put(&file, "second");
    panic!("it was to die at {:?}", DEATHS[step]);
}

/// LO-CAT-02: whenever a write is broken off, what opens is the old state or the new one, and the next write works.
#[test]
fn a_write_that_is_broken_off_leaves_the_old_or_the_new() {
    for (index, death) in DEATHS.iter().enumerate() {
        let dir = tempfile::tempdir().expect("a folder");
        put(&open(dir.path()), "first");
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args([CHILD, "--exact", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::null());
        let status = command.env(CHILD_DIR, dir.path()).env(CHILD_STEP, index.to_string()).status().expect("it starts");
        assert_eq!(status.code(), None, "{death:?}: killed by its own signal");

        let is_new = matches!(death, Death::At(Step::Renamed | Step::FolderSynced));
        assert_eq!(dir.path().join("notes.json.tmp").exists(), !is_new, "{death:?}");
        let file = open(dir.path());
        let wanted: &[&str] = if is_new { &["first", "second"] } else { &["first"] };
        assert_eq!(texts(&file), wanted, "{death:?}");
        put(&file, "third");
        assert_eq!(texts(&open(dir.path())), [wanted, &["third"]].concat(), "{death:?}");
        assert!(!dir.path().join("notes.json.tmp").exists(), "{death:?}");
    }
}

/// LO-CAT-02: what another handle or an editor writes is seen by the next read, also when it has the same length.
#[test]
fn changes_by_others_are_seen() {
    let dir = tempfile::tempdir().expect("a folder");
    let (one, other) = (open(dir.path()), open(dir.path()));
    for round in 0..50 {
        let text = format!("{round:02}");
        let change = other.change(|notes| {
            *notes = [(text.as_str().into(), Note(text.clone()).into())].into();
            Ok(((), true))
        });
        change.expect("it is written");
        assert_eq!(texts(&one), [text]);
    }
    let path = dir.path().join("notes.json");
    let text = std::fs::read_to_string(&path).expect("it is read");
    std::fs::write(&path, text.replace("\"49\"", "\"by hand\"")).expect("it is written");
    assert_eq!(texts(&one), ["by hand"]);
    std::fs::remove_file(&path).expect("it is removed");
    assert!(texts(&one).is_empty());
}

/// LO-CAT-02: a write that cannot be done changes nothing and leaves nothing.
#[test]
fn a_write_that_fails_leaves_the_old() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = open(dir.path());
    put(&file, "first");
    let temporary = dir.path().join("notes.json.tmp");
    std::fs::create_dir(&temporary).expect("a folder");
    let failed = file.change(|notes| {
        notes.clear();
        Ok(((), true))
    });
    assert!(failed.is_err());
    assert_eq!(texts(&file), ["first"]);
    std::fs::remove_dir(&temporary).expect("it is there");
    put(&file, "second");
    assert_eq!(texts(&open(dir.path())), ["first", "second"]);
}
