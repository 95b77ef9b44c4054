//! `/v1/catalog`: models.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_types::{
    Accepted, AcceptedStatus, CatalogModel, CatalogQuery, CatalogStateChange, ErrorEnvelope, ErrorKind, FitQuery,
    GcRequest, PullRequest, TrustMode,
};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::body::{self, Asked};
use super::respond;
use crate::app::App;
use crate::models::model_id;

const TRUST_POLICY: HeaderName = HeaderName::from_static("x-trust-policy");

/// `POST /v1/catalog/models`.
pub(super) async fn create(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    respond::result(register(&app, &headers, body).await)
}

async fn register(app: &Arc<App>, headers: &HeaderMap, body: Body) -> Result<Response, ErrorEnvelope> {
    let asked = trust_asked(headers)?;
    let model: CatalogModel = body::json(body, headers, &app.config.server).await?;
    let record = app.register_model(model, asked).await?;
    Ok((StatusCode::CREATED, Json(record)).into_response())
}

fn trust_asked(headers: &HeaderMap) -> Result<Option<TrustMode>, ErrorEnvelope> {
    let Some(value) = headers.get(TRUST_POLICY) else { return Ok(None) };
    let word = value.to_str().unwrap_or("?").trim();
    let found = TrustMode::ALL.iter().find(|mode| mode.as_str().eq_ignore_ascii_case(word));
    found.copied().map(Some).ok_or_else(|| {
        ErrorEnvelope::new(
            ErrorKind::InvalidParams,
            "X-Trust-Policy is `strict` or `permissive`; leave it out otherwise",
        )
    })
}

/// `GET /v1/catalog/models`.
pub(super) async fn list(State(app): State<Arc<App>>, headers: HeaderMap, query: Asked<CatalogQuery>) -> Response {
    let listed = match body::query(query) {
        Ok(query) => app.models_page(query).await,
        Err(refusal) => Err(refusal),
    };
    conditional(&app, &headers, listed).await
}

/// `GET /v1/catalog/models/{id}`.
pub(super) async fn get(State(app): State<Arc<App>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    conditional(&app, &headers, app.model(&model_id(&id)).await).await
}

/// An answer that is not sent again to somebody who has it (ORCH-3470).
async fn conditional<Answer: Serialize>(
    app: &App,
    headers: &HeaderMap,
    answer: Result<Answer, ErrorEnvelope>,
) -> Response {
    let answer = match answer {
        Ok(answer) => answer,
        Err(refusal) => return respond::error(refusal),
    };
    let bytes = serde_json::to_vec(&answer).expect("the contract's types have string keys only and serialize");
    let etag = HeaderValue::from_str(&format!("\"{}\"", &catalog_core::Digest::of(&bytes).hex()[..32]));
    let etag = etag.expect("hex digits are fit for a header");
    let modified = app.models.changed_at();
    let since = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let unchanged = match (since(IF_NONE_MATCH), since(IF_MODIFIED_SINCE)) {
        (Some(known), _) => {
            known.split(',').any(|known| known.trim().trim_start_matches("W/") == etag || known.trim() == "*")
        }
        (None, Some(date)) => httpdate::parse_http_date(date).is_ok_and(|date| unchanged_since(modified, date)),
        (None, None) => false,
    };
    let date = HeaderValue::from_str(&httpdate::fmt_http_date(modified)).expect("a date is fit for a header");
    let validators = [(ETAG, etag), (LAST_MODIFIED, date)];
    if unchanged {
        return (StatusCode::NOT_MODIFIED, validators).into_response();
    }
    (validators, Json(answer)).into_response()
}

/// HTTP's times have whole seconds: what changed within the present one may change again within it.
fn unchanged_since(modified: SystemTime, date: SystemTime) -> bool {
    let second = Duration::from_secs(1);
    modified < date + second && modified.elapsed().is_ok_and(|age| age > second)
}

/// `DELETE /v1/catalog/models/{id}`.
pub(super) async fn delete(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let forgotten = app.forget_model(&model_id(&id)).await;
    respond::result(forgotten.map(|()| StatusCode::NO_CONTENT.into_response()))
}

/// `POST /v1/catalog/models/{id}/verify`.
pub(super) async fn verify(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    let started = app.verify_model(&model_id(&id)).await;
    respond::result(started.map(|()| accepted(Accepted::Started)))
}

/// `POST /v1/catalog/models/{id}/state`.
pub(super) async fn set_state(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let changed = async {
        let change: CatalogStateChange = body::json(body, &headers, &app.config.server).await?;
        app.set_model_state(&model_id(&id), &change).await
    };
    respond::result(changed.await.map(|()| accepted(Accepted::Accepted)))
}

/// `POST /v1/catalog/models/{id}/pull`.
pub(super) async fn pull(
    State(app): State<Arc<App>>,
    Path(reference): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let started = async {
        let request: PullRequest = body::optional_json(body, &headers, &app.config.server).await?;
        app.pull_model(&reference, &request).await
    };
    respond::result(started.await.map(accepted))
}

/// `GET /v1/catalog/models/{id}/job`.
pub(super) async fn job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    match app.models.job(&model_id(&id)) {
        Some(job) => Json(job.view()).into_response(),
        None => respond::failure(ErrorKind::NotFound, "no work on this model was asked for since the server started"),
    }
}

/// `DELETE /v1/catalog/models/{id}/job`: 204 when it has stopped.
pub(super) async fn cancel_job(State(app): State<Arc<App>>, Path(id): Path<String>) -> Response {
    if let Some(job) = app.models.job(&model_id(&id)) {
        job.cancel.cancel();
        job.ended().await;
    }
    StatusCode::NO_CONTENT.into_response()
}

/// `GET /v1/catalog/fit`.
pub(super) async fn fit(State(app): State<Arc<App>>, query: Asked<FitQuery>) -> Response {
    let report = match body::query(query) {
        Ok(query) => app.fit(query).await,
        Err(refusal) => Err(refusal),
    };
    respond::result(report.map(|report| Json(report).into_response()))
}

/// `POST /v1/catalog/gc`.
pub(super) async fn collect(State(app): State<Arc<App>>, headers: HeaderMap, body: Body) -> Response {
    let collected = async {
        let request: GcRequest = body::optional_json(body, &headers, &app.config.server).await?;
        app.collect_models(request.dry_run).await
    };
    respond::result(collected.await.map(|report| Json(report).into_response()))
}

fn accepted(status: Accepted) -> Response {
    (StatusCode::ACCEPTED, Json(AcceptedStatus { status })).into_response()
}
