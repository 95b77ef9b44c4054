//! How work on a model is shown while it goes on.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use api_types::{ModelJob, ModelJobKind, ModelJobState};
use indicatif::ProgressBar;
use openapi_client::FeedFrame;

use crate::failure::Failure;
use crate::show::{approximate, bytes, duration};
use crate::{output, progress};

/// Longest time between two lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Where progress goes: to scripts one object per change, to people a bar, to logs a line now and then.
pub(super) enum Progress {
    Json(Option<ModelJob>),
    Bar(ProgressBar),
    Lines(Option<Line>),
}

/// The last line that was written.
pub(super) struct Line {
    at: Instant,
    state: ModelJobState,
    tenth: i64,
}

impl Progress {
    pub(super) fn new(json: bool) -> Self {
        match (json, std::io::stderr().is_terminal()) {
            (true, _) => Self::Json(None),
            (false, true) => Self::Bar(progress::spinner("asking")),
            (false, false) => Self::Lines(None),
        }
    }

    /// Shows how it stands.
    pub(super) fn show(&mut self, job: &ModelJob) -> Result<(), Failure> {
        match self {
            Self::Json(last) if last.as_ref() == Some(job) => {}
            Self::Json(last) => {
                output::json_line(&FeedFrame::ModelJob(Box::new(job.clone())))?;
                *last = Some(job.clone());
            }
            Self::Bar(bar) => draw(bar, job),
            Self::Lines(last) => {
                let line = Line::of(job);
                if last.as_ref().is_none_or(|last| last.is_outdone_by(&line)) {
                    eprintln!("llama-orch: {}", sentence(job));
                    *last = Some(line);
                }
            }
        }
        Ok(())
    }

    /// Leaves the terminal to what follows.
    pub(super) fn finish(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn draw(bar: &ProgressBar, job: &ModelJob) {
    if let (None, Some(total)) = (bar.length(), total(job)) {
        bar.set_style(progress::share());
        bar.set_length(total.unsigned_abs());
    }
    bar.set_position(job.bytes_done.max(0).unsigned_abs());
    bar.set_message(sentence(job));
}

impl Line {
    fn of(job: &ModelJob) -> Self {
        let tenth = total(job).map_or(0, |total| job.bytes_done.saturating_mul(10) / total);
        Self { at: Instant::now(), state: job.state, tenth }
    }

    fn is_outdone_by(&self, next: &Self) -> bool {
        self.state != next.state || self.tenth != next.tenth || next.at.duration_since(self.at) >= LINE_EVERY
    }
}

/// `pull: 1.0 GiB of 4.0 GiB (25 %), 84.0 MiB/s, 36.6 s left, file 1 of 3`.
pub(super) fn sentence(job: &ModelJob) -> String {
    let mut parts = vec![match (total(job), share_done(job)) {
        (Some(total), Some(share)) => {
            format!("{} of {} ({:.0} %)", bytes(job.bytes_done), bytes(total), share * 100.0)
        }
        _ => bytes(job.bytes_done),
    }];
    if job.state == ModelJobState::Running {
        let speed = job.bytes_per_s.filter(|speed| *speed > 0);
        parts.extend(speed.map(|speed| format!("{}/s", bytes(speed))));
        parts.extend(time_left(job).map(|left| format!("{} left", duration(left))));
    }
    if job.files_total > 1 {
        parts.push(format!("{} of {} files", job.files_done, job.files_total));
    }
    let verb = match (job.kind, job.state) {
        (_, ModelJobState::Waiting) => "waiting for other work on the model",
        (ModelJobKind::Pull, ModelJobState::Running) => "fetching",
        (ModelJobKind::Verify, ModelJobState::Running) => "verifying",
        (ModelJobKind::Pull, ModelJobState::Done) => "fetched",
        (ModelJobKind::Verify, ModelJobState::Done) => "verified",
        (_, ModelJobState::Failed) => "failed",
        (_, ModelJobState::Canceled) => "canceled",
    };
    format!("{verb}: {}", parts.join(", "))
}

/// Share of the bytes that is there, 0 to 1.
pub(super) fn share_done(job: &ModelJob) -> Option<f64> {
    total(job).map(|total| (approximate(job.bytes_done) / approximate(total)).clamp(0.0, 1.0))
}

fn time_left(job: &ModelJob) -> Option<Duration> {
    let speed = job.bytes_per_s.filter(|speed| *speed > 0)?;
    let missing = total(job)?.saturating_sub(job.bytes_done);
    Some(Duration::from_millis((missing.max(0).saturating_mul(1000) / speed).unsigned_abs()))
}

fn total(job: &ModelJob) -> Option<i64> {
    job.bytes_total.filter(|total| *total > 0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Line, ModelJob, sentence};

    fn job(state: &str, done: i64, total: Option<i64>, speed: Option<i64>) -> ModelJob {
        let text = json!({"model_id": "m", "kind": "pull", "state": state, "bytes_done": done, "bytes_total": total,
            "bytes_per_s": speed, "files_done": 0, "files_total": if done > 5 << 30 { 3 } else { 1 }, "started_ms": 0});
        serde_json::from_value(text).expect("a job")
    }

    #[test]
    fn what_is_known_is_said() {
        for (job, expected) in [
            (
                job("running", 1 << 30, Some(4 << 30), Some(84 << 20)),
                "fetching: 1.0 GiB of 4.0 GiB (25 %), 84.0 MiB/s, 36.6 s left",
            ),
            (job("running", 6 << 30, None, Some(0)), "fetching: 6.0 GiB, 0 of 3 files"),
            (job("waiting", 0, None, None), "waiting for other work on the model: 0 B"),
            (job("done", 512, Some(512), Some(9)), "fetched: 512 B of 512 B (100 %)"),
            (job("running", 5, Some(0), Some(9)), "fetching: 5 B, 9 B/s"),
        ] {
            assert_eq!(sentence(&job), expected);
        }
    }

    #[test]
    fn a_line_for_every_tenth_and_every_change() {
        let at = |state, done| Line::of(&job(state, done, Some(100), None));
        assert!(!at("running", 11).is_outdone_by(&at("running", 19)));
        assert!(at("running", 11).is_outdone_by(&at("running", 20)));
        assert!(at("waiting", 0).is_outdone_by(&at("running", 0)));
    }
}
