//! Commands from an orchestrator to a host, over a link that loses and repeats messages.
//!
//! The [`Outbox`] numbers them and repeats each until the host says that it has come; the [`Inbox`] takes each once, in order, however
//! often it comes, and repeats what came of it until the orchestrator is known to know. Both are pure. A session ends when either
//! side starts anew; what was not done by then is not.

use std::collections::VecDeque;

use api_types::{CommandDone, CommandRefusal, PoolId, WorkerCommand, WorkerOrder};

/// What is to be done by a host. `T` is whoever waits for the answer.
#[derive(Debug)]
pub struct Outbox<T> {
    issued: u64,
    taken_through: u64,
    waiting: VecDeque<(WorkerCommand, T)>,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self { issued: 0, taken_through: 0, waiting: VecDeque::new() }
    }
}

impl<T> Outbox<T> {
    /// One more thing to do.
    pub fn push(&mut self, pool_id: PoolId, order: WorkerOrder, waits: T) {
        self.issued += 1;
        self.waiting.push_back((WorkerCommand { number: self.issued, pool_id, order }, waits));
    }

    /// What has not come to the host as far as is known, in order.
    pub fn to_send(&self) -> impl Iterator<Item = &WorkerCommand> {
        let taken_through = self.taken_through;
        self.waiting.iter().map(|(command, _)| command).filter(move |command| command.number > taken_through)
    }

    /// The host says what has come and what is done: whoever waited for that, with the answer.
    pub fn acknowledge(&mut self, taken_through: u64, done: &[CommandDone]) -> Vec<(T, Result<(), CommandRefusal>)> {
        self.taken_through = self.taken_through.max(taken_through);
        let mut answers = Vec::new();
        for (command, waits) in std::mem::take(&mut self.waiting) {
            match done.iter().find(|done| done.number == command.number) {
                Some(done) => answers.push((waits, done.refused.map_or(Ok(()), Err))),
                None => self.waiting.push_back((command, waits)),
            }
        }
        answers
    }

    /// The session is over: whoever still waits.
    pub fn give_up(&mut self) -> impl Iterator<Item = T> {
        std::mem::take(&mut self.waiting).into_iter().map(|(_, waits)| waits)
    }
}

/// What has come of a session's commands, and what came of them.
#[derive(Debug, Default)]
pub struct Inbox {
    taken_through: u64,
    done: Vec<CommandDone>,
}

impl Inbox {
    /// Takes commands in: those that are new, in order. One that comes before another that is missing is left for the next time.
    pub fn take(&mut self, commands: Vec<WorkerCommand>) -> Vec<WorkerCommand> {
        let mut fresh = Vec::new();
        for command in commands {
            if command.number == self.taken_through + 1 {
                self.taken_through += 1;
                fresh.push(command);
            }
        }
        fresh
    }

    /// A command was carried out, or was not.
    pub fn done(&mut self, number: u64, result: Result<(), CommandRefusal>) {
        self.done.push(CommandDone { number, refused: result.err() });
    }

    /// What the next heartbeat says.
    #[must_use]
    pub fn report(&self) -> (u64, Vec<CommandDone>) {
        (self.taken_through, self.done.clone())
    }

    /// A heartbeat with this report was answered.
    pub fn known(&mut self, done: &[CommandDone]) {
        self.done.retain(|mine| !done.contains(mine));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, VecDeque};

    use api_types::{CommandRefusal, PoolId, WorkerOrder};
    use proptest::prelude::*;

    use super::{Inbox, Outbox};

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// The orchestrator wants something; whether the host refuses it.
        Wish(bool),
        /// A heartbeat and its answer; either may be lost.
        Beat { arrives: bool, is_answered: bool },
        /// The host carries out one of those that have come.
        Work(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            any::<bool>().prop_map(Step::Wish),
            (any::<bool>(), any::<bool>()).prop_map(|(arrives, is_answered)| Step::Beat { arrives, is_answered }),
            (0usize..4).prop_map(Step::Work),
        ]
    }

    proptest! {
        /// LO-HST-04: over a link that loses heartbeats and answers, each command comes once and in order, and its answer is the
        /// host's, given once.
        #[test]
        fn each_command_is_carried_out_once(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
            let (mut wishes, mut came, mut answered) = (Vec::new(), Vec::new(), BTreeMap::new());
            let mut queue: VecDeque<u64> = VecDeque::new();
            let good = Step::Beat { arrives: true, is_answered: true };
            let last = std::iter::once(good).chain((0..200).map(|_| Step::Work(0))).chain([good]);
            for step in steps.into_iter().chain(last) {
                match step {
                    Step::Wish(refused) => {
                        wishes.push(refused);
                        outbox.push(PoolId::from("p"), WorkerOrder::Start, wishes.len() as u64);
                    }
                    Step::Beat { arrives: false, .. } => {}
                    Step::Beat { is_answered, .. } => {
                        let (taken_through, done) = inbox.report();
                        for (number, answer) in outbox.acknowledge(taken_through, &done) {
                            prop_assert!(answered.insert(number, answer).is_none(), "{} was answered twice", number);
                        }
                        if is_answered {
                            inbox.known(&done);
                            for command in inbox.take(outbox.to_send().cloned().collect()) {
                                came.push(command.number);
                                queue.push_back(command.number);
                            }
                        }
                    }
                    Step::Work(which) => {
                        if let Some(number) = queue.remove(which) {
                            let refused = wishes[usize::try_from(number).unwrap() - 1];
                            inbox.done(number, if refused { Err(CommandRefusal::Starting) } else { Ok(()) });
                        }
                    }
                }
            }
            prop_assert_eq!(came, (1..=wishes.len() as u64).collect::<Vec<_>>());
            let expected: BTreeMap<_, _> = (1..).zip(&wishes)
                .map(|(number, refused)| (number, if *refused { Err(CommandRefusal::Starting) } else { Ok(()) })).collect();
            prop_assert_eq!(answered, expected);
        }
    }
}
