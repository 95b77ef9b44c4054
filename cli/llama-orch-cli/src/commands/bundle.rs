//! The record that a task leaves.

use api_types::{
    ArtifactId, ArtifactKind, ArtifactQuery, ArtifactRef, ErrorKind, ProofBundle, TaskId, TaskState, TaskSummary,
};
use openapi_client::{Client, ClientError};
use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Failure;

/// Tag of every artifact that a task leaves.
pub(super) fn tag_of(task: TaskId) -> String {
    format!("task:{task}")
}

/// The newest record of a task.
pub(super) async fn find(client: &Client, task: TaskId) -> Result<ArtifactRef, Failure> {
    let query = ArtifactQuery { kind: Some(ArtifactKind::Trace), tag: Some(tag_of(task)), ..ArtifactQuery::default() };
    let list = client.list_artifacts(&query).await?;
    // Others may tag what they keep with a task too.
    match list.artifacts.into_iter().find(|artifact| artifact.tags.iter().any(|tag| tag == "stream")) {
        Some(artifact) => Ok(artifact),
        None => Err(missing(client, task).await?),
    }
}

/// A record's content.
pub(super) async fn read(client: &Client, id: &ArtifactId) -> Result<ProofBundle, Failure> {
    let record = client.get_artifact(id).await?;
    serde_json::from_value(Value::Object(record.content)).map_err(|error| {
        // The error's text could quote the prompt.
        let what = format!("artifact {id} is no task's record that this version can read ({:?})", error.classify());
        Failure::new(Exit::Refused, what, "`llama-orch artifacts show ID` says what it is")
    })
}

async fn missing(client: &Client, task: TaskId) -> Result<Failure, Failure> {
    let known = match client.get_task(task).await {
        Ok(summary) => Some(summary),
        Err(ClientError::Refused(refusal)) if refusal.envelope.code == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    Ok(match known {
        Some(summary) if !has_ended(&summary) => {
            let what = format!("task {task} is {}; its record comes with its end", summary.state);
            Failure::new(Exit::TryLater, what, "ask again when it has ended")
        }
        _ => Failure::new(
            Exit::Refused,
            format!("NOT_FOUND: no record of task {task} is kept"),
            "[artifacts] of the server's configuration says which tasks leave one (`tasks`), and how long and how much is \
             kept (`retain_days`, `max_bytes`)",
        ),
    })
}

fn has_ended(task: &TaskSummary) -> bool {
    !matches!(task.state, TaskState::Queued | TaskState::Dispatched | TaskState::Streaming)
}
