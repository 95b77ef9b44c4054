//! Long work on a model: begun, watched to its end, canceled by Ctrl-C.

use std::time::Duration;

use api_types::{
    Accepted, AcceptedStatus, CatalogRecord, ErrorKind, ModelChange, ModelId, ModelJob, ModelJobState, PullRequest,
    VerificationOutcome,
};
use openapi_client::{Client, ClientError, FeedFrame};
use tokio::time::MissedTickBehavior;

use super::details;
use super::progress::Progress;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::interrupts::Interrupts;
use crate::output;
use crate::show::{bytes, facts, or_dash};

/// Time between two looks at the job.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks in a row that may fail before the watching is given up: a server that is started again takes a moment.
const LOST_LOOKS: u32 = 40;
/// How long the server may take to stop the work.
const CANCEL_PATIENCE: Duration = Duration::from_secs(10);

/// What is done.
pub(super) enum Work {
    Pull(PullRequest),
    Verify,
}

impl Work {
    async fn begin(&self, client: &Client, model: &ModelId) -> Result<AcceptedStatus, ClientError> {
        match self {
            Self::Pull(request) => client.pull_model(model, request).await,
            Self::Verify => client.verify_model(model).await,
        }
    }

    /// What is left when it was canceled.
    fn leftover(&self) -> &'static str {
        match self {
            Self::Pull(_) => "what was fetched is kept, and the same command goes on from there",
            Self::Verify => "the model's record is as it was before",
        }
    }
}

/// Begins the work and, unless it is left alone, watches it to its end and shows the model.
pub(super) async fn run(
    client: &Client,
    model: &ModelId,
    work: &Work,
    detach: bool,
    json: bool,
) -> Result<Exit, Failure> {
    if detach {
        let begun = work.begin(client, model).await?;
        return detached(model, &begun, json);
    }
    let mut watch =
        Watch { client, model, work, interrupts: Interrupts::listen()?, progress: Progress::new(json), lost: 0 };
    let outcome = watch.complete().await;
    watch.progress.finish();
    match outcome? {
        Outcome::Interrupted(stopped) => {
            eprintln!("llama-orch: {stopped}");
            Ok(Exit::Canceled)
        }
        Outcome::Done => show(client, model, json).await,
    }
}

fn detached(model: &ModelId, begun: &AcceptedStatus, json: bool) -> Result<Exit, Failure> {
    if json {
        output::json(begun)?;
        return Ok(Exit::Ok);
    }
    output::write(&match begun.status {
        Accepted::Present => format!("{model} is there already\n"),
        Accepted::Started | Accepted::Accepted => {
            format!("begun; `llama-orch models show {model}` says how far it is\n")
        }
    })?;
    Ok(Exit::Ok)
}

/// The model as it is now. One that failed its verification fails the command.
async fn show(client: &Client, model: &ModelId, json: bool) -> Result<Exit, Failure> {
    let record = client.get_model(model).await?;
    let failed = failed_verification(&record);
    if json {
        let model_id = record.model.id.clone();
        output::json_line(&FeedFrame::Model(Box::new(ModelChange { model_id, model: Some(record) })))?;
    } else {
        output::write(&summary(&record))?;
    }
    failed.map_or(Ok(Exit::Ok), Err)
}

fn failed_verification(record: &CatalogRecord) -> Option<Failure> {
    let verification = record.verification.as_ref().filter(|it| it.outcome == VerificationOutcome::Fail)?;
    let what = format!("{} cannot be trusted: {}", record.model.id, verification.findings.join("; "));
    let next =
        "fetch it again with `llama-orch models pull`, or register it with `llama-orch models add` as what it is";
    Some(Failure::new(Exit::Refused, what, next))
}

fn summary(record: &CatalogRecord) -> String {
    facts(&[
        ("model", record.model.id.clone()),
        ("digest", record.model.digest.clone()),
        ("path", or_dash(record.local_path.as_ref())),
        ("size", or_dash(record.size_bytes.map(bytes))),
        ("verification", or_dash(record.verification.as_ref().map(details::verification))),
    ])
}

enum Outcome {
    /// There was nothing to do, or it is done.
    Done,
    /// By Ctrl-C; says what became of it.
    Interrupted(String),
}

struct Watch<'a> {
    client: &'a Client,
    model: &'a ModelId,
    work: &'a Work,
    interrupts: Interrupts,
    progress: Progress,
    /// Looks that failed since the last that did not.
    lost: u32,
}

impl Watch<'_> {
    async fn complete(&mut self) -> Result<Outcome, Failure> {
        let begun = tokio::select! {
            biased;
            // Whether it was begun is not known; canceling what is not there does no harm.
            () = self.interrupts.next() => return Ok(self.cancel().await),
            begun = self.work.begin(self.client, self.model) => begun?,
        };
        if begun.status == Accepted::Present {
            return Ok(Outcome::Done);
        }
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let look = async {
                looks.tick().await;
                self.client.get_model_job(self.model).await
            };
            let job = tokio::select! {
                biased;
                () = self.interrupts.next() => return Ok(self.cancel().await),
                job = look => job,
            };
            let Some(job) = self.unless_lost(job)? else { continue };
            self.progress.show(&job)?;
            if let Some(outcome) = self.ending(&job)? {
                return Ok(outcome);
            }
        }
    }

    /// A look that failed in passing is made again.
    fn unless_lost(&mut self, job: Result<ModelJob, ClientError>) -> Result<Option<ModelJob>, Failure> {
        match job {
            Ok(job) => {
                self.lost = 0;
                Ok(Some(job))
            }
            Err(error) if error.is_retriable() && self.lost < LOST_LOOKS => {
                self.lost += 1;
                Ok(None)
            }
            Err(ClientError::Refused(refusal)) if refusal.envelope.code == ErrorKind::NotFound => {
                let what = "the server does not know of the work any more; it may have been started again";
                Err(Failure::new(Exit::Failed, what, self.work.leftover()))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn ending(&self, job: &ModelJob) -> Result<Option<Outcome>, Failure> {
        match (job.state, &job.error) {
            (ModelJobState::Waiting | ModelJobState::Running, _) => Ok(None),
            (ModelJobState::Done, _) => Ok(Some(Outcome::Done)),
            (ModelJobState::Failed, Some(error)) => Err(Failure::of_job(error)
                .or_next(|| "when that is mended, the same command goes on where it stopped".to_owned())),
            (ModelJobState::Failed, None) => Err(Failure::local("it failed, and the server does not say why")),
            (ModelJobState::Canceled, _) => {
                Err(Failure::new(Exit::Canceled, "somebody else canceled it", self.work.leftover()))
            }
        }
    }

    /// Stops the work on the server. Another Ctrl-C ends the wait.
    async fn cancel(&mut self) -> Outcome {
        let canceling = tokio::time::timeout(CANCEL_PATIENCE, self.client.cancel_model_job(self.model));
        let stopped = tokio::select! {
            stopped = canceling => matches!(stopped, Ok(Ok(()))),
            () = self.interrupts.next() => false,
        };
        Outcome::Interrupted(match stopped {
            true => format!("canceled; {}", self.work.leftover()),
            false => {
                format!("left; it may go on, as `llama-orch models show {}` says, until it is canceled", self.model)
            }
        })
    }
}
