//! Listens to the repetition.

use std::io::IsTerminal as _;

use indicatif::ProgressBar;
use openapi_client::{Event, Frame};

use crate::commands::follow::Watch;
use crate::failure::Failure;
use crate::progress::spinner;

/// Keeps the events of a stream.
pub(super) struct Recorder {
    pub(super) events: Vec<Event>,
    tokens: usize,
    max_tokens: i32,
    pool_id: String,
    /// Shown on a terminal only.
    waiting: Option<ProgressBar>,
}

impl Recorder {
    pub(super) fn new(max_tokens: i32, pool_id: &str, json: bool) -> Self {
        let waiting = (!json && std::io::stderr().is_terminal()).then(|| spinner("submitting the task again"));
        Self { events: Vec::new(), tokens: 0, max_tokens, pool_id: pool_id.to_owned(), waiting }
    }
}

impl Watch for Recorder {
    fn event(&mut self, event: &Event) -> Result<(), Failure> {
        if let Frame::Token(_) = &event.frame {
            self.tokens += 1;
        }
        if let Some(bar) = &self.waiting {
            let Self { tokens, max_tokens, pool_id, .. } = self;
            bar.set_message(format!("running it again on {pool_id}: {tokens} of at most {max_tokens} tokens"));
        }
        self.events.push(event.clone());
        Ok(())
    }

    fn note(&self, text: &str) {
        match &self.waiting {
            Some(bar) => bar.set_message(text.to_owned()),
            None => eprintln!("llama-orch: {text}"),
        }
    }

    fn finish(&mut self) -> Result<(), Failure> {
        if let Some(bar) = self.waiting.take() {
            bar.finish_and_clear();
        }
        Ok(())
    }
}
