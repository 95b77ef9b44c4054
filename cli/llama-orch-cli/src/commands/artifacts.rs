//! `artifacts`: documents that are kept.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use api_types::{Artifact, ArtifactId, ArtifactList, ArtifactQuery, ArtifactRecord, ArtifactRef};
use openapi_client::{Client, kept_events};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use super::{bundle, pages};
use crate::args::{ArtifactsCommand, GetArgs, ListArtifactsArgs, PutArgs};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;
use crate::show::{Table, facts, since};

/// Carries out one of the commands.
pub(crate) async fn artifacts(client: &Client, command: ArtifactsCommand, json: bool) -> Result<Exit, Failure> {
    match command {
        ArtifactsCommand::List(args) => list(client, args, json).await,
        ArtifactsCommand::Get(args) => get(client, args, json).await,
        ArtifactsCommand::Show { id } => show(client, &id, json).await,
        ArtifactsCommand::Put(args) => put(client, args, json).await,
        ArtifactsCommand::Rm { id } => {
            client.delete_artifact(&id).await?;
            Ok(Exit::Ok)
        }
    }
}

async fn list(client: &Client, args: ListArtifactsArgs, json: bool) -> Result<Exit, Failure> {
    let of_task = args.task.map(bundle::tag_of);
    let of_session = args.session.map(|session| format!("session:{session}"));
    let mut query = ArtifactQuery {
        kind: args.kind,
        tag: args.tag.or(of_task).or(of_session),
        parent: args.parent.map(|id| id.to_string()),
        limit: None,
        cursor: None,
    };
    let nothing = match query == ArtifactQuery::default() {
        true => "no artifacts yet; every task leaves one, and `llama-orch artifacts put` keeps others",
        false => "no artifact passes these filters",
    };
    let (artifacts, next_cursor) = pages::gather(args.limit, async |limit, cursor| {
        (query.limit, query.cursor) = (Some(limit), cursor);
        let page = client.list_artifacts(&query).await?;
        Ok((page.artifacts, page.next_cursor))
    })
    .await?;
    if json {
        output::json(&ArtifactList { artifacts, next_cursor })?;
        return Ok(Exit::Ok);
    }
    output::write(&table(&artifacts, nothing))?;
    pages::tell_of_more(next_cursor.as_ref());
    Ok(Exit::Ok)
}

fn table(artifacts: &[ArtifactRef], nothing: &str) -> String {
    let mut table = Table::new(&["ARTIFACT", "KIND", "AGE", "TAGS"]);
    for artifact in artifacts {
        let tags = artifact.tags.join(",");
        table.row([artifact.id.clone(), artifact.kind.to_string(), since(artifact.created_ms), tags]);
    }
    table.render(nothing)
}

async fn get(client: &Client, args: GetArgs, json: bool) -> Result<Exit, Failure> {
    let id = match (args.id, args.task) {
        (Some(id), _) => id,
        (None, Some(task)) => bundle::find(client, task).await?.id.into(),
        (None, None) => return Err(Failure::usage("no artifact is named", "give its id, or --task")),
    };
    let mut to = Destination::open(args.output)?;
    if args.transcript {
        to.write(transcript(client, &id, json).await?.as_bytes())?;
    } else {
        let mut document = client.download_artifact(&id).await?;
        while let Some(piece) = document.next().await? {
            to.write(&piece)?;
        }
    }
    to.finish()?;
    Ok(Exit::Ok)
}

async fn transcript(client: &Client, id: &ArtifactId, json: bool) -> Result<String, Failure> {
    let transcript = bundle::read(client, id).await?.transcript;
    if !json {
        return Ok(transcript);
    }
    let events = kept_events(&transcript).map_err(|error| Failure::local(error.to_string()))?;
    let lines = events.iter().map(|event| serde_json::to_string(event).map(|line| line + "\n"));
    lines.collect::<Result<_, _>>().map_err(|error| Failure::local(format!("cannot write the events as JSON: {error}")))
}

async fn show(client: &Client, id: &ArtifactId, json: bool) -> Result<Exit, Failure> {
    let record = client.get_artifact(id).await?;
    if json {
        output::json(&record)?;
    } else {
        output::write(&details(&record))?;
    }
    Ok(Exit::Ok)
}

/// What it is; its content is what `get` is for.
fn details(record: &ArtifactRecord) -> String {
    let ArtifactRecord { reference, content, metadata, parent, ancestors, children } = record;
    let mut pairs = vec![
        ("artifact", reference.id.clone()),
        ("kind", reference.kind.to_string()),
        ("digest", reference.digest.clone()),
        ("kept", format!("{} ago", since(reference.created_ms))),
        ("members", content.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
    ];
    let mut add = |name, values: &[String], separator| {
        if !values.is_empty() {
            pairs.push((name, values.join(separator)));
        }
    };
    add("tags", &reference.tags, ", ");
    add("parent", parent.as_slice(), "");
    add("ancestors", ancestors, " < ");
    add("children", children, ", ");
    let known: Vec<String> = metadata.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect();
    add("metadata", &known, ", ");
    facts(&pairs)
}

/// A text without its quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

async fn put(client: &Client, args: PutArgs, json: bool) -> Result<Exit, Failure> {
    let artifact = Artifact {
        kind: args.kind,
        content: content(&args.file)?,
        tags: args.tag,
        parent: args.parent.map(|id| id.to_string()),
        metadata: std::collections::BTreeMap::new(),
    };
    let kept = client.create_artifact(&artifact).await?;
    if json {
        output::json(&kept)?;
    } else {
        output::write(&format!("{}\n", kept.id))?;
    }
    Ok(Exit::Ok)
}

fn content(file: &Path) -> Result<Map<String, Value>, Failure> {
    let (name, bytes) = match file == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            ("stdin".to_owned(), std::io::stdin().read_to_end(&mut bytes).map(|_| bytes))
        }
        false => (file.display().to_string(), std::fs::read(file)),
    };
    let bytes = bytes.map_err(|error| {
        Failure::usage(format!("cannot read {name}: {error}"), "name a readable file, or `-` for stdin")
    })?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let what = format!("{name} holds no JSON object (line {line}, column {column})");
        Failure::usage(what, "an artifact's content is a JSON object: `{\"text\": …}` will do for a text")
    })
}

/// Where a document goes: to stdout, or to a file that is there when all of it is.
enum Destination {
    Stdout,
    File { unfinished: NamedTempFile, path: PathBuf },
}

impl Destination {
    fn open(path: Option<PathBuf>) -> Result<Self, Failure> {
        let Some(path) = path.filter(|path| path != Path::new("-")) else { return Ok(Self::Stdout) };
        let folder = match path.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        let unfinished = NamedTempFile::new_in(folder).map_err(|error| unwritable(&path, &error))?;
        Ok(Self::File { unfinished, path })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => output::write_bytes(bytes),
            Self::File { unfinished, path } => unfinished.write_all(bytes).map_err(|error| unwritable(path, &error)),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self {
            Self::Stdout => Ok(()),
            Self::File { unfinished, path } => {
                unfinished.persist(&path).map(drop).map_err(|error| unwritable(&path, &error.error))
            }
        }
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(
        format!("cannot write {}: {error}", path.display()),
        "name a file in a folder that can be written to",
    )
}
