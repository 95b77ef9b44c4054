//! The life of a task: which event may follow which state.

use api_types::TaskState;

/// Something that happened to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskEvent {
    /// It was handed to an engine.
    Dispatched,
    /// Its first token arrived.
    FirstToken,
    /// It is over.
    Ended(End),
    /// Its worker was lost before the first token; it waits again.
    Requeued,
}

/// The four ways a task can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// As the engine meant it to.
    Completed,
    /// With a typed error.
    Failed,
    /// Canceled.
    Canceled,
    /// Its deadline passed.
    Expired,
}

impl End {
    /// The state it leads to.
    #[must_use]
    pub const fn state(self) -> TaskState {
        match self {
            Self::Completed => TaskState::Completed,
            Self::Failed => TaskState::Failed,
            Self::Canceled => TaskState::Canceled,
            Self::Expired => TaskState::Expired,
        }
    }
}

/// An event that may not follow a state; the state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {state} task cannot take {event:?}")]
pub struct InvalidTransition {
    /// The state the task is in.
    pub state: TaskState,
    /// The event that came.
    pub event: TaskEvent,
}

/// The state after an event. A task that produced no token at all goes from dispatched straight to its end, and only a
/// dispatched one can complete; a queued one can fail, be canceled or expire.
///
/// # Errors
/// [`InvalidTransition`] when the event may not follow; a task that has ended takes none.
pub const fn next(state: TaskState, event: TaskEvent) -> Result<TaskState, InvalidTransition> {
    use TaskState::{Dispatched, Queued, Streaming};
    match (state, event) {
        (Queued, TaskEvent::Dispatched) => Ok(Dispatched),
        (Dispatched, TaskEvent::FirstToken) => Ok(Streaming),
        (Dispatched, TaskEvent::Requeued) => Ok(Queued),
        (Queued, TaskEvent::Ended(end @ (End::Failed | End::Canceled | End::Expired))) => Ok(end.state()),
        (Dispatched | Streaming, TaskEvent::Ended(end)) => Ok(end.state()),
        _ => Err(InvalidTransition { state, event }),
    }
}

/// Whether nothing can happen to the task any more.
#[must_use]
pub const fn is_terminal(state: TaskState) -> bool {
    matches!(state, TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Expired)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{End, TaskEvent, TaskState, is_terminal, next};

    const ENDS: [End; 4] = [End::Completed, End::Failed, End::Canceled, End::Expired];

    fn events() -> impl Strategy<Value = TaskEvent> {
        prop_oneof![
            Just(TaskEvent::Dispatched),
            Just(TaskEvent::FirstToken),
            Just(TaskEvent::Requeued),
            prop::sample::select(&ENDS[..]).prop_map(TaskEvent::Ended),
        ]
    }

    proptest! {
        /// A task ends at most once, takes nothing afterwards, and streams only after it was dispatched.
        #[test]
        fn every_path_has_at_most_one_end(path in prop::collection::vec(events(), 0..40)) {
            let (mut state, mut ends, mut dispatched) = (TaskState::Queued, 0, false);
            for event in path {
                let before = state;
                match next(state, event) {
                    Ok(after) => {
                        prop_assert!(!is_terminal(before));
                        dispatched = match event {
                            TaskEvent::Dispatched => true,
                            TaskEvent::Requeued => false,
                            _ => dispatched,
                        };
                        prop_assert!(dispatched || !matches!(after, TaskState::Streaming | TaskState::Completed));
                        ends += u32::from(is_terminal(after));
                        state = after;
                    }
                    Err(refused) => prop_assert_eq!((refused.state, refused.event), (before, event)),
                }
            }
            prop_assert_eq!(ends, u32::from(is_terminal(state)));
        }
    }

    /// Whatever state a task is in, it can still be ended, and each end is reachable from a running one.
    #[test]
    fn a_living_task_can_always_end() {
        for state in [TaskState::Queued, TaskState::Dispatched, TaskState::Streaming] {
            for end in ENDS {
                let ended = next(state, TaskEvent::Ended(end));
                let may = !(state == TaskState::Queued && end == End::Completed);
                assert_eq!(ended.is_ok(), may, "{state} {end:?}");
            }
        }
        for state in TaskState::ALL.iter().copied().filter(|state| is_terminal(*state)) {
            assert!(next(state, TaskEvent::Requeued).is_err());
            assert!(ENDS.iter().all(|end| next(state, TaskEvent::Ended(*end)).is_err()));
        }
    }
}
