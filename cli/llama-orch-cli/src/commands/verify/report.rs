//! What the person who asked reads. Prompts and outputs go to stdout and nowhere else.

use api_types::sse::StartedFrame;
use api_types::{DeterminismLevel, PoolStatus, ProofBundle, TaskId, TaskRequest};
use openapi_client::{Event, Frame};
use serde::Serialize;

use super::compare::{Comparison, Difference, End, Output};
use crate::show::{Table, or_dash};

/// Characters shown of each text where they part, and of what is common before.
const SHOWN: usize = 60;
const COMMON: usize = 40;

/// What a task ran on. Absent is what nobody told.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Setting {
    #[serde(skip_serializing_if = "Option::is_none")]
    engine: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    engine_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampler_profile_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compute: Option<String>,
}

impl Setting {
    /// As the record has it.
    pub(super) fn then(bundle: &ProofBundle) -> Self {
        Self {
            engine: Some(bundle.engine.engine.to_string()),
            engine_version: bundle.engine.engine_version.clone(),
            sampler_profile_version: bundle.engine.sampler_profile_version.clone(),
            model_digest: bundle.model.digest.clone(),
            compute: Some(bundle.engine.compute.clone()),
        }
    }

    /// As the pool and the repetition's stream have it.
    pub(super) fn now(pool: &PoolStatus, events: &[Event]) -> Self {
        let started = events.iter().find_map(|event| match &event.frame {
            Frame::Started(started) => Some(&**started),
            _ => None,
        });
        let told = |field: fn(&StartedFrame) -> &Option<String>| started.and_then(|started| field(started).clone());
        Self {
            engine: Some(pool.engine.to_string()),
            engine_version: told(|it| &it.engine_version).or_else(|| pool.health.engine_version.clone()),
            sampler_profile_version: told(|it| &it.sampler_profile_version),
            model_digest: told(|it| &it.model_digest),
            compute: Some(pool.compute.clone()),
        }
    }

    /// Names and values, in the order they are shown.
    fn members(&self) -> [(&'static str, Option<&String>); 5] {
        [
            ("engine", self.engine.as_ref()),
            ("engine version", self.engine_version.as_ref()),
            ("sampler profile", self.sampler_profile_version.as_ref()),
            ("model digest", self.model_digest.as_ref()),
            ("compute", self.compute.as_ref()),
        ]
    }
}

/// The verdict and what it rests on.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    task_id: TaskId,
    repeated_as: TaskId,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool_id: Option<String>,
    seed: i64,
    /// Whether all that could be compared is equal, byte by byte.
    pub(super) identical: bool,
    #[serde(flatten)]
    comparison: Comparison,
    then: Setting,
    now: Setting,
    /// What weakens the verdict.
    warnings: Vec<String>,
}

impl Report {
    pub(super) fn new(
        bundle: &ProofBundle,
        repetition: &TaskRequest,
        (then, now): (Setting, Setting),
        comparison: Comparison,
    ) -> Self {
        Self {
            task_id: bundle.job_id,
            repeated_as: repetition.task_id,
            pool_id: bundle.summary.pool_id.clone(),
            seed: bundle.summary.seed,
            identical: comparison.difference.is_none(),
            warnings: warnings(bundle, &then, &now, &comparison),
            comparison,
            then,
            now,
        }
    }

    /// The report in words, with both outputs where they part.
    pub(super) fn text(&self, then: &Output, now: &Output) -> String {
        let mut text = format!(
            "task {} ran again on pool {} with seed {}, as {}\n\n",
            self.task_id,
            or_dash(self.pool_id.as_ref()),
            self.seed,
            self.repeated_as
        );
        text.push_str(&self.table(then, now));
        text.push('\n');
        text.push_str(&self.verdict(then, now));
        for warning in &self.warnings {
            text.push_str(&format!("warning: {warning}\n"));
        }
        text
    }

    fn table(&self, then: &Output, now: &Output) -> String {
        let mut table = Table::new(&["", "THEN", "NOW"]);
        for ((name, then), (_, now)) in self.then.members().into_iter().zip(self.now.members()) {
            table.row([name.to_owned(), or_dash(then), or_dash(now)]);
        }
        let tokens = |output: &Output| or_dash(output.end.map(|end| end.tokens_out));
        let reason = |output: &Output| or_dash(output.end.and_then(|end| end.finish_reason));
        table.row(["tokens".to_owned(), tokens(then), tokens(now)]);
        table.row(["ended by".to_owned(), reason(then), reason(now)]);
        table.render("")
    }

    fn verdict(&self, then: &Output, now: &Output) -> String {
        let Comparison { equal_tokens, to_the_end, difference, .. } = &self.comparison;
        match difference {
            None if *to_the_end => format!("identical: {equal_tokens} token events, byte by byte, and the end\n"),
            None => format!("identical as far as it came: {equal_tokens} token events, byte by byte\n"),
            Some(Difference::End { then, now }) => {
                format!(
                    "differs in its end, after {equal_tokens} equal token events: {} then, {} now\n",
                    end(*then),
                    end(*now)
                )
            }
            Some(Difference::Token { index, .. }) => parting(*index, then, now),
        }
    }
}

fn end(end: Option<End>) -> String {
    match end {
        Some(End { tokens_out, finish_reason }) => {
            format!("{tokens_out} tokens, ended by {}", or_dash(finish_reason))
        }
        None => "none".to_owned(),
    }
}

fn parting(index: usize, then: &Output, now: &Output) -> String {
    let shown = |output: &Output| match output.excerpt(index, SHOWN) {
        text if text.is_empty() => "nothing more".to_owned(),
        text => format!("{text:?}"),
    };
    let common = then.before(index, COMMON);
    let after = if common.is_empty() { String::new() } else { format!(", after {common:?}") };
    format!("differs at token event {index}{after}\n  then: {}\n  now:  {}\n", shown(then), shown(now))
}

/// What a reader must know before believing the verdict.
fn warnings(bundle: &ProofBundle, then: &Setting, now: &Setting, comparison: &Comparison) -> Vec<String> {
    let mut warnings = Vec::new();
    if bundle.engine.determinism == DeterminismLevel::BestEffort {
        warnings.push(
            "the pool is best_effort: it promises no equal bytes, so a difference proves nothing; `determinism = \"strict\"` \
             of a pool does"
                .to_owned(),
        );
    }
    for ((name, then), (_, now)) in then.members().into_iter().zip(now.members()) {
        if let (Some(then), Some(now)) = (then, now)
            && then != now
        {
            warnings.push(format!("the {name} is another one than then"));
        }
    }
    if comparison.from > 0 {
        let missing = comparison.from;
        warnings.push(format!("the record lacks the first {missing} token events; they were not compared"));
    }
    if !comparison.to_the_end {
        warnings.push(format!("the task ended as {}; what would have followed is not known", bundle.summary.state));
    }
    warnings
}
