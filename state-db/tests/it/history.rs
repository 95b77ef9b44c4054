//! Ended tasks: pages, filters, and how long they are kept.

use api_types::{Priority, TaskState, TaskSummary};
use proptest::prelude::*;
use state_db::{EndedTask, Opened, Retention, StateDb, StoredTask, TaskQuery};

use crate::support::{ALL, Place, accept, accepted, ended, finish, id, numbers, session, summary, wait};

/// An ended task can be read as soon as its receipt says so, summary and record as they were given.
#[test]
fn an_ended_task_is_read_as_it_was_written() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    assert_eq!(wait(db.task(id(1))).expect("it is read"), None);
    wait(db.finish(ended(1, "{\"a\": \"ü\"}"))).expect("it is written");
    let stored = StoredTask { summary: summary(1), record: "{\"a\": \"ü\"}".to_owned() };
    assert_eq!(wait(db.task(id(1))).expect("it is read"), Some(stored.clone()));
    drop(db);
    let Opened { db, .. } = place.open();
    assert_eq!(wait(db.task(id(1))).expect("it is read"), Some(stored));
    assert_eq!(wait(db.tasks(ALL)).expect("it is read"), [summary(1)]);
}

/// Of two ends of one task the last one counts.
#[test]
fn a_task_finished_twice_is_listed_once() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    finish(&db, ended(1, "first")).expect("it is written");
    let mut last = ended(1, "last");
    last.summary.state = TaskState::Failed;
    finish(&db, last.clone()).expect("it is written");
    assert_eq!(wait(db.tasks(ALL)).expect("it is read"), [last.summary]);
    assert_eq!(wait(db.task(id(1))).expect("it is read").map(|task| task.record).as_deref(), Some("last"));
}

fn one_of<T: Clone + std::fmt::Debug + 'static>(values: &[T]) -> impl Strategy<Value = T> + use<T> {
    proptest::sample::select(values.to_vec())
}

fn summaries() -> impl Strategy<Value = Vec<TaskSummary>> {
    let filtered = (
        0..20_i64,
        one_of(TaskState::ALL),
        one_of(Priority::ALL),
        one_of(&[None, Some("gpu0"), Some("gpu1")]),
        0..3_u128,
        one_of(&["m1", "m2"]),
    );
    proptest::collection::vec(filtered, 0..200).prop_map(|rows| {
        let numbered = (0..).zip(rows);
        let tasks = numbered.map(|(number, (admitted_at_ms, state, priority, pool, of_session, model))| TaskSummary {
            admitted_at_ms,
            state,
            priority,
            pool_id: pool.map(str::to_owned),
            session_id: session(of_session),
            model_ref: model.to_owned(),
            ..summary(number)
        });
        tasks.collect()
    })
}

prop_compose! {
    fn queries()(
        before in proptest::option::weighted(0.3, (0..20_i64, 0..200_u128)),
        limit in 1..40_usize,
        states in proptest::sample::subsequence(TaskState::ALL.to_vec(), 0..4),
        priority in proptest::option::weighted(0.3, one_of(Priority::ALL)),
        pool_id in proptest::option::weighted(0.3, one_of(&["gpu0", "gpu1", "none"])),
        session_id in proptest::option::weighted(0.3, 0..3_u128),
        model_ref in proptest::option::weighted(0.3, one_of(&["m1", "m2"])),
        since_ms in proptest::option::weighted(0.3, 0..20_i64),
        until_ms in proptest::option::weighted(0.3, 0..20_i64),
    ) -> TaskQuery {
        TaskQuery {
            before: before.map(|(admitted_at_ms, number)| (admitted_at_ms, id(number))),
            limit,
            states,
            priority,
            pool_id: pool_id.map(str::to_owned),
            session_id: session_id.map(session),
            model_ref: model_ref.map(str::to_owned),
            since_ms,
            until_ms,
        }
    }
}

/// What the query means, said in Rust.
fn passes(query: &TaskQuery, task: &TaskSummary) -> bool {
    query.before.is_none_or(|before| (task.admitted_at_ms, task.task_id) < before)
        && (query.states.is_empty() || query.states.contains(&task.state))
        && query.priority.is_none_or(|priority| task.priority == priority)
        && query.pool_id.as_ref().is_none_or(|pool| task.pool_id.as_ref() == Some(pool))
        && query.session_id.is_none_or(|session| task.session_id == session)
        && query.model_ref.as_ref().is_none_or(|model| task.model_ref == *model)
        && query.since_ms.is_none_or(|since| task.admitted_at_ms >= since)
        && query.until_ms.is_none_or(|until| task.admitted_at_ms < until)
}

/// All pages of a query, each asked for with the last task of the one before.
async fn all_pages(db: &StateDb, mut query: TaskQuery) -> Vec<TaskSummary> {
    let mut all = Vec::new();
    loop {
        let page = db.tasks(query.clone()).await.expect("it is read");
        assert!(page.len() <= query.limit);
        let Some(last) = page.last() else { return all };
        query.before = Some((last.admitted_at_ms, last.task_id));
        all.extend(page);
    }
}

async fn fill(db: &StateDb, tasks: &[TaskSummary]) {
    let write = |summary: &TaskSummary| EndedTask { summary: summary.clone(), record: String::new() };
    let receipts: Vec<_> = tasks.iter().map(|task| db.finish(write(task))).collect();
    for receipt in receipts {
        receipt.await.expect("it is written");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// The pages of any query, one after the other, are the list filtered and sorted.
    #[test]
    fn pages_are_the_filtered_list(tasks in summaries(), queries in proptest::collection::vec(queries(), 20)) {
        let place = Place::new();
        let Opened { db, .. } = place.open();
        wait(fill(&db, &tasks));
        let mut newest_first = tasks;
        newest_first.sort_unstable_by_key(|task| std::cmp::Reverse((task.admitted_at_ms, task.task_id)));
        for query in queries {
            let expected: Vec<_> = newest_first.iter().filter(|task| passes(&query, task)).cloned().collect();
            let first = wait(db.tasks(query.clone())).expect("it is read");
            prop_assert_eq!(&first, &expected[..expected.len().min(query.limit)]);
            prop_assert_eq!(wait(all_pages(&db, query)), expected);
        }
    }
}

fn ended_at(number: u128, ended_at_ms: i64) -> EndedTask {
    let mut task = ended(number, "r");
    task.summary.ended_at_ms = Some(ended_at_ms);
    task
}

fn kept(db: &StateDb) -> Vec<u128> {
    let mut numbers = numbers(&wait(db.tasks(ALL)).expect("it is read"));
    numbers.sort_unstable();
    numbers
}

/// Beyond the limit those that ended first go, at once while running and when the limit was lowered.
#[test]
fn the_oldest_ended_tasks_beyond_a_number_are_deleted() {
    let place = Place::new();
    let three = Retention { max_tasks: 3, max_age_ms: 0 };
    let Opened { db, .. } = place.open_keeping(three, 0);
    accept(&db, accepted(100, "e")).expect("it is written");
    for (number, ended_at_ms) in [(1, 40), (2, 10), (3, 30), (4, 20)] {
        finish(&db, ended_at(number, ended_at_ms)).expect("it is written");
    }
    assert_eq!(kept(&db), [1, 3, 4]);
    // The same task again takes its own place.
    finish(&db, ended_at(4, 50)).expect("it is written");
    assert_eq!(kept(&db), [1, 3, 4]);
    drop(db);

    let Opened { db, pending } = place.open_keeping(Retention { max_tasks: 1, max_age_ms: 0 }, 0);
    assert_eq!(kept(&db), [4]);
    assert_eq!(pending, [accepted(100, "e")]);
}

/// What ended too long ago goes; what has not ended stays however old it is.
#[test]
fn ended_tasks_beyond_an_age_are_deleted() {
    let place = Place::new();
    let Opened { db, .. } = place.open();
    accept(&db, accepted(100, "e")).expect("it is written");
    let many: Vec<_> = (1_000..2_000).map(|number| ended_at(number, 1_000).summary).collect();
    wait(fill(&db, &many));
    finish(&db, ended_at(1, 90_000)).expect("it is written");
    drop(db);

    let minute = Retention { max_tasks: 0, max_age_ms: 60_000 };
    let Opened { db, pending } = place.open_keeping(minute, 61_000);
    assert_eq!(kept(&db).len(), 1_001, "a task of exactly that age is kept");
    drop(db);
    assert_eq!(pending, [accepted(100, "e")]);
    let Opened { db, pending } = place.open_keeping(minute, 100_000);
    assert_eq!(kept(&db), [1]);
    assert_eq!(pending, [accepted(100, "e")]);
    finish(&db, ended_at(2, 1_000)).expect("it is written");
    assert_eq!(kept(&db), [1], "it was too old already");
}
