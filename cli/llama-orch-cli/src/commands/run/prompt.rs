//! Where the prompt comes from.

use std::io::{IsTerminal as _, Read as _};
use std::path::Path;

use crate::failure::Failure;

/// The prompt: the argument, a file, or stdin.
pub(super) fn read(argument: Option<&str>, file: Option<&Path>) -> Result<String, Failure> {
    let prompt = match (argument, file) {
        (Some(text), _) => text.to_owned(),
        (None, Some(path)) if path != Path::new("-") => std::fs::read_to_string(path).map_err(|error| {
            Failure::usage(format!("cannot read {}: {error}", path.display()), "name a readable UTF-8 file")
        })?,
        (None, _) => from_stdin()?,
    };
    if prompt.is_empty() {
        return Err(Failure::usage("the prompt is empty", "give it as an argument, with --file or on stdin"));
    }
    Ok(prompt)
}

fn from_stdin() -> Result<String, Failure> {
    let mut stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("llama-orch: reading the prompt from the terminal; end it with Ctrl-D");
    }
    let mut text = String::new();
    stdin
        .read_to_string(&mut text)
        .map_err(|error| Failure::usage(format!("cannot read stdin: {error}"), "give it UTF-8 text"))?;
    Ok(text)
}
