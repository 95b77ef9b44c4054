//! The record that every task leaves (ORCH-3350, ORCH-3352, LO-ART-03), and what is read back from it.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context as _;
use api_types::TaskId;
use api_types::{Artifact, ArtifactKind, BundleEngine, BundleModel, ErrorEnvelope, ErrorKind, OutputMode, ProofBundle};
use artifact_store::{ArtifactStore, Limits, Query, ReadError};
use config_schema::{ArtifactBackend, ArtifactTasks, Config};
use orchestrator_core::guard;
use serde_json::{Value, json};
use transcript::Kept;

use crate::app::App;
use crate::clock::Clock;
use crate::narrate;
use crate::task::{CancelReason, Ending, Task};

/// Memory that a record takes beside its transcript and its prompt, roughly.
const RECORD_BYTES: usize = 2048;
/// The metadata that tells the daemon's own records from what clients keep, who may not set it.
pub const RECORDED_BY: &str = "recorded_by";
/// Records of one task that are looked at; an id that is used again has several.
const RECORDS_OF_A_TASK: usize = 8;

/// Opens the store that the configuration names.
///
/// # Errors
/// Whatever keeps it from opening.
pub fn open(config: &Config, clock: &Clock) -> anyhow::Result<ArtifactStore> {
    let settings = &config.artifacts;
    let limits = Limits { max_age: settings.retain(), max_bytes: Some(settings.max_bytes).filter(|bytes| *bytes > 0) };
    let now_ms = clock.unix_ms(0);
    let opened = match settings.backend {
        ArtifactBackend::Memory => ArtifactStore::in_memory(limits, now_ms),
        ArtifactBackend::Fs => {
            let dir = settings.dir.clone().unwrap_or_else(|| config.server.data_dir.join("artifacts"));
            ArtifactStore::open(&dir, limits, now_ms)
        }
    };
    opened.context("cannot open the artifacts (artifacts.dir)")
}

/// Hands the record of a task that has just ended to the store, which makes and writes it on a thread of its own.
pub fn record(app: &Arc<App>, task: &Arc<Task>, ending: &Ending) {
    if !is_recorded(app.config.artifacts.tasks, ending) {
        return;
    }
    let bytes = RECORD_BYTES
        + task.transcript().size()
        + usize::try_from(guard::input_bytes(task.request())).unwrap_or(usize::MAX);
    let (app_then, task) = (Arc::clone(app), Arc::clone(task));
    app.artifacts.put_later(bytes, move || artifact(&app_then, &task));
}

fn is_recorded(tasks: ArtifactTasks, ending: &Ending) -> bool {
    match (tasks, ending) {
        // Its client was told that it was not taken.
        (_, Ending::Canceled { why: CancelReason::NotJournaled }) | (ArtifactTasks::Off, _) => false,
        (ArtifactTasks::Failed, Ending::Completed { .. }) => false,
        (ArtifactTasks::All | ArtifactTasks::Failed, _) => true,
    }
}

fn artifact(app: &App, task: &Task) -> Artifact {
    let bundle = bundle(app, task);
    let summary = &bundle.summary;
    let mut tags = vec![
        "sse".to_owned(),
        "stream".to_owned(),
        format!("task:{}", bundle.job_id),
        format!("session:{}", bundle.session_id),
        format!("model:{}", summary.model_ref),
    ];
    tags.extend(bundle.request.output_mode.and_then(mode).map(|mode| format!("output:{mode}")));
    let facts = [
        ("engine", json!(summary.engine)),
        ("engine_version", json!(summary.engine_version)),
        ("pool_id", json!(summary.pool_id)),
        ("replica_id", json!(summary.replica_id)),
        ("state", json!(summary.state)),
        ("created", json!(summary.ended_at_ms)),
        (RECORDED_BY, json!("orchestratord")),
    ];
    let metadata = facts.into_iter().filter(|(_, fact)| !fact.is_null()).map(|(name, fact)| (name.to_owned(), fact));
    let metadata: BTreeMap<_, _> = metadata.collect();
    let Ok(Value::Object(content)) = serde_json::to_value(bundle) else { unreachable!("a bundle is a JSON object") };
    Artifact { kind: ArtifactKind::Trace, content, tags, parent: None, metadata }
}

fn bundle(app: &App, task: &Task) -> ProofBundle {
    let summary = task.summary(&app.clock, None);
    let pool = app.pools.scheduled(&task.pool_id());
    let replica = task.replica_id().map_or_else(|| Arc::clone(pool.first()), |id| Arc::clone(pool.scheduled(&id)));
    let kept = task.transcript().kept();
    let retriable = |error: ErrorEnvelope| ErrorEnvelope {
        retriable: error.retriable.or_else(|| Some(error.code.retriable())),
        ..error
    };
    ProofBundle {
        job_id: task.id(),
        session_id: task.session_id(),
        request: task.request().as_ref().clone(),
        model: BundleModel {
            model_ref: summary.model_ref.clone(),
            digest: app.model_digest(pool, &replica),
            verification: app.models.standing(&pool.served().id).verification,
        },
        engine: BundleEngine {
            engine: summary.engine,
            engine_version: summary.engine_version.clone(),
            sampler_profile_version: pool.sampler_profile_version.clone(),
            provisioning: pool.config.mode().to_string(),
            compute: pool.compute(),
            determinism: pool.config.determinism(),
            ctx: pool.props().and_then(|props| i32::try_from(props.ctx_max?).ok()),
        },
        transcript: String::from_utf8_lossy(&kept.frames).into_owned(),
        truncated: kept.is_trimmed,
        error: summary.error.clone().map(retriable),
        summary,
    }
}

/// The word of an output mode that is known.
fn mode(mode: OutputMode) -> Option<&'static str> {
    match mode {
        OutputMode::Text => Some("text"),
        OutputMode::Json => Some("json"),
        OutputMode::Edits => Some("edits"),
        OutputMode::Other => None,
    }
}

/// The stream of a task that has ended, as its record has it; `None` without a record.
///
/// # Errors
/// `INTERNAL` when the records cannot be read, or the task's was damaged.
pub async fn stream(app: &Arc<App>, id: TaskId) -> Result<Option<Kept>, ErrorEnvelope> {
    blocking(app, move |app| {
        app.artifacts.flush();
        let query = Query {
            kind: Some(ArtifactKind::Trace),
            tag: Some(format!("task:{id}")),
            limit: RECORDS_OF_A_TASK,
            ..Query::default()
        };
        for entry in app.artifacts.list(&query)?.entries {
            let Some(document) = app.artifacts.get(entry.key)? else { continue };
            // Anybody may keep a document with such a tag.
            let ours = document.artifact().ok().filter(|artifact| artifact.metadata.contains_key(RECORDED_BY));
            let content = ours.map(|artifact| Value::Object(artifact.content));
            let bundle = content.and_then(|content| serde_json::from_value::<ProofBundle>(content).ok());
            if let Some(bundle) = bundle.filter(|bundle| bundle.job_id == id) {
                return Ok(Some(Kept { frames: bundle.transcript.into(), is_trimmed: bundle.truncated }));
            }
        }
        Ok(None)
    })
    .await
}

/// Asks the store, which waits for the disk.
///
/// # Errors
/// What went wrong, for the log and for the caller.
pub async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    ask: impl FnOnce(&App) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, ErrorEnvelope> {
    let app = Arc::clone(app);
    let asked = tokio::task::spawn_blocking(move || ask(&app)).await;
    let answer = asked.map_err(|_| ErrorEnvelope::new(ErrorKind::Internal, "reading artifacts ended in a panic"))?;
    answer.map_err(|error| {
        narrate::artifact_unreadable(&error);
        unreadable(&error)
    })
}

fn unreadable(error: &ReadError) -> ErrorEnvelope {
    let next = match error {
        ReadError::Damaged { .. } | ReadError::Lost { .. } => "it is not kept any more; keep it anew if you have it",
        ReadError::Io { .. } | ReadError::Index(_) => "the operator must look at artifacts.dir",
    };
    ErrorEnvelope::new(ErrorKind::Internal, format!("{error}; {next}"))
}
