//! Several processes at once, and processes that are killed (LO-CAT-02).

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use catalog_core::{CatalogEntry, CatalogStore};

use crate::support::{ALL, Kind, Place, entry, id, ids};

const CHILD: &str = "processes::child";
const CHILD_DIR: &str = "CATALOG_PROCESS_DIR";
const CHILD_KIND: &str = "CATALOG_PROCESS_KIND";
const CHILD_NAME: &str = "CATALOG_PROCESS_NAME";
/// Entries that each of its threads adds; none means that it goes on until it is killed.
const CHILD_ENTRIES: &str = "CATALOG_PROCESS_ENTRIES";

const PROCESSES: usize = 2;
const THREADS: usize = 3;
const ENTRIES: usize = 12;

/// Ends with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(place: &Place, name: &str, entries: Option<usize>) -> Running {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.args([CHILD, "--exact", "--nocapture"]).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command.env(CHILD_DIR, place.dir()).env(CHILD_KIND, place.kind.index_name()).env(CHILD_NAME, name);
    if let Some(entries) = entries {
        command.env(CHILD_ENTRIES, entries.to_string());
    }
    Running(command.spawn().expect("it starts"))
}

#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let variable = |name| std::env::var(name).ok();
    let kind = Kind::ALL.into_iter().find(|kind| variable(CHILD_KIND).as_deref() == Some(kind.index_name()));
    let store = kind.expect("it is one of them").open(Path::new(&dir)).expect("it opens");
    let name = variable(CHILD_NAME).expect("it is given");
    match variable(CHILD_ENTRIES) {
        Some(entries) => write_some(store.as_ref(), &name, entries.parse().expect("a number")),
        None => write_until_killed(store.as_ref(), &name),
    }
}

fn write_some(store: &dyn CatalogStore, name: &str, entries: usize) {
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            scope.spawn(move || {
                for number in 0..entries {
                    store.put(entry(&format!("hf:{name}/{thread}-{number:04}"))).expect("it is written");
                    count(store);
                }
            });
        }
    });
}

/// Adds one to a number that all share.
fn count(store: &dyn CatalogStore) {
    let one_more = store.update(&id("file:count"), &mut |before| {
        let before = before.unwrap_or_else(|| CatalogEntry { created_ms: 0, ..entry("file:count") });
        Some(CatalogEntry { created_ms: before.created_ms + 1, ..before })
    });
    one_more.expect("it is written");
}

fn write_until_killed(store: &dyn CatalogStore, name: &str) {
    for number in 0.. {
        let id = format!("hf:{name}/{number:06}");
        store.put(entry(&id)).expect("it is written");
        // Not `println`, which a test's harness may keep; and the harness has begun a line.
        writeln!(std::io::stdout(), "\n> {id}").expect("somebody listens");
    }
}

fn nothing_is_lost(kind: Kind) {
    let place = Place::new(kind);
    let mut processes: Vec<Running> =
        (0..PROCESSES).map(|process| spawn(&place, &format!("p{process}"), Some(ENTRIES))).collect();
    for process in &mut processes {
        assert!(process.0.wait().expect("it has ended").success());
    }
    let store = place.open();
    assert_eq!(ids(store.as_ref(), &ALL).len(), PROCESSES * THREADS * ENTRIES + 1);
    let count = store.get(&id("file:count")).expect("it is read").expect("it is there").created_ms;
    assert_eq!(usize::try_from(count), Ok(PROCESSES * THREADS * ENTRIES));
}

/// LO-CAT-02: processes and threads that write at once lose nothing, neither entries nor updates of one entry.
#[test]
fn writers_of_a_file_lose_nothing() {
    nothing_is_lost(Kind::Fs);
}

/// ORCH-3037.2, LO-CAT-02: the same in SQLite.
#[test]
fn writers_of_a_database_lose_nothing() {
    nothing_is_lost(Kind::Sqlite);
}

/// LO-CAT-02: whatever a killed process was told to be written is there, and the index works.
#[test]
fn what_was_confirmed_survives_a_kill() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let mut confirmed: Vec<String> = Vec::new();
        // The first is killed while it may still be creating the index.
        for (round, lines) in [0, 1, 7, 20, 3, 12].into_iter().enumerate() {
            let mut process = spawn(&place, &format!("r{round}"), None);
            let lines_of = BufReader::new(process.0.stdout.take().expect("it is piped")).lines();
            let mut notes =
                lines_of.map_while(Result::ok).filter_map(|line| line.strip_prefix("> ").map(str::to_owned));
            confirmed.extend(notes.by_ref().take(lines));
            process.0.kill().expect("it runs");
            confirmed.extend(notes);
            drop(process);

            let store = place.open();
            let found = ids(store.as_ref(), &ALL);
            assert!(confirmed.iter().all(|id| found.contains(id)), "{kind:?}: {round}");
            // The last write of each round may have been done without having been confirmed.
            assert!(found.len() <= confirmed.len() + 1 + round, "{kind:?}: {round}");
            store.put(entry(&format!("hf:after/{round}"))).expect("it is written");
            confirmed.push(format!("hf:after/{round}"));
        }
    }
}
