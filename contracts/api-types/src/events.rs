//! `GET /v1/events`: one feed of what changes, for the page and for watchers.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::catalog::CatalogRecord;
use crate::words::wire_words;

wire_words! {
    /// Names of the feed's events.
    FeedEvent {
        /// A task was admitted, moved, began to stream or ended: a `TaskSummary`.
        Task = "task",
        /// A pool became ready or unready, began to drain or came back: a `PoolStatus`.
        Pool = "pool",
        /// A model was registered, changed or removed: a `ModelChange`.
        Model = "model",
        /// Work on a model goes on: a `ModelJob`, a few times a second at most.
        ModelJob = "model_job",
        /// The watcher was too slow and missed events: a `FeedGap`. Read the lists again.
        Gap = "gap",
    }
}

/// Which events to send.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct FeedQuery {
    /// Names of events, separated by commas; all of them unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<String>,
}

/// Payload of `model`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelChange {
    /// The model's id.
    pub model_id: String,
    /// The model as it is now; absent when it was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<CatalogRecord>,
}

/// Payload of `gap`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FeedGap {
    /// Events that were not sent.
    pub missed: u64,
}
