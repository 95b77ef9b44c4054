//! Tasks to be submitted, drawn beforehand.

use std::time::Duration;

use api_types::{Engine, Priority, SessionId, TaskId, TaskRequest, Workload};
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::rig::CTX;
use crate::args::Classes;

/// Where loads come from: equal seeds give equal loads, on every machine.
pub(super) type Rng = Xoshiro256PlusPlus;

/// What prompts are made of; mock-engine has a token for each word.
const WORDS: [&str; 8] = ["a", "of", "the", "tree", "river", "window", "morning", "machines"];

/// One task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Task {
    /// When it is sent, counted from the beginning of the load.
    pub(super) at: Duration,
    pub(super) id: TaskId,
    pub(super) priority: Priority,
    /// Tokens of its prompt, at least 2.
    pub(super) prompt_tokens: u16,
    pub(super) max_tokens: u16,
    pub(super) deadline: Duration,
}

impl Task {
    /// The request, in a session of its own.
    pub(super) fn request(&self, model: &str) -> TaskRequest {
        TaskRequest {
            task_id: self.id,
            session_id: SessionId(self.id.0),
            workload: Workload::Completion,
            model_ref: model.to_owned(),
            engine: Engine::Llamacpp,
            ctx: CTX,
            priority: self.priority,
            max_tokens: self.max_tokens.into(),
            deadline_ms: i64::try_from(self.deadline.as_millis()).unwrap_or(i64::MAX),
            prompt: Some(self.prompt()),
            messages: None,
            inputs: None,
            seed: Some(i64::from(self.id.0.as_fields().0 >> 1)),
            determinism: None,
            sampler_profile_version: None,
            sampling: None,
            expected_tokens: None,
            kv_hint: None,
            placement: None,
            output_mode: None,
            response_format: None,
            tools: None,
            tool_choice: None,
        }
    }

    /// A text like no other from its first word on, so that no engine's cache holds any of it.
    fn prompt(&self) -> String {
        let mut rng = Rng::seed_from_u64(self.id.0.as_u64_pair().1);
        let mut text = self.id.0.simple().to_string();
        // The engine counts a first token for the beginning of every prompt; the id is the second.
        for _ in 2..self.prompt_tokens {
            text.push(' ');
            text.push_str(WORDS.choose(&mut rng).copied().unwrap_or_default());
        }
        text
    }
}

/// A fresh id.
pub(super) fn task_id(rng: &mut Rng) -> TaskId {
    TaskId(uuid::Builder::from_random_bytes(rng.random()).into_uuid())
}

impl Classes {
    /// The class of task number `index`; of both, the even numbers are interactive.
    pub(super) const fn of(self, index: u32) -> Priority {
        match self {
            Self::Interactive => Priority::Interactive,
            Self::Batch => Priority::Batch,
            Self::Both if index.is_multiple_of(2) => Priority::Interactive,
            Self::Both => Priority::Batch,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api_types::Priority;
    use rand::SeedableRng as _;

    use super::{Rng, Task, task_id};

    /// A prompt is as long as it should be, the same each time, and shares not even its first word with another.
    #[test]
    fn prompts_are_of_their_length_and_unlike_each_other() {
        let mut rng = Rng::seed_from_u64(1);
        let mut task = |prompt_tokens| Task {
            at: Duration::ZERO,
            id: task_id(&mut rng),
            priority: Priority::Batch,
            prompt_tokens,
            max_tokens: 1,
            deadline: Duration::from_millis(1_500),
        };
        let (one, other) = (task(16), task(2));
        let prompt = one.prompt();
        assert_eq!((prompt.split(' ').count(), other.prompt().split(' ').count()), (15, 1));
        assert_eq!(prompt, one.prompt());
        assert_ne!(prompt.split(' ').next(), other.prompt().split(' ').next());
        let request = one.request("m");
        assert_eq!((request.max_tokens, request.deadline_ms, request.prompt), (1, 1_500, Some(prompt)));
        assert!(request.seed.is_some_and(|seed| (0..=4_294_967_294).contains(&seed)));
    }
}
