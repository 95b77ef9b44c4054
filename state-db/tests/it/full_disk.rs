//! A disk that takes no more: a limit on the size of files stands in for it.

use state_db::{Opened, WriteError};

use crate::support::{Place, accept, accepted, command, number, this_test};

const CHILD: &str = "full_disk::child";
const CHILD_DIR: &str = "STATE_DB_FULL_DISK_DIR";

/// ORCH-3002-G: when the disk takes no more, writes fail with a typed error, the writer lives on, and what was
/// confirmed is there.
#[test]
fn a_full_disk_fails_writes_and_loses_nothing() {
    let place = Place::new();
    drop(place.open());
    // Ignored, the signal turns into an error of the write. The limit is 512 times 512 bytes.
    let mut words = ["sh", "-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\""].map(Into::into).to_vec();
    words.extend(this_test(CHILD));
    let output = command(&words).env(CHILD_DIR, place.dir()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let confirmed: u128 =
        text.lines().find_map(|line| line.strip_prefix("confirmed ")?.parse().ok()).expect("it says so");
    let Opened { pending, .. } = place.open();
    let pending: Vec<_> = pending.iter().map(|task| number(task.task_id)).collect();
    assert_eq!(pending, (0..confirmed).collect::<Vec<_>>());
}

/// Accepts tasks until that fails, and tries some more.
#[test]
fn child() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else { return };
    let Opened { db, .. } = state_db::StateDb::open(dir.as_ref(), state_db::Retention::default(), 0).expect("it opens");
    let mut confirmed = 0;
    while accept(&db, accepted(confirmed, &"p".repeat(4_000))).is_ok() {
        confirmed += 1;
        assert!(confirmed < 1_000, "the limit does not hold");
    }
    for _ in 0..3 {
        let error = accept(&db, accepted(confirmed, &"p".repeat(4_000))).expect_err("it is still full");
        assert!(matches!(error, WriteError::Failed { .. } | WriteError::DiskFull { .. }), "{error:?}");
    }
    println!("\nconfirmed {confirmed}");
}
