//! Random histories of the file against a model of it.

use std::ops::Range;

use api_types::{Priority, TaskSummary};
use proptest::prelude::*;
use state_db::{AcceptedTask, EndedTask, Opened, StateDb};

use crate::support::{self, ALL, Place, accepted, id, wait};

#[derive(Clone, Debug)]
enum Step {
    Accept(u128),
    Finish(u128),
    /// Waits for what is on its way.
    Settle,
    /// Closes the file and opens it again.
    Reopen,
}

/// Tasks of the journal, and others: those leave nothing in it.
const BATCH: Range<u128> = 0..5;
const INTERACTIVE: Range<u128> = 5..8;

/// A task that ended, of the class that its number stands for.
fn ended(number: u128, record: &str) -> EndedTask {
    let priority = if INTERACTIVE.contains(&number) { Priority::Interactive } else { Priority::Batch };
    let EndedTask { summary, record } = support::ended(number, record);
    EndedTask { summary: TaskSummary { priority, ..summary }, record }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => BATCH.prop_map(Step::Accept),
        5 => (BATCH.start..INTERACTIVE.end).prop_map(Step::Finish),
        1 => Just(Step::Settle),
        1 => Just(Step::Reopen),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What the file should hold. Entries and records are the numbers of the steps that wrote them.
#[derive(Default)]
struct Model {
    journal: Vec<AcceptedTask>,
    history: Vec<EndedTask>,
}

impl Model {
    fn accept(&mut self, task: AcceptedTask) {
        if !self.journal.iter().any(|other| other.task_id == task.task_id) {
            self.journal.push(task);
        }
    }

    fn finish(&mut self, task: EndedTask) {
        self.journal.retain(|other| other.task_id != task.summary.task_id);
        self.history.retain(|other| other.summary.task_id != task.summary.task_id);
        self.history.push(task);
    }

    fn check_history(&self, db: &StateDb) {
        for task in &self.history {
            let stored = wait(db.task(task.summary.task_id)).expect("it is read").expect("it is there");
            assert_eq!((&stored.summary, &stored.record), (&task.summary, &task.record));
        }
        assert_eq!(wait(db.tasks(ALL)).expect("it is read").len(), self.history.len());
        assert!(wait(db.task(id(100))).expect("it is read").is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// ORCH-3002-G: whatever is accepted and finished in whatever order, the file opens to exactly that.
    #[test]
    fn the_file_is_what_was_written(steps in steps()) {
        let place = Place::new();
        let mut model = Model::default();
        let Opened { mut db, .. } = place.open();
        let mut receipts = Vec::new();
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::Accept(number) => {
                    receipts.push(db.accept(accepted(number, &at.to_string())));
                    model.accept(accepted(number, &at.to_string()));
                }
                Step::Finish(number) => {
                    receipts.push(db.finish(ended(number, &at.to_string())));
                    model.finish(ended(number, &at.to_string()));
                }
                Step::Settle => {
                    for receipt in receipts.drain(..) {
                        wait(receipt).expect("it is written");
                    }
                    model.check_history(&db);
                }
                Step::Reopen => {
                    db.close();
                    let opened = place.open();
                    prop_assert_eq!(&opened.pending, &model.journal);
                    db = opened.db;
                    model.check_history(&db);
                }
            }
        }
        drop(db);
        let opened = place.open();
        prop_assert_eq!(&opened.pending, &model.journal);
        model.check_history(&opened.db);
        for receipt in receipts {
            wait(receipt).expect("closing wrote it");
        }
    }
}
