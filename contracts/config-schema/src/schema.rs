//! The JSON Schema of the file.

/// The JSON Schema of the configuration file: the same bytes on every run (OC-CONFIG-6010).
#[must_use]
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(crate::Config);
    let mut text = serde_json::to_string_pretty(&schema).expect("a schema is plain JSON");
    text.push('\n');
    text
}
