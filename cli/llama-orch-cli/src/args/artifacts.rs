//! The command line of `artifacts`.

use std::path::PathBuf;

use api_types::{ArtifactId, ArtifactKind, SessionId, TaskId};
use clap::Subcommand;

use super::words;

/// What to do with kept documents.
#[derive(Debug, Subcommand)]
pub(crate) enum ArtifactsCommand {
    /// List artifacts, newest first.
    List(ListArtifactsArgs),
    /// Print an artifact's document, byte for byte what its id is the digest of.
    Get(GetArgs),
    /// Show what an artifact is: kind, tags, where it comes from, facts about it.
    Show {
        /// The artifact.
        #[arg(value_parser = parse_artifact)]
        id: ArtifactId,
    },
    /// Keep a document and print its id. Equal documents have one id.
    Put(PutArgs),
    /// Remove an artifact, such as one with a prompt that must not be kept.
    Rm {
        /// The artifact.
        #[arg(value_parser = parse_artifact)]
        id: ArtifactId,
    },
}

/// Options of `artifacts list`.
#[derive(Debug, clap::Args)]
pub(crate) struct ListArtifactsArgs {
    /// Only artifacts of this kind.
    #[arg(long, value_parser = words(ArtifactKind::ALL, ArtifactKind::as_str))]
    pub(crate) kind: Option<ArtifactKind>,

    /// Only artifacts with this tag.
    #[arg(long, conflicts_with_all = ["task", "session"])]
    pub(crate) tag: Option<String>,

    /// Only what this task left.
    #[arg(long, value_name = "ID", conflicts_with = "session")]
    pub(crate) task: Option<TaskId>,

    /// Only what tasks of this session left.
    #[arg(long, value_name = "ID")]
    pub(crate) session: Option<SessionId>,

    /// Only artifacts made from this one.
    #[arg(long, value_name = "ID", value_parser = parse_artifact)]
    pub(crate) parent: Option<ArtifactId>,

    /// Most artifacts to list.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: u32,
}

/// Options of `artifacts get`.
#[derive(Debug, clap::Args)]
pub(crate) struct GetArgs {
    /// The artifact.
    #[arg(value_parser = parse_artifact, required_unless_present = "task")]
    pub(crate) id: Option<ArtifactId>,

    /// The record that this task left, the newest one.
    #[arg(long, value_name = "ID", conflicts_with = "id")]
    pub(crate) task: Option<TaskId>,

    /// Write it to a file instead of stdout.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Only the stream of a task's record, as clients got it; with --json one object per event.
    #[arg(long)]
    pub(crate) transcript: bool,
}

/// Options of `artifacts put`.
#[derive(Debug, clap::Args)]
pub(crate) struct PutArgs {
    /// A file with a JSON object; `-` is stdin.
    pub(crate) file: PathBuf,

    /// What it holds.
    #[arg(long, value_parser = words(ArtifactKind::ALL, ArtifactKind::as_str))]
    pub(crate) kind: ArtifactKind,

    /// A label; may be given several times.
    #[arg(long)]
    pub(crate) tag: Vec<String>,

    /// The artifact it was made from.
    #[arg(long, value_name = "ID", value_parser = parse_artifact)]
    pub(crate) parent: Option<ArtifactId>,
}

/// A digest names its artifact too.
fn parse_artifact(text: &str) -> Result<ArtifactId, String> {
    match text.strip_prefix("sha256:").unwrap_or(text) {
        "" => Err("an artifact's id is 64 hex digits; `llama-orch artifacts list` shows them".to_owned()),
        id => Ok(id.into()),
    }
}
