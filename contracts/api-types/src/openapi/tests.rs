use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{control, data, documents, merged_json, operations, to_yaml};
use crate::sse::{EndFrame, ErrorFrame, EventName, TokenFrame};
use crate::{
    AdmissionResponse, Artifact, ArtifactList, ArtifactQuery, ArtifactRecord, ArtifactRef, AuthErrorEnvelope,
    ErrorEnvelope, MoveReason, PolicyLabel, TaskList, TaskQuery, TaskRequest, TaskState, TaskSummary, TokenSource,
    strict,
};

fn as_json(document: &utoipa::openapi::OpenApi) -> Value {
    serde_json::to_value(document).expect("JSON")
}

fn each_operation(document: &Value) -> impl Iterator<Item = (String, &Value)> {
    document["paths"].as_object().expect("paths").iter().flat_map(|(path, item)| {
        item.as_object()
            .expect("a path item")
            .iter()
            .map(move |(method, operation)| (format!("{method} {path}"), operation))
    })
}

/// FR-CT-001, FR-CT-002, LO-TOOL-04: the committed documents are what the types say.
#[test]
fn the_committed_documents_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (path, text) in documents().into_iter().filter(|(path, _)| path.starts_with("contracts/")) {
        let committed = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        assert!(committed == text, "{path} is out of date: run `{}`", super::REGENERATE);
    }
    assert_eq!(documents(), documents());
}

/// FR-CT-001: version 1.0.0 of the interface, OpenAPI 3.1.
#[test]
fn both_documents_carry_the_interface_version() {
    for document in [data(), control()] {
        let document = as_json(&document);
        assert_eq!(document["info"]["version"], crate::API_VERSION);
        assert_eq!(document["openapi"], "3.1.0");
    }
}

/// OC-CTRL-2052, LO-ERR-03, LO-ERR-04, LO-ERR-05: every answer has a correlation id, every refusal its envelope.
#[test]
fn answers_are_complete() {
    for document in [data(), control()] {
        let document = as_json(&document);
        let components = &document["components"];
        for (name, operation) in each_operation(&document) {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let response = match response["$ref"].as_str() {
                    Some(reference) => &components["responses"][reference.rsplit('/').next().expect("a name")],
                    None => response,
                };
                assert!(response["headers"]["X-Correlation-Id"].is_object(), "{name} {status}");
                if status == "429" {
                    assert!(
                        response["headers"]["Retry-After"].is_object()
                            && response["headers"]["X-Backoff-Ms"].is_object()
                    );
                }
                let example = &response["content"]["application/json"]["example"];
                if !example.is_null() {
                    check_envelope(status, example);
                }
            }
        }
    }
}

/// Every `$ref` of the documents leads somewhere.
#[test]
fn references_resolve() {
    for text in [merged_json(), as_json(&data()).to_string(), as_json(&control()).to_string()] {
        let document: Value = serde_json::from_str(&text).expect("JSON");
        for reference in text.split("\"$ref\":\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}

/// LO-API-01: a closed set is documented with the words that go over the wire.
#[test]
fn closed_sets_are_the_words_of_the_wire() {
    let document: Value = serde_json::from_str(&merged_json()).expect("JSON");
    for (name, words) in [
        ("TaskState", serde_json::to_value(TaskState::ALL)),
        ("PolicyLabel", serde_json::to_value(PolicyLabel::ALL)),
        ("MoveReason", serde_json::to_value(MoveReason::ALL)),
        ("TokenSource", serde_json::to_value(TokenSource::ALL)),
    ] {
        assert_eq!(document["components"]["schemas"][name]["enum"], words.expect("words"), "{name}");
    }
}

/// OC-CORE-1024, OC-CTRL-2050.1: what is left of the budgets comes with every admission and every stream.
#[test]
fn budgets_come_with_admissions_and_streams() {
    let document = as_json(&data());
    for (path, method, status) in
        [("/v1/tasks", "post", "202"), ("/v1/tasks", "post", "200"), ("/v1/tasks/{id}/stream", "get", "200")]
    {
        let headers = &document["paths"][path][method]["responses"][status]["headers"];
        for header in ["X-Budget-Tokens-Remaining", "X-Budget-Time-Remaining-Ms", "X-Budget-Cost-Remaining"] {
            assert!(headers[header].is_object(), "{method} {path} {status}: {header}");
        }
    }
    let required = &document["components"]["schemas"]["AdmissionResponse"]["required"];
    for field in ["tokens_budget_remaining", "time_budget_remaining_ms", "cost_budget_remaining"] {
        assert!(required.as_array().expect("a list").contains(&field.into()), "{field}");
    }
}

/// OC-CTRL-2067, OC-CTRL-2069: good and bad examples, and they are what they claim to be.
#[test]
fn examples_hold() {
    let document = as_json(&data());
    for (name, operation) in each_operation(&document) {
        for (kind, ok) in [("good", true), ("bad", false)] {
            let examples =
                operation["x-examples"][kind].as_array().unwrap_or_else(|| panic!("{name} has no {kind} example"));
            assert!(!examples.is_empty(), "{name}");
            for example in examples {
                check_example(&name, example, ok);
            }
        }
    }
    assert!(as_json(&control())["paths"]["/v1/capabilities"]["get"]["x-examples"]["bad"].is_array());
}

fn check_example(name: &str, example: &Value, ok: bool) {
    let status = example["status"].as_u64().expect("a status").to_string();
    if example["request"].is_object() {
        let text = example["request"].to_string();
        let parsed = match name {
            "post /v1/artifacts" => strict::from_json::<Artifact>(text.as_bytes()).map(drop),
            _ => strict::from_json::<TaskRequest>(text.as_bytes()).map(drop),
        };
        assert_eq!(parsed.is_ok(), ok, "{name}: {parsed:?}");
    }
    if let Some(query) = example["query"].as_str().filter(|_| ok) {
        let is_query = match name {
            "get /v1/artifacts" => serde_urlencoded::from_str::<ArtifactQuery>(query).is_ok(),
            _ => serde_urlencoded::from_str::<TaskQuery>(query).is_ok(),
        };
        assert!(is_query, "{name}: {query}");
    }
    if !status.starts_with('2') {
        check_envelope(&status, &example["response"]);
    } else if ok {
        check_answer(name, &example["response"]);
    }
    for frame in example["frames"].as_array().into_iter().flatten() {
        let event: EventName = serde_json::from_value(frame["event"].clone()).expect("an event");
        let data = frame["data"].clone();
        match event {
            EventName::Token => assert!(serde_json::from_value::<TokenFrame>(data).is_ok()),
            EventName::End => assert!(serde_json::from_value::<EndFrame>(data).is_ok()),
            EventName::Error => assert!(serde_json::from_value::<ErrorFrame>(data).is_ok()),
            other => panic!("no example of {other} is expected"),
        }
    }
}

fn check_answer(name: &str, body: &Value) {
    let fits = match name {
        "post /v1/tasks" => serde_json::from_value::<AdmissionResponse>(body.clone()).map(drop),
        "get /v1/tasks" => serde_json::from_value::<TaskList>(body.clone()).map(drop),
        "get /v1/tasks/{id}" => serde_json::from_value::<TaskSummary>(body.clone()).map(drop),
        "post /v1/artifacts" => serde_json::from_value::<ArtifactRef>(body.clone()).map(drop),
        "get /v1/artifacts" => serde_json::from_value::<ArtifactList>(body.clone()).map(drop),
        "get /v1/artifacts/{id}" => serde_json::from_value::<ArtifactRecord>(body.clone()).map(drop),
        _ => return,
    };
    assert!(fits.is_ok(), "{name}: {fits:?}");
}

fn check_envelope(status: &str, body: &Value) {
    if let Ok(auth) = serde_json::from_value::<AuthErrorEnvelope>(body.clone()) {
        assert!(auth.code.to_string().starts_with(status), "{auth:?}");
        return;
    }
    let envelope: ErrorEnvelope = serde_json::from_value(body.clone()).expect("an error envelope");
    assert_eq!(envelope.code.http_status().to_string(), status);
    assert_eq!(envelope.retriable, Some(envelope.code.retriable()));
}

/// OC-CTRL-2004: discovery uses capabilities; the list of operations has unique names and only what is served.
#[test]
fn operations_are_listed_once() {
    let all = operations();
    let ids: BTreeSet<&str> = all.iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!(ids.len(), all.len());
    assert!(all.iter().all(|operation| !operation.path.contains("replicasets")));
    assert!(all.iter().any(|operation| operation.method == "POST" && operation.path == "/v1/tasks"));
}

#[test]
fn yaml_says_where_it_comes_from() {
    assert!(to_yaml(&data()).starts_with("# Generated from contracts/api-types by `cargo xtask regen-openapi`."));
}
