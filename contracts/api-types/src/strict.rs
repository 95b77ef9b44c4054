//! Strict parsing with errors a person can act on: where, what, and the nearest name that would have been right.
//!
//! serde stops at the first unknown field and lists the known ones in its message; that list is the source of the
//! suggestion, so it can never fall out of step with the types. The configuration file is parsed by the same means.

use serde::de::DeserializeOwned;

/// Why a document does not fit its type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{problem}{}", at(.path), meant(.nearest))]
pub struct StrictError {
    /// Where, as a dotted path; empty at the top.
    pub path: String,
    /// What is wrong there, without the document's own text.
    pub problem: String,
    /// The known name that is nearest to the one given.
    pub nearest: Option<String>,
}

fn at(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

fn meant(nearest: &Option<String>) -> String {
    nearest.as_ref().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Parses a JSON document strictly. The fast path costs what serde costs; the error path parses once more to find out
/// where.
///
/// # Errors
/// [`StrictError`] for malformed JSON, a wrong type, a missing or an unknown field.
pub fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, StrictError> {
    match serde_json::from_slice(body) {
        Ok(value) => Ok(value),
        Err(_) => Err(explain_json::<T>(body)),
    }
}

fn explain_json<T: DeserializeOwned>(body: &[u8]) -> StrictError {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
        Err(error) => {
            let path = error.path().to_string();
            let inner = error.into_inner();
            let message =
                if inner.is_eof() && body.is_empty() { "the body is empty".to_owned() } else { inner.to_string() };
            explain(&path, &message)
        }
        // The value itself fits, so what follows it does not.
        Ok(_) => explain("", "characters after the end of the JSON document"),
    }
}

/// Turns a path and serde's own message into a [`StrictError`].
#[must_use]
pub fn explain(path: &str, message: &str) -> StrictError {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let path = match path {
        "." | "?" => "",
        other => other,
    };
    let unknown = ["unknown field `", "unknown variant `"].iter().any(|start| message.starts_with(start));
    match names.split_first() {
        Some((given, known)) if unknown => StrictError {
            // serde puts the unknown name itself at the end of the path; the problem names it already.
            path: path.strip_suffix(given).map_or(path, |rest| rest.trim_end_matches('.')).to_owned(),
            problem: message.split(" at line ").next().unwrap_or(message).to_owned(),
            nearest: nearest(given, known.iter().copied()).map(str::to_owned),
        },
        _ => StrictError { path: path.to_owned(), problem: without_values(message), nearest: None },
    }
}

/// The candidate nearest to `given`, if one is near enough to be what was meant.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(given, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// serde quotes the offending string in a type error (`invalid type: string "…"`); it may be a prompt, so it goes.
fn without_values(message: &str) -> String {
    match (message.find('"'), message.rfind('"')) {
        (Some(first), Some(last)) if first < last => {
            format!("{}…{}", &message[..=first], &message[last..])
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{from_json, nearest};
    use crate::TaskRequest;

    fn task(extra: &str) -> String {
        format!(
            r#"{{"task_id":"7f9c24e5-5d8b-4c53-9c13-0c6d3b7f5a10","session_id":"2b1f4c6e-8d3a-4a5e-9f7b-1c2d3e4f5a6b",
            "workload":"completion","model_ref":"m","engine":"llamacpp","ctx":16,"priority":"interactive","max_tokens":4,
            "deadline_ms":1000,"prompt":"x"{extra}}}"#
        )
    }

    /// LO-API-02 as DESIGN section 8 decides it: an unknown field is refused, named, and the nearest known one offered.
    #[test]
    fn names_the_problem_and_the_nearest_field() {
        let cases = [
            (task(r#","max_token":5"#), "", "unknown field `max_token`", Some("max_tokens")),
            (task(r#","sampling":{"temprature":1}"#), "sampling", "unknown field `temprature`", Some("temperature")),
            (task(r#","kv_hint":"warm""#), "kv_hint", "unknown variant `warm`", None),
            (task(r#","determinism":"strickt""#), "determinism", "unknown variant `strickt`", Some("strict")),
            (task(r#","seed":"seven secret words""#), "seed", "invalid type: string \"…\", expected i64", None),
            (task("} trailing"), "", "characters after the end", None),
            (r#"{"task_id":"no"}"#.to_owned(), "task_id", "UUID parsing failed", None),
            ("{}".to_owned(), "", "missing field `task_id`", None),
            (String::new(), "", "the body is empty", None),
        ];
        for (body, path, problem, near) in cases {
            let error = from_json::<TaskRequest>(body.as_bytes()).expect_err(&body);
            assert_eq!(error.path, path, "{error}");
            assert!(error.problem.starts_with(problem), "{error}");
            assert_eq!(error.nearest.as_deref(), near, "{error}");
        }
        assert!(from_json::<TaskRequest>(task("").as_bytes()).is_ok());
    }

    #[test]
    fn suggests_nothing_when_nothing_is_near() {
        assert_eq!(nearest("zzz", ["alpha", "beta"]), None);
        assert_eq!(nearest("alhpa", ["alpha", "beta"]), Some("alpha"));
    }

    /// ORCH-3101: `output_mode` is the lenient exception.
    #[test]
    fn an_unknown_output_mode_is_kept() {
        assert!(from_json::<TaskRequest>(task(r#","output_mode":"poem""#).as_bytes()).is_ok());
    }
}
