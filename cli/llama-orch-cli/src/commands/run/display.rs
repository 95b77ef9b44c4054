//! What a run shows: tokens on stdout, everything else on stderr.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use api_types::sse::{Channel, EndFrame, MetricsFrame, Phase, StartedFrame};
use indicatif::ProgressBar;
use openapi_client::{Budgets, Event, Frame};

use crate::commands::follow::Watch;
use crate::failure::Failure;
use crate::output;
use crate::progress::spinner;
use crate::show;

/// The display of one run.
pub(super) struct Display {
    json: bool,
    quiet: bool,
    /// Shown while nothing has come yet, on a terminal only.
    waiting: Option<ProgressBar>,
    begun: Instant,
    first_token: Option<Duration>,
    started: Option<Box<StartedFrame>>,
    ends_with_newline: bool,
}

impl Display {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        let waiting = (!quiet && !json && std::io::stderr().is_terminal()).then(|| spinner("submitting"));
        Self { json, quiet, waiting, begun: Instant::now(), first_token: None, started: None, ends_with_newline: true }
    }
}

impl Watch for Display {
    fn event(&mut self, event: &Event) -> Result<(), Failure> {
        if let Frame::Token(_) = &event.frame {
            self.first_token.get_or_insert_with(|| self.begun.elapsed());
        }
        if self.json {
            return output::json_line(event);
        }
        match &event.frame {
            Frame::Started(started) => self.started(started),
            Frame::Token(token) => return self.token(&token.t, token.channel),
            Frame::Metrics(metrics) => self.metrics(metrics),
            Frame::Narration(_) | Frame::End(_) | Frame::Error(_) => {}
        }
        Ok(())
    }

    fn note(&self, text: &str) {
        match &self.waiting {
            Some(bar) => bar.set_message(text.to_owned()),
            None if !self.quiet => eprintln!("llama-orch: {text}"),
            None => {}
        }
    }

    /// Ends the output, so that what follows begins on a line of its own.
    fn finish(&mut self) -> Result<(), Failure> {
        self.stop_waiting();
        if !self.json && !self.ends_with_newline && std::io::stdout().is_terminal() {
            output::write("\n")?;
        }
        Ok(())
    }

    /// One line on what came of it; the seed and the sampler profile are what another run needs to repeat it (LO-CLI-07).
    fn summary(&self, end: &EndFrame, budgets: Budgets) {
        if !self.has_summary() {
            return;
        }
        let mut parts = vec![tokens(end)];
        if end.canceled == Some(true) {
            parts.insert(0, "canceled".to_owned());
        }
        if let Some(wait) = self.first_token {
            parts.push(format!("first after {}", show::duration(wait)));
        }
        if let Some(reason) = end.finish_reason {
            parts.push(format!("ended by {reason}"));
        }
        if let Some(started) = &self.started {
            let facts = [
                ("pool", started.pool_id.clone()),
                ("seed", started.seed.map(|seed| seed.to_string())),
                ("sampler profile", started.sampler_profile_version.clone()),
                ("task", started.job_id.clone()),
            ];
            parts.extend(facts.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", value?))));
        }
        parts.extend(show::budgets(budgets).map(|(name, value)| format!("{name} {value}")));
        eprintln!("llama-orch: {}", parts.join(", "));
    }

    fn has_summary(&self) -> bool {
        !self.quiet && !self.json
    }
}

impl Display {
    fn started(&mut self, started: &StartedFrame) {
        self.wait(Some(Phase::Queued), Some(started.queue_position), Some(started.predicted_start_ms), None);
        self.started = Some(Box::new(started.clone()));
    }

    fn metrics(&self, metrics: &MetricsFrame) {
        self.wait(metrics.phase, metrics.queue_position, metrics.predicted_start_ms, metrics.progress);
    }

    fn wait(&self, phase: Option<Phase>, position: Option<i32>, start_ms: Option<i64>, progress: Option<f64>) {
        let Some(bar) = &self.waiting else { return };
        let done = progress.map(|share| format!(", {:.0} %", share * 100.0)).unwrap_or_default();
        bar.set_message(match (phase, position) {
            (Some(Phase::Queued), Some(ahead @ 1..)) => {
                format!("waiting behind {ahead}, starts in about {}", show::millis(start_ms.unwrap_or_default()))
            }
            (Some(Phase::Loading), _) => format!("loading the model{done}"),
            (Some(Phase::Prefill), _) => format!("reading the prompt{done}"),
            _ => "waiting for the first token".to_owned(),
        });
    }

    fn token(&mut self, text: &str, channel: Option<Channel>) -> Result<(), Failure> {
        self.stop_waiting();
        if channel == Some(Channel::Reasoning) {
            // Not the answer: for eyes, never for the pipe.
            if !self.quiet && std::io::stderr().is_terminal() {
                eprint!("{text}");
            }
            return Ok(());
        }
        if !text.is_empty() {
            self.ends_with_newline = text.ends_with('\n');
        }
        output::write(text)
    }

    fn stop_waiting(&mut self) {
        if let Some(bar) = self.waiting.take() {
            bar.finish_and_clear();
        }
    }
}

fn tokens(end: &EndFrame) -> String {
    let noun = if end.tokens_out == 1 { "token" } else { "tokens" };
    let mut text = format!("{} {noun} in {}", end.tokens_out, show::millis(end.decode_time_ms));
    if end.decode_time_ms > 0 && end.tokens_out > 1 {
        // The first token is there when the clock starts.
        let rate = f64::from(end.tokens_out - 1) * 1000.0 / show::approximate(end.decode_time_ms);
        text.push_str(&format!(" ({rate:.1}/s)"));
    }
    text
}
