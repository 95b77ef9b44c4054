//! Writes the typed client's methods from the document, so that the two cannot drift (LO-TOOL-06).
//!
//! Only calls with a plain answer are written here; the ones in [`BY_HAND`] are streams or have an answer whose meaning
//! depends on the status, and live beside the generated file.

use std::fmt::Write as _;

use utoipa::openapi::path::{Operation, Parameter, ParameterIn};
use utoipa::openapi::{HttpMethod, OpenApi, Ref, RefOr, Response, Schema};

/// Operations the client writes by hand.
const BY_HAND: &[&str] = &["stream_task", "get_readyz", "download_artifact", "watch_events", "get_pool_logs"];
/// Operations with POST that may be sent twice without harm: the contract says so.
const REPEATABLE_POSTS: &[&str] = &[
    "register_worker",
    "worker_heartbeat",
    "drain_pool",
    "start_pool",
    "stop_pool",
    "unload_pool",
    "submit_task",
    "cancel_task",
    "create_artifact",
    "create_model",
    "pull_model",
    "set_model_state",
    "verify_model",
];
/// The type of the query of operations that take one; utoipa knows its fields only.
const QUERIES: &[(&str, &str)] = &[
    ("list_tasks", "TaskQuery"),
    ("list_models", "CatalogQuery"),
    ("fit_model", "FitQuery"),
    ("list_artifacts", "ArtifactQuery"),
];

/// Types of ids that are text and therefore borrowed.
const PLAIN_IDS: &[&str] = &["PoolId", "ModelId", "ArtifactId", "EngineId", "WorkerId"];

/// The text of the client's `generated.rs`.
pub(super) fn render(document: &OpenApi) -> String {
    let plain = document
        .paths
        .paths
        .iter()
        .flat_map(|(path, item)| super::methods(item).map(move |(method, operation)| (path, method, operation)))
        .filter(|(_, _, operation)| !BY_HAND.contains(&id(operation)));
    let (ids, methods): (Vec<String>, Vec<String>) = plain
        .map(|(path, method, operation)| (format!("\"{}\"", id(operation)), render_method(path, &method, operation)))
        .unzip();
    format!(
        "//! Generated from contracts/api-types by `{}`. Do not edit.\n\n\
         use reqwest::Method;\n\nuse crate::call::Call;\nuse crate::{{Client, ClientError}};\n\n\
         /// Operations that have a method here.\npub(crate) const OPERATIONS: &[&str] = &[\n    {},\n];\n\n\
         impl Client {{\n{}}}\n",
        super::REGENERATE,
        ids.join(",\n    "),
        methods.join("\n"),
    )
}

fn render_method(path: &str, method: &HttpMethod, operation: &Operation) -> String {
    let id = id(operation);
    let summary = operation.summary.as_deref().unwrap_or_default();
    let mut arguments = String::new();
    for name in path_types(operation) {
        let _ = write!(arguments, ", id: {}api_types::{name}", if PLAIN_IDS.contains(&name) { "&" } else { "" });
    }
    let query = query_type(operation);
    if let Some(query) = query {
        let _ = write!(arguments, ", query: &api_types::{query}");
    }
    let body = body_type(operation);
    if let Some(body) = body {
        let _ = write!(arguments, ", body: &api_types::{body}");
    }
    let answer = answer(operation);
    let mut call = format!("Call::new(Method::{}, &[{}])", super::word(method), segments(path));
    if REPEATABLE_POSTS.contains(&id) {
        call.push_str(".repeatable()");
    }
    if query.is_some() {
        call.push_str(".query(query)");
    }
    if body.is_some() {
        call.push_str(".json(body)");
    }
    format!(
        "    /// {summary}\n    ///\n    /// `{} {path}`\n    ///\n    /// # Errors\n    /// [`ClientError`], as for every call.\n    \
         pub async fn {id}(&self{arguments}) -> Result<{}, ClientError> {{\n        \
         let call = {call};\n        self.{}(&call).await\n    }}\n",
        super::word(method),
        answer.rust_type,
        answer.receiver,
    )
}

fn id(operation: &Operation) -> &str {
    operation.operation_id.as_deref().unwrap_or_default()
}

/// `/v1/tasks/{id}` as the elements of a slice.
fn segments(path: &str) -> String {
    let parts = path.trim_start_matches('/').split('/').map(|part| match part.strip_prefix('{') {
        Some(parameter) => format!("&{}.to_string()", parameter.trim_end_matches('}')),
        None => format!("\"{part}\""),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// Types of the path's parameters; each is a component.
fn path_types(operation: &Operation) -> impl Iterator<Item = &str> {
    parameters(operation, ParameterIn::Path).filter_map(|parameter| component(parameter.schema.as_ref()?))
}

fn query_type(operation: &Operation) -> Option<&'static str> {
    parameters(operation, ParameterIn::Query).next()?;
    let (_, name) = QUERIES.iter().find(|(of, _)| *of == id(operation)).expect("every query has its type in the table");
    Some(name)
}

fn parameters(operation: &Operation, place: ParameterIn) -> impl Iterator<Item = &Parameter> {
    let written_out = operation.parameters.iter().flatten().filter_map(|parameter| match parameter {
        RefOr::T(parameter) => Some(parameter),
        RefOr::Ref(_) => None,
    });
    written_out.filter(move |parameter| parameter.parameter_in == place)
}

fn body_type(operation: &Operation) -> Option<&str> {
    match operation.request_body.as_ref()? {
        RefOr::T(body) => body.content.values().find_map(schema_component),
        RefOr::Ref(_) => None,
    }
}

/// What a method returns and which of the client's receivers reads it.
struct Answer {
    rust_type: String,
    receiver: &'static str,
}

fn answer(operation: &Operation) -> Answer {
    // The last one: a streamed 200 stands before the 202 whose body is JSON.
    let success = operation.responses.responses.iter().rfind(|(status, _)| status.starts_with('2'));
    let content = success.and_then(|(_, response)| match response {
        RefOr::T(Response { content, .. }) => content.first(),
        RefOr::Ref(_) => None,
    });
    match content {
        None => Answer { rust_type: "()".to_owned(), receiver: "receive_nothing" },
        Some((kind, _)) if kind.starts_with("text/") => {
            Answer { rust_type: "String".to_owned(), receiver: "receive_text" }
        }
        Some((_, content)) => {
            let named = schema_component(content).map(|name| format!("api_types::{name}"));
            Answer { rust_type: named.unwrap_or_else(|| "serde_json::Value".to_owned()), receiver: "receive" }
        }
    }
}

fn schema_component(content: &RefOr<utoipa::openapi::Content>) -> Option<&str> {
    match content {
        RefOr::T(content) => component(content.schema.as_ref()?),
        RefOr::Ref(_) => None,
    }
}

fn component(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::Ref(Ref { ref_location, .. }) => ref_location.strip_prefix("#/components/schemas/"),
        RefOr::T(_) => None,
    }
}
