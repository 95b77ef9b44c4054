//! `/v1/artifacts`: keep, list, look, download, remove.

mod range;

use std::sync::Arc;

use api_types::{Artifact, ArtifactList, ArtifactQuery, ArtifactRecord, ArtifactRef, ErrorEnvelope, ErrorKind};
use artifact_store::{Document, Entry, Key, PutError, Query};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_RANGE, CONTENT_TYPE, ETAG, HOST, IF_NONE_MATCH, LOCATION, RANGE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, uri};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;

use self::range::Asked;
use super::{body, respond};
use crate::app::App;
use crate::artifacts::{RECORDED_BY, blocking};
use crate::narrate;
use crate::page;

/// Children that a record names.
const CHILDREN: usize = 100;
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// `POST /v1/artifacts`: 201, also for a document that is kept already.
pub(super) async fn create(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    let artifact: Artifact = match body::json(body, &headers, &app.config.server).await {
        Ok(artifact) => artifact,
        Err(refusal) => return respond::error(refusal),
    };
    if artifact.metadata.contains_key(RECORDED_BY) {
        return respond::error(invalid(format!(
            "metadata.{RECORDED_BY}: only the server's own records have it; leave it out"
        )));
    }
    let kept = blocking(&app, move |app| Ok(app.artifacts.put(artifact))).await;
    match kept.and_then(|kept| kept.map_err(|error| not_kept(&error))) {
        Ok(entry) => {
            let location = format!("/v1/artifacts/{}", entry.key);
            let reference = reference(entry, base(&app, &uri, &headers).as_deref());
            (StatusCode::CREATED, [(LOCATION, location)], Json(reference)).into_response()
        }
        Err(refusal) => respond::error(refusal),
    }
}

fn not_kept(error: &PutError) -> ErrorEnvelope {
    let (kind, message) = match error {
        PutError::NoParent { parent } => {
            (ErrorKind::InvalidParams, format!("parent: no artifact {parent} is kept; GET /v1/artifacts lists them"))
        }
        PutError::Tags { .. } | PutError::Json(_) => (ErrorKind::InvalidParams, error.to_string()),
        PutError::Io(_) | PutError::Index(_) => {
            narrate::artifact_not_kept(error);
            (ErrorKind::Internal, format!("{error}; the operator must look at artifacts.dir"))
        }
    };
    ErrorEnvelope::new(kind, message)
}

/// `GET /v1/artifacts`: the newest first. What a task has left is there as soon as its stream has ended.
pub(super) async fn list(
    State(app): State<Arc<App>>,
    uri: Uri,
    headers: HeaderMap,
    query: body::Asked<ArtifactQuery>,
) -> Response {
    let query = match body::query(query).and_then(read_query) {
        Ok(query) => query,
        Err(refusal) => return respond::error(refusal),
    };
    let listed = blocking(&app, move |app| {
        app.artifacts.flush();
        app.artifacts.list(&query)
    });
    match listed.await {
        Ok(page) => {
            let base = base(&app, &uri, &headers);
            let artifacts = page.entries.into_iter().map(|entry| reference(entry, base.as_deref())).collect();
            Json(ArtifactList { artifacts, next_cursor: page.next.map(|next| format!("{next:x}")) }).into_response()
        }
        Err(refusal) => respond::error(refusal),
    }
}

fn read_query(query: ArtifactQuery) -> Result<Query, ErrorEnvelope> {
    let limit = page::length(query.limit)?;
    let parent = query.parent.map(|parent| parent.parse().map_err(|error| invalid(format!("parent: {error}"))));
    let cursor = query.cursor.map(|cursor| i64::from_str_radix(&cursor, 16));
    let before = cursor.transpose().map_err(|_| {
        invalid("`cursor` is the `next_cursor` of an earlier page, unchanged; leave it out to begin anew".to_owned())
    })?;
    Ok(Query { kind: query.kind, tag: query.tag, parent: parent.transpose()?, before, limit })
}

/// `GET /v1/artifacts/{id}`.
pub(super) async fn get(State(app): State<Arc<App>>, Path(id): Path<String>, uri: Uri, headers: HeaderMap) -> Response {
    let found = find(&app, &id, |app, document| {
        let lineage = app.artifacts.lineage(&document.entry, CHILDREN)?;
        Ok((document, lineage))
    });
    let found = found.await.and_then(|(document, lineage)| {
        let artifact = document.artifact().map_err(|error| newer(&id, &error))?;
        Ok(ArtifactRecord {
            reference: reference(document.entry, base(&app, &uri, &headers).as_deref()),
            content: artifact.content,
            metadata: artifact.metadata,
            parent: artifact.parent,
            ancestors: lineage.ancestors.iter().map(Key::to_string).collect(),
            children: lineage.children.iter().map(Key::to_string).collect(),
        })
    });
    match found {
        Ok(record) => Json(record).into_response(),
        Err(refusal) => respond::error(refusal),
    }
}

/// `GET /v1/artifacts/{id}/download`: the canonical JSON, whole or a range of it.
pub(super) async fn download(State(app): State<Arc<App>>, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match find(&app, &id, |_, document| Ok(document)).await {
        Ok(document) => send(&document, &headers),
        Err(refusal) => respond::error(refusal),
    }
}

/// What is under a digest never changes, so whoever has it need not get it again.
fn send(document: &Document, headers: &HeaderMap) -> Response {
    let etag = format!("\"{}\"", document.entry.key.digest());
    let common = [
        (ETAG, HeaderValue::from_str(&etag).expect("a digest is visible ASCII")),
        (ACCEPT_RANGES, HeaderValue::from_static("bytes")),
        (CACHE_CONTROL, HeaderValue::from_static("private, no-cache")),
    ];
    if range::names(headers.get(IF_NONE_MATCH), &etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let json = &document.json;
    let part = |status, kind, bytes: Bytes| (status, common.clone(), [(CONTENT_TYPE, kind)], bytes).into_response();
    match Asked::of(headers, &etag, json.len()) {
        Asked::All => part(StatusCode::OK, "application/json", json.clone()),
        Asked::Part(range) => {
            let content_range = format!("bytes {}-{}/{}", range.start, range.end - 1, json.len());
            let partial = part(StatusCode::PARTIAL_CONTENT, "application/octet-stream", json.slice(range));
            ([(CONTENT_RANGE, content_range)], partial).into_response()
        }
        Asked::Nothing => {
            let message = format!("the artifact has {} bytes; ask for a {RANGE} within them", json.len());
            let refusal = Json(ErrorEnvelope::new(ErrorKind::InvalidParams, message));
            let content_range = [(CONTENT_RANGE, format!("bytes */{}", json.len()))];
            (StatusCode::RANGE_NOT_SATISFIABLE, content_range, refusal).into_response()
        }
    }
}

/// `DELETE /v1/artifacts/{id}`.
pub(super) async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let removed = match id.parse::<Key>() {
        Ok(key) => blocking(&app, move |app| app.artifacts.remove(key)).await,
        Err(_) => Ok(false),
    };
    match removed {
        Ok(true) => StatusCode::NO_CONTENT.into_response(),
        Ok(false) => respond::error(unknown(&id)),
        Err(refusal) => respond::error(refusal),
    }
}

/// Reads an artifact, and what else `more` asks for.
async fn find<T: Send + 'static>(
    app: &Arc<App>,
    id: &str,
    more: impl FnOnce(&App, Document) -> Result<T, artifact_store::ReadError> + Send + 'static,
) -> Result<T, ErrorEnvelope> {
    let key: Key = id.parse().map_err(|_| unknown(id))?;
    let found = blocking(app, move |app| {
        let document = app.artifacts.get(key)?;
        document.map(|document| more(app, document)).transpose()
    });
    found.await?.ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ErrorEnvelope {
    let message =
        format!("no artifact {id} is kept; it never was, or it was removed. GET /v1/artifacts lists those that are");
    ErrorEnvelope::new(ErrorKind::NotFound, message)
}

fn newer(id: &str, error: &serde_json::Error) -> ErrorEnvelope {
    // The error's own text could hold a piece of the document.
    let column = error.column();
    let message = format!("artifact {id} was written by a newer version (column {column}); download it as it is");
    ErrorEnvelope::new(ErrorKind::Internal, message)
}

fn invalid(message: String) -> ErrorEnvelope {
    ErrorEnvelope::new(ErrorKind::InvalidParams, message)
}

fn reference(entry: Entry, base: Option<&str>) -> ArtifactRef {
    ArtifactRef {
        id: entry.key.to_string(),
        kind: entry.kind,
        digest: entry.key.digest(),
        created_ms: entry.created_ms,
        tags: entry.tags,
        download_url: base.map(|base| format!("{base}/v1/artifacts/{}/download", entry.key)),
    }
}

/// Where the caller has reached us, so that its links lead back here (HME-022).
fn base(app: &App, uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let server = &app.config.server;
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()?.parse::<uri::Authority>().ok());
    let host = host.or_else(|| uri.authority().cloned())?;
    let forwarded = headers.get(FORWARDED_PROTO).filter(|_| server.trust_proxy_auth);
    let scheme = match forwarded.map(HeaderValue::as_bytes) {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ if server.tls_cert.is_some() => "https",
        _ => "http",
    };
    Some(format!("{scheme}://{host}"))
}
