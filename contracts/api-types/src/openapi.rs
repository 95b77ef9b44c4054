//! The OpenAPI 3.1 documents of the interface, built from the types of this crate (FR-CT-001, FR-CT-002).
//!
//! The functions under `data` and `control` exist for documentation only: utoipa turns their attributes into paths. A
//! route is documented when the daemon serves it and not before; [`operations`] is the list its tests hold it to. Schemas
//! of routes still to come are components already. `cargo xtask regen-openapi` writes [`documents`] into the tree.

mod common;
mod control;
mod data;
mod rust_client;

use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation as OperationObject;
use utoipa::openapi::{HttpMethod, OpenApi, PathItem};

/// Command that writes the generated files.
pub const REGENERATE: &str = "cargo xtask regen-openapi";

/// The data plane: tasks, streams, sessions.
#[must_use]
pub fn data() -> OpenApi {
    data::Document::openapi()
}

/// The control plane: capabilities, pools, health, metrics, this contract.
#[must_use]
pub fn control() -> OpenApi {
    control::Document::openapi()
}

/// Both planes in one document.
#[must_use]
pub fn merged() -> OpenApi {
    let mut document = data().merge_from(control());
    "OrchQueue v1".clone_into(&mut document.info.title);
    document.info.description =
        Some("Submit and follow tasks; see what the server can do and how it fares.".to_owned());
    document
}

/// Answer to `GET /v1/openapi.json`: both planes as JSON.
///
/// # Panics
/// Never: a test builds it.
#[must_use]
pub fn merged_json() -> String {
    serde_json::to_string(&merged()).expect("a document of plain strings and maps is JSON")
}

/// A document as YAML, the same bytes for the same types, under a comment that says where it comes from.
///
/// # Panics
/// Never: a test builds both documents.
#[must_use]
pub fn to_yaml(document: &OpenApi) -> String {
    let body = document.to_yaml().expect("a document of plain strings and maps is YAML");
    format!("# Generated from contracts/api-types by `{REGENERATE}`. Do not edit.\n{body}")
}

/// Every generated file of the contract: its path from the workspace root and its text.
#[must_use]
pub fn documents() -> Vec<(&'static str, String)> {
    vec![
        ("contracts/openapi/data.yaml", to_yaml(&data())),
        ("contracts/openapi/control.yaml", to_yaml(&control())),
        ("tools/openapi-client/src/generated.rs", rust_client::render(&merged())),
    ]
}

/// One documented route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// HTTP method, in capitals.
    pub method: &'static str,
    /// Path with `{parameter}` segments, as axum writes it too.
    pub path: String,
    /// Name of the operation; the typed client's method has the same.
    pub id: String,
}

/// Every documented route, by path and method.
///
/// # Panics
/// When an operation has no id, which a test rules out.
#[must_use]
pub fn operations() -> Vec<Operation> {
    let document = merged();
    let routes = document.paths.paths.iter().flat_map(|(path, item)| {
        methods(item).map(|(method, operation)| Operation {
            method: word(&method),
            path: path.clone(),
            id: operation.operation_id.clone().expect("utoipa names an operation after its function"),
        })
    });
    routes.collect()
}

/// The methods a path has, with their operations.
fn methods(item: &PathItem) -> impl Iterator<Item = (HttpMethod, &OperationObject)> {
    let all = [
        (HttpMethod::Get, &item.get),
        (HttpMethod::Put, &item.put),
        (HttpMethod::Post, &item.post),
        (HttpMethod::Delete, &item.delete),
        (HttpMethod::Patch, &item.patch),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn word(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Put => "PUT",
        HttpMethod::Post => "POST",
        HttpMethod::Delete => "DELETE",
        HttpMethod::Patch => "PATCH",
        _ => "GET",
    }
}

#[cfg(test)]
mod tests;
