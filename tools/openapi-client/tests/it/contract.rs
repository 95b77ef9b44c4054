//! The client covers the contract, and its generated part is what the contract gives.

use std::collections::BTreeSet;

/// LO-TOOL-06: one method per documented operation, and no more.
#[test]
fn every_operation_has_a_method() {
    let documented: BTreeSet<String> = api_types::openapi::operations().into_iter().map(|it| it.id).collect();
    let covered: BTreeSet<String> = openapi_client::operations().map(str::to_owned).collect();
    assert_eq!(documented, covered);
}

/// LO-TOOL-04, LO-TOOL-06: the committed methods are what the documents give.
#[test]
fn the_generated_methods_are_current() {
    let documents = api_types::openapi::documents();
    let (_, text) = documents.iter().find(|(path, _)| path.ends_with("generated.rs")).expect("it is listed");
    let committed = include_str!("../../src/generated.rs");
    assert!(committed == text, "generated.rs is out of date: run `{}`", api_types::openapi::REGENERATE);
}
