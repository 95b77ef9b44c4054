//! Writing to stdout, where a reader that went away is not an error to complain about.

use std::io::{ErrorKind, Write as _};

use serde::Serialize;

use crate::failure::Failure;

/// Writes text and makes sure it has left.
pub(crate) fn write(text: &str) -> Result<(), Failure> {
    write_bytes(text.as_bytes())
}

/// Writes bytes and makes sure they have left.
pub(crate) fn write_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| match error.kind() {
        ErrorKind::BrokenPipe => Failure::output_closed(),
        _ => Failure::local(format!("cannot write the output: {error}")),
    })
}

/// Writes a value as indented JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    write(&(to_text(serde_json::to_string_pretty(value))? + "\n"))
}

/// Writes a value as JSON on a line of its own.
pub(crate) fn json_line(value: &impl Serialize) -> Result<(), Failure> {
    write(&(to_text(serde_json::to_string(value))? + "\n"))
}

fn to_text(text: Result<String, serde_json::Error>) -> Result<String, Failure> {
    text.map_err(|error| Failure::local(format!("cannot write the answer as JSON: {error}")))
}
