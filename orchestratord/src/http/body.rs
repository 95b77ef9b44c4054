//! Reading request bodies and path parameters, with errors that say what is wrong.

use std::str::FromStr;

use api_types::strict::{StrictError, from_json};
use api_types::{ErrorEnvelope, ErrorKind};
use axum::body::{Body, HttpBody as _};
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, CONTENT_LENGTH, EXPECT, HeaderName};
use bytes::{Bytes, BytesMut};
use config_schema::Server as Settings;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

/// How many times the limit of a body that is too large is read before the connection is closed on the client.
const DRAIN_FACTOR: usize = 8;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Reads a JSON body strictly.
///
/// # Errors
/// `INVALID_PARAMS` for a body that is over the limit, does not arrive in time or does not fit the type.
pub(super) async fn json<T: DeserializeOwned>(
    body: Body,
    headers: &HeaderMap,
    settings: &Settings,
) -> Result<T, ErrorEnvelope> {
    let reading = read(body, headers, settings.max_body_bytes.get());
    let bytes = tokio::time::timeout(settings.body_timeout(), reading).await.map_err(|_| too_slow(settings))??;
    from_json(&bytes).map_err(|error| unfit(&error))
}

/// Reads a JSON body strictly; none at all is the type's default.
///
/// # Errors
/// As [`json`].
pub(super) async fn optional_json<T: DeserializeOwned + Default>(
    body: Body,
    headers: &HeaderMap,
    settings: &Settings,
) -> Result<T, ErrorEnvelope> {
    if body.is_end_stream() { Ok(T::default()) } else { json(body, headers, settings).await }
}

/// A query as axum has read it.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

/// The query, if it is one.
///
/// # Errors
/// `INVALID_PARAMS` naming what does not fit.
pub(super) fn query<T>(asked: Asked<T>) -> Result<T, ErrorEnvelope> {
    let unfit = |rejection: QueryRejection| {
        let message = format!("{}; GET /v1/openapi.json lists the query's parameters", rejection.body_text());
        ErrorEnvelope::new(ErrorKind::InvalidParams, message)
    };
    asked.map(|Query(query)| query).map_err(unfit)
}

async fn read(mut body: Body, headers: &HeaderMap, limit: usize) -> Result<BytesMut, ErrorEnvelope> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|length| length > limit) {
        if !headers.contains_key(EXPECT) {
            drain(body, limit).await;
        }
        return Err(too_large(limit));
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let cut = |_| ErrorEnvelope::new(ErrorKind::InvalidParams, "the body was cut off; send it again");
        let frame = frame.map_err(cut)?;
        bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..]));
        if bytes.len() > limit {
            drain(body, limit).await;
            return Err(too_large(limit));
        }
    }
    Ok(bytes)
}

/// Reads on for a while and throws it away: a client that is still sending would otherwise see a broken connection instead
/// of the answer.
async fn drain(mut body: Body, limit: usize) {
    let mut left = limit.saturating_mul(DRAIN_FACTOR);
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// Parses an id from the path.
///
/// # Errors
/// `INVALID_PARAMS` naming what was expected.
pub(super) fn id<T: FromStr>(text: &str, what: &str) -> Result<T, ErrorEnvelope> {
    text.parse()
        .map_err(|_| ErrorEnvelope::new(ErrorKind::InvalidParams, format!("a {what} id is a UUID; check the path")))
}

/// Whether the client wants the stream as the answer.
pub(super) fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| range.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream")))
}

/// The last event a client has seen. An empty value is what browsers send before the first event.
///
/// # Errors
/// `INVALID_PARAMS` for anything but a number.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<u32>, ErrorEnvelope> {
    match headers.get(LAST_EVENT_ID).map(|value| value.to_str().unwrap_or("?").trim()) {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            ErrorEnvelope::new(
                ErrorKind::InvalidParams,
                "Last-Event-ID is the `id:` of the last event seen, a number; leave it out to read from the start",
            )
        }),
    }
}

fn too_large(limit: usize) -> ErrorEnvelope {
    let message = format!(
        "the body is larger than {limit} bytes; shorten it, or ask the operator to raise server.max_body_bytes"
    );
    ErrorEnvelope::new(ErrorKind::InvalidParams, message)
}

fn too_slow(settings: &Settings) -> ErrorEnvelope {
    let message = format!(
        "the body did not arrive within {} ms; send it at once, or ask the operator to raise server.body_timeout_ms",
        settings.body_timeout_ms
    );
    ErrorEnvelope::new(ErrorKind::InvalidParams, message)
}

/// A body that does not fit its type.
pub(super) fn unfit(error: &StrictError) -> ErrorEnvelope {
    ErrorEnvelope::new(ErrorKind::InvalidParams, format!("{error}; GET /v1/openapi.json describes the body"))
}
