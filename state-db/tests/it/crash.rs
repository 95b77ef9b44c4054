//! SIGKILL at random moments.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Stdio};

use state_db::{OpenError, Opened, Retention, StateDb};

use crate::support::{ALL, Place, accepted, command, ended, number, numbers, this_test, wait};

const CHILD: &str = "crash::child";
const CHILD_DIR: &str = "STATE_DB_CRASH_DIR";
const CHILD_FIRST: &str = "STATE_DB_CRASH_FIRST";
const ROUNDS: usize = 40;

/// What the child has said about one task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Said {
    accept_confirmed: bool,
    finish_asked: bool,
    finish_confirmed: bool,
}

/// ORCH-3002-G: however often the process is killed, the file opens again, everything confirmed is in it, and what is
/// pending is in the order of acceptance.
#[test]
fn nothing_confirmed_is_lost_by_a_kill() {
    let place = Place::new();
    let mut said: BTreeMap<u128, Said> = BTreeMap::new();
    for round in 0..ROUNDS {
        let first = said.keys().next_back().map_or(0, |last| last + 1);
        let mut child = spawn(place.dir(), first);
        // The first is killed while it may still be creating the file.
        let lines = if round == 0 { 0 } else { rand::random_range(1..400) };
        hear(&mut child, lines, &place, &mut said);
        check(&place, &mut said);
    }
    assert!(said.len() > ROUNDS, "{}", said.len());
}

fn spawn(dir: &Path, first: u128) -> Child {
    let mut command = command(&this_test(CHILD));
    command.env(CHILD_DIR, dir).env(CHILD_FIRST, first.to_string()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().expect("it starts")
}

/// Listens to the child, kills it after some lines, and takes in what it said until then.
fn hear(child: &mut Child, lines: usize, place: &Place, said: &mut BTreeMap<u128, Said>) {
    let mut output = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut notes: Vec<String> = output.by_ref().filter(|line| line.starts_with('>')).take(lines).collect();
    if !notes.is_empty() {
        let refusal = place.refusal();
        assert!(matches!(refusal, OpenError::InUse { pid: Some(pid), .. } if pid == child.id()), "{refusal}");
    }
    child.kill().expect("it runs");
    notes.extend(output.filter(|line| line.starts_with('>')));
    child.wait().expect("it has ended");
    for note in notes {
        let (_, note) = note.split_once(' ').expect("a note has two words");
        let (what, number) = note.split_once(' ').expect("a note has two words");
        let said = said.entry(number.parse().expect("a number")).or_default();
        match what {
            "accept" => {}
            "accepted" => said.accept_confirmed = true,
            "finish" => said.finish_asked = true,
            "finished" => said.finish_confirmed = true,
            _ => panic!("{note}"),
        }
    }
}

/// Compares the file with what was said, and settles what was left open by the kill.
fn check(place: &Place, said: &mut BTreeMap<u128, Said>) {
    let Opened { db, pending } = place.open();
    let pending: Vec<u128> = pending.iter().map(|task| number(task.task_id)).collect();
    assert!(pending.is_sorted(), "{pending:?}");
    let pending: BTreeSet<u128> = pending.into_iter().collect();
    let history: BTreeSet<u128> = numbers(&wait(db.tasks(ALL)).expect("it is read")).into_iter().collect();
    assert!(pending.is_disjoint(&history));
    for (number, said) in &mut *said {
        let (is_pending, is_ended) = (pending.contains(number), history.contains(number));
        assert!(!said.accept_confirmed || is_pending || is_ended, "{number} was accepted");
        assert!(!said.finish_confirmed || is_ended, "{number} has ended");
        assert!(said.finish_asked || !is_ended, "{number} was not ended by anyone");
        *said = Said { accept_confirmed: is_pending || is_ended, finish_asked: is_ended, finish_confirmed: is_ended };
    }
    assert!(pending.union(&history).all(|number| said.contains_key(number)), "nothing comes from nowhere");
}

/// Accepts and finishes tasks, several at a time, and says before each what it will do and after each that it is done.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let first = std::env::var(CHILD_FIRST).expect("it is set").parse().expect("a number");
    let Opened { db, pending } = StateDb::open(dir.as_ref(), Retention::default(), 0).expect("it opens");
    say("", "");
    let pending = pending.iter().map(|task| number(task.task_id)).collect();
    wait(work(&db, pending, first));
}

async fn work(db: &StateDb, mut pending: Vec<u128>, first: u128) {
    let mut next = first;
    loop {
        let mut receipts = Vec::new();
        for _ in 0..rand::random_range(1..12) {
            if pending.is_empty() || rand::random_bool(0.55) {
                say("> accept", &next.to_string());
                receipts.push((
                    next,
                    "> accepted",
                    db.accept(accepted(next, &"p".repeat(rand::random_range(0..6_000)))),
                ));
                pending.push(next);
                next += 1;
            } else {
                let number = pending.swap_remove(rand::random_range(0..pending.len()));
                say("> finish", &number.to_string());
                receipts.push((number, "> finished", db.finish(ended(number, "r"))));
            }
        }
        for (number, done, receipt) in receipts {
            receipt.await.expect("it is written");
            say(done, &number.to_string());
        }
    }
}

/// One line, in one write: a kill never cuts it.
fn say(what: &str, number: &str) {
    std::io::stdout().lock().write_all(format!("{what} {number}\n").as_bytes()).expect("somebody listens");
}
