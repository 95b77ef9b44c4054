//! Errors as responses: the one place that turns an envelope into status, headers and body.

use api_types::{AdmissionResponse, AuthErrorEnvelope, ErrorEnvelope, ErrorKind, PolicyLabel};
use auth_min::{Denied, ForeignHost};
use axum::Json;
use axum::http::header::{ALLOW, CONNECTION, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use axum::response::{IntoResponse, Response};

/// Wait that is asked of a client whose connection was one too many.
const CONNECTION_RETRY_MS: i64 = 1000;
const BACKOFF_MS: HeaderName = HeaderName::from_static("x-backoff-ms");

/// A typed refusal as a response. 429 always carries the wait, in the body and in both headers (OC-CTRL-2011).
pub(super) fn error(mut envelope: ErrorEnvelope) -> Response {
    let status = StatusCode::from_u16(envelope.code.http_status()).expect("the table holds valid statuses");
    if status == StatusCode::TOO_MANY_REQUESTS {
        envelope.retry_after_ms.get_or_insert(0);
    }
    let wait_ms = envelope.retry_after_ms;
    let mut response = (status, Json(envelope)).into_response();
    if let Some(wait_ms) = wait_ms {
        let seconds = wait_ms.max(0).unsigned_abs().div_ceil(1000);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        response.headers_mut().insert(BACKOFF_MS, HeaderValue::from(wait_ms));
    }
    response
}

/// What the session has left, in headers (OC-CORE-1024); without budgets there are none.
pub(super) fn budgets(headers: &mut HeaderMap, admission: &AdmissionResponse) {
    let mut insert = |name: &'static str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    insert("x-budget-tokens-remaining", admission.tokens_budget_remaining.map(HeaderValue::from));
    insert("x-budget-time-remaining-ms", admission.time_budget_remaining_ms.map(HeaderValue::from));
    let cost = admission.cost_budget_remaining.and_then(|cost| HeaderValue::from_str(&cost.to_string()).ok());
    insert("x-budget-cost-remaining", cost);
}

/// [`error`] from its parts.
pub(super) fn failure(code: ErrorKind, message: impl Into<String>) -> Response {
    error(ErrorEnvelope::new(code, message))
}

/// A response, or the refusal as one.
pub(super) fn result(result: Result<Response, ErrorEnvelope>) -> Response {
    result.unwrap_or_else(error)
}

/// 401.
pub(super) fn denied(denied: Denied) -> Response {
    let mut response = auth(Denied::STATUS, denied.code(), denied.to_string(), denied.hint());
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// 403.
pub(super) fn foreign_host(foreign: ForeignHost) -> Response {
    auth(ForeignHost::STATUS, ForeignHost::CODE, foreign.to_string(), ForeignHost::HINT)
}

/// 429 on a connection that is one too many; it is closed afterwards.
pub(super) fn too_many_connections(version: Version) -> Response {
    let message = "too many connections are open; close idle ones, or ask the operator to raise server.max_connections \
                   or server.max_connections_per_address";
    let mut envelope = ErrorEnvelope::new(ErrorKind::AdmissionReject, message);
    envelope.policy_label = Some(PolicyLabel::RateLimit);
    envelope.retry_after_ms = Some(CONNECTION_RETRY_MS);
    let mut response = error(envelope);
    if version < Version::HTTP_2 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// 404 for a path that nothing serves.
pub(super) async fn no_such_route() -> Response {
    failure(ErrorKind::NotFound, "no such route; GET /v1/openapi.json lists them all")
}

/// 405. The envelope's code is the one for requests that can never succeed as they are.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response {
    let message = format!("this route takes {allowed} only; GET /v1/openapi.json lists what each route takes");
    let body = Json(ErrorEnvelope::new(ErrorKind::InvalidParams, message));
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, HeaderValue::from_static(allowed))], body).into_response()
}

fn auth(status: u16, code: i32, message: String, hint: &str) -> Response {
    let status = StatusCode::from_u16(status).expect("a valid status");
    let code = u32::try_from(code).expect("auth codes are positive");
    (status, Json(AuthErrorEnvelope { code, message, hint: Some(hint.to_owned()) })).into_response()
}
