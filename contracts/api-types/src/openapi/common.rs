//! What the operations share: refusals, headers, the way to authenticate.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::response::{Response, ResponseBuilder};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{AllOfBuilder, ContentBuilder, Object, ObjectBuilder, OpenApi, Ref, RefOr, Schema, Type};
use utoipa::{IntoResponses, Modify, PartialSchema, ToResponse, ToSchema};

use crate::error::{AuthErrorEnvelope, ErrorEnvelope};
use crate::sse::{EndFrame, ErrorFrame, EventName, MetricsFrame, NarrationFrame, StartedFrame, TokenFrame};
use crate::{AdmissionResponse, FeedEvent, FeedGap, ModelChange, ModelJob, PoolStatus, TaskSummary};

const SECURITY_SCHEME: &str = "bearer";
const BUDGET_HEADERS: [&str; 3] =
    ["X-Budget-Tokens-Remaining", "X-Budget-Time-Remaining-Ms", "X-Budget-Cost-Remaining"];

/// A reusable refusal: the name of the component and what it says.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident { $status:literal, $body:ty, $description:literal, $example:tt, [$($header:literal),*] })+) => {
        $(
            $(#[$doc])*
            pub(super) struct $name;

            impl<'r> ToResponse<'r> for $name {
                fn response() -> (&'r str, RefOr<Response>) {
                    (stringify!($name), refusal::<$body>($description, json!($example), &[$($header),*]))
                }
            }

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Response>> {
                    let reference = Ref::from_response_name(stringify!($name));
                    BTreeMap::from([($status.to_owned(), RefOr::Ref(reference))])
                }
            }
        )+

        fn all_refusals() -> Vec<(&'static str, RefOr<Response>)> {
            vec![$($name::response()),+]
        }
    };
}

refusals! {
    /// 400.
    Invalid { "400", ErrorEnvelope, "The request is wrong; it must be changed.",
        { "code": "INVALID_PARAMS", "message": "unknown field `max_token`; did you mean `max_tokens`?", "retriable": false }, [] }
    /// 401.
    NoToken { "401", AuthErrorEnvelope, "A bearer token is wanted, or the one sent is wrong.",
        { "code": 40101, "message": "MISSING_TOKEN: this server wants a bearer token",
          "hint": "send `Authorization: Bearer <token>`" }, [] }
    /// 403.
    Forbidden { "403", AuthErrorEnvelope, "Not allowed from here.",
        { "code": 40301, "message": "FOREIGN_HOST: the Host header does not name this server",
          "hint": "use http://127.0.0.1:8080" }, [] }
    /// 404.
    NotFound { "404", ErrorEnvelope, "No such thing here.",
        { "code": "NOT_FOUND", "message": "no such task; finished tasks are kept for 600000 ms", "retriable": false }, [] }
    /// 409.
    Conflict { "409", ErrorEnvelope, "The request contradicts what exists.",
        { "code": "CONFLICT", "message": "this task_id was used with another body; choose a new one", "retriable": false }, [] }
    /// 429.
    Backpressure { "429", BackpressureErrorEnvelope, "Try again after the time given, if `retriable`.",
        { "code": "ADMISSION_REJECT",
          "message": "pool gpu0 has 64 tasks waiting, its limit; try again in 1500 ms or use another pool",
          "engine": "llamacpp", "pool_id": "gpu0", "retriable": true, "retry_after_ms": 1500, "policy_label": "reject" },
        ["Retry-After", "X-Backoff-Ms"] }
    /// 500.
    Failed { "500", ErrorEnvelope, "Something unexpected went wrong; the log has more under the correlation id.",
        { "code": "INTERNAL", "message": "unexpected failure; see the log under this correlation id", "retriable": false }, [] }
    /// 503.
    Unavailable { "503", ErrorEnvelope, "No pool can take the task; try again later if `retriable`.",
        { "code": "POOL_UNREADY", "message": "pool gpu0 is loading its model; try again in 4000 ms",
          "pool_id": "gpu0", "retriable": true, "retry_after_ms": 4000 }, [] }
}

/// What every route behind authentication may answer.
pub(super) struct Guarded;

impl IntoResponses for Guarded {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        let mut all = NoToken::responses();
        all.extend(Forbidden::responses());
        all.extend(Failed::responses());
        all
    }
}

/// Body of 429 answers: an [`ErrorEnvelope`] in which the fields that say when and why are always there (LO-ERR-04).
pub(super) struct BackpressureErrorEnvelope;

impl PartialSchema for BackpressureErrorEnvelope {
    fn schema() -> RefOr<Schema> {
        let always = ["policy_label", "retriable", "retry_after_ms"];
        let required = always.into_iter().fold(ObjectBuilder::new(), ObjectBuilder::required);
        AllOfBuilder::new()
            .description(Some("An error envelope in which the fields that say when and why are always there."))
            .item(Ref::from_schema_name(ErrorEnvelope::name()))
            .item(required)
            .into()
    }
}

impl ToSchema for BackpressureErrorEnvelope {}

/// A task's stream. OpenAPI 3.1 has no schema for events, so the text is described and `x-events` names the payloads.
pub(super) struct TaskStream;

impl PartialSchema for TaskStream {
    fn schema() -> RefOr<Schema> {
        let events: serde_json::Map<String, Value> =
            EventName::ALL.iter().map(|event| (event.to_string(), frame(*event))).collect();
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(STREAM_DESCRIPTION))
            .examples([Value::from(STREAM_EXAMPLE)])
            .extensions(Some(Extensions::from_iter([("x-events", Value::Object(events))])))
            .into()
    }
}

impl ToSchema for TaskStream {}

const STREAM_DESCRIPTION: &str = "Server-sent events: `started`, then `token`s with `metrics` and `narration` in between, \
    then one `end` or `error`. Each event has an `id:`, its index in the stream, for `Last-Event-ID`, and one line of JSON \
    as `data:`. Ignore events you do not know, and comment lines.";

const STREAM_EXAMPLE: &str = concat!(
    "id: 0\nevent: started\ndata: {\"queue_position\":0,\"predicted_start_ms\":0}\n\n",
    "id: 1\nevent: token\ndata: {\"t\":\" Paris\",\"i\":0}\n\n",
    "id: 2\nevent: end\ndata: {\"tokens_out\":1,\"decode_time_ms\":0,\"decode_ms\":0}\n\n",
);

/// The feed of `GET /v1/events`; `x-events` names the payloads.
pub(super) struct EventFeed;

impl PartialSchema for EventFeed {
    fn schema() -> RefOr<Schema> {
        let events: serde_json::Map<String, Value> =
            FeedEvent::ALL.iter().map(|event| (event.to_string(), payload(*event))).collect();
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some(FEED_DESCRIPTION))
            .extensions(Some(Extensions::from_iter([("x-events", Value::Object(events))])))
            .into()
    }
}

impl ToSchema for EventFeed {}

const FEED_DESCRIPTION: &str = "Server-sent events with one line of JSON as `data:`. What changed before the feed was opened \
    is not in it. Ignore events you do not know, and comment lines.";

fn payload(event: FeedEvent) -> Value {
    let name = match event {
        FeedEvent::Task => TaskSummary::name(),
        FeedEvent::Pool => PoolStatus::name(),
        FeedEvent::Model => ModelChange::name(),
        FeedEvent::ModelJob => ModelJob::name(),
        FeedEvent::Gap => FeedGap::name(),
    };
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn frame(event: EventName) -> Value {
    let name = match event {
        EventName::Started => StartedFrame::name(),
        EventName::Token => TokenFrame::name(),
        EventName::Metrics => MetricsFrame::name(),
        EventName::Narration => NarrationFrame::name(),
        EventName::End => EndFrame::name(),
        EventName::Error => ErrorFrame::name(),
    };
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn refusal<Body: ToSchema>(description: &str, example: Value, headers: &[&str]) -> RefOr<Response> {
    let body = Ref::from_schema_name(Body::name());
    let content = ContentBuilder::new().schema(Some(RefOr::Ref(body))).example(Some(example)).build();
    let mut response = ResponseBuilder::new().description(description).content("application/json", content).build();
    for name in headers {
        response.headers.insert((*name).to_owned(), header_reference(name));
    }
    response.into()
}

fn header_reference(name: &str) -> RefOr<Header> {
    RefOr::Ref(Ref::new(format!("#/components/headers/{name}")))
}

/// Adds to a document what holds for all of it.
pub(super) struct Shared;

impl Modify for Shared {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(SECURITY_SCHEME, bearer());
        components.headers.extend(headers().map(|(name, header)| (name.to_owned(), header.into())));
        components.responses.extend(all_refusals().into_iter().map(|(name, response)| (name.to_owned(), response)));
        // On loopback the operator may allow callers without a token.
        document.security =
            Some(vec![SecurityRequirement::new(SECURITY_SCHEME, [""; 0]), SecurityRequirement::default()]);
        for response in responses_of(document) {
            if admits(response) {
                let names = BUDGET_HEADERS.iter().map(|name| ((*name).to_owned(), header_reference(name)));
                response.headers.extend(names);
            }
            // OC-CTRL-2052: on every answer.
            response.headers.insert("X-Correlation-Id".to_owned(), header_reference("X-Correlation-Id"));
        }
    }
}

/// Whether the answer belongs to an admitted task; it tells the session's budgets then (OC-CORE-1024).
fn admits(response: &Response) -> bool {
    let admission = RefOr::Ref(Ref::from_schema_name(AdmissionResponse::name()));
    response.content.iter().any(|(kind, content)| {
        kind == "text/event-stream"
            || matches!(content, RefOr::T(content) if content.schema.as_ref() == Some(&admission))
    })
}

/// Every response written out in the document, shared ones included.
fn responses_of(document: &mut OpenApi) -> impl Iterator<Item = &mut Response> {
    let shared = document.components.iter_mut().flat_map(|components| components.responses.values_mut());
    let own = document.paths.paths.values_mut().flat_map(|item| {
        let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        operations.into_iter().flatten().flat_map(|operation| operation.responses.responses.values_mut())
    });
    shared.chain(own).filter_map(|response| match response {
        RefOr::T(response) => Some(response),
        RefOr::Ref(_) => None,
    })
}

fn bearer() -> SecurityScheme {
    let mut scheme = Http::new(HttpAuthScheme::Bearer);
    scheme.description = Some("The operator's AUTH_TOKEN. Callers on loopback may go without when allowed.".to_owned());
    SecurityScheme::Http(scheme)
}

fn headers() -> impl Iterator<Item = (&'static str, Header)> {
    [
        ("X-Correlation-Id", Type::String, "The id under which log lines are found: the one sent, or a fresh UUID."),
        ("Retry-After", Type::Integer, "Time to wait, in whole seconds."),
        ("X-Backoff-Ms", Type::Integer, "The same wait in milliseconds."),
        ("X-Budget-Tokens-Remaining", Type::Integer, "Session tokens left, when that budget is on."),
        ("X-Budget-Time-Remaining-Ms", Type::Integer, "Session decode time left, when that budget is on."),
        ("X-Budget-Cost-Remaining", Type::Number, "Session cost left, when that budget is on."),
    ]
    .into_iter()
    .map(|(name, kind, description)| {
        let schema = Object::with_type(kind);
        (name, HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build())
    })
}
