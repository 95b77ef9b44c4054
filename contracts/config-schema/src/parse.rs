//! From text to [`Config`], strictly, with every misfit found in one go.
//!
//! TOML and YAML become one tree first, so that both are held to the same rules and speak the same error texts; positions
//! come from a second look at the text, and only when there is something to report.

mod numbers;

use std::path::Path;

use api_types::strict::{StrictError, explain};
use serde_json::{Value, json};
use serde_path_to_error::Segment;

use crate::error::{ConfigError, Misfit};
use crate::position::{self, Position};
use crate::{Config, UnknownKeys};

/// The file's notation, by its extension: `.yaml` and `.yml` are YAML, everything else is TOML.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    Toml,
    Yaml,
}

impl Notation {
    pub(crate) fn of(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("yaml" | "yml") => Self::Yaml,
            _ => Self::Toml,
        }
    }
}

/// A configuration as written, and the unknown keys that were let pass.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) config: Config,
    pub(crate) ignored: Vec<Misfit>,
}

pub(crate) fn parse(path: &Path, text: &str, unknown_keys: UnknownKeys) -> Result<Parsed, ConfigError> {
    let refuse = |misfits| ConfigError::Parse { path: path.to_owned(), misfits };
    let notation = Notation::of(path);
    let mut tree = tree(notation, text).map_err(|misfit| refuse(vec![misfit]))?;
    let (mut misfits, mut ignored) = (Vec::new(), Vec::new());
    let place = |path: &[Step]| (notation == Notation::Toml).then(|| position::of_toml_path(text, path)).flatten();
    for path in numbers::not_finite(notation, text) {
        take_out(&mut tree, &path);
        misfits.push(Misfit { position: place(&path), error: explain(&dotted(&path), "expected a finite number") });
    }
    for found in parts(&tree).into_iter().flat_map(Part::misfits) {
        let position = place(&found.path);
        let ignorable = unknown_keys == UnknownKeys::Warn && found.is_unknown_key();
        let misfit = Misfit { position, error: found.error };
        if ignorable {
            take_out(&mut tree, &found.path);
            ignored.push(misfit);
        } else {
            misfits.push(misfit);
        }
    }
    if !misfits.is_empty() {
        misfits.sort_by_key(|misfit| misfit.position);
        return Err(refuse(misfits));
    }
    match fit(&tree) {
        Ok(config) => Ok(Parsed { config, ignored }),
        Err(found) => Err(refuse(vec![Misfit { position: None, error: found.error }])),
    }
}

fn tree(notation: Notation, text: &str) -> Result<Value, Misfit> {
    let empty = || Value::Object(serde_json::Map::new());
    match notation {
        Notation::Toml => toml::from_str(text).map_err(|error| Misfit {
            position: error.span().map(|span| Position::of_offset(text, span.start)),
            error: explain("", error.message()),
        }),
        // An empty document, or one of comments only, is null in YAML.
        Notation::Yaml => serde_yaml_ng::from_str(text)
            .map(|tree: Value| if tree.is_null() { empty() } else { tree })
            .map_err(|error| Misfit {
                position: error.location().map(|at| Position { line: at.line(), column: at.column() }),
                error: explain("", error.to_string().split(" at line ").next().unwrap_or_default()),
            }),
    }
}

/// Something that does not fit, and where.
struct Found {
    error: StrictError,
    path: Vec<Step>,
}

/// One step from the top of the file to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// A path as serde_path_to_error writes it.
fn dotted(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text.push_str(&format!(".{key}")),
            Step::Index(index) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

fn fit(tree: &Value) -> Result<Config, Found> {
    serde_path_to_error::deserialize::<_, Config>(tree).map_err(|error| Found {
        error: explain(&error.path().to_string(), &error.inner().to_string()),
        path: error.path().iter().map_while(step).collect(),
    })
}

fn step(segment: &Segment) -> Option<Step> {
    match segment {
        Segment::Map { key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Enum { .. } | Segment::Unknown => None,
    }
}

/// A section of the file, or one pool, alone in a file of its own: a misfit in one does not hide those in the others.
struct Part {
    tree: Value,
    /// The pool's place among the others, which stands at place 0 here.
    pool: Option<usize>,
}

fn parts(tree: &Value) -> Vec<Part> {
    let sections = tree.as_object().into_iter().flatten();
    let part = |(key, value): (&String, &Value)| match value {
        Value::Array(pools) if key == "pools" => {
            let pool = |(i, pool): (usize, &Value)| Part { tree: json!({ "pools": [pool] }), pool: Some(i) };
            pools.iter().enumerate().map(pool).collect()
        }
        section => vec![Part { tree: json!({ key.as_str(): section }), pool: None }],
    };
    sections.flat_map(part).collect()
}

impl Part {
    /// Everything that does not fit: what was found is taken out, until the rest fits or cannot.
    fn misfits(mut self) -> Vec<Found> {
        let mut found: Vec<Found> = Vec::new();
        while let Err(misfit) = fit(&self.tree) {
            if is_consequence(&misfit, &found) {
                break;
            }
            // A missing field cannot be made up, so what follows it stays unseen.
            let last = misfit.missing_field().is_some() || !take_out(&mut self.tree, &misfit.path);
            found.push(misfit);
            if last {
                break;
            }
        }
        found.into_iter().map(|misfit| misfit.in_place(self.pool)).collect()
    }
}

impl Found {
    fn is_unknown_key(&self) -> bool {
        self.error.problem.starts_with("unknown field `")
    }

    fn missing_field(&self) -> Option<&str> {
        self.error.problem.strip_prefix("missing field `")?.split('`').next()
    }

    /// Names the pool by its place in the whole file.
    fn in_place(mut self, pool: Option<usize>) -> Self {
        if let (Some(i), [_, Step::Index(index), ..]) = (pool, self.path.as_mut_slice()) {
            *index = i;
            self.error.path = self.error.path.replacen("[0]", &format!("[{i}]"), 1);
        }
        self
    }
}

/// Whether a field is missing only because it was taken out.
fn is_consequence(misfit: &Found, found: &[Found]) -> bool {
    let Some(name) = misfit.missing_field() else { return false };
    found.iter().any(|earlier| match earlier.path.strip_prefix(misfit.path.as_slice()) {
        Some([Step::Key(key), ..]) => key == name,
        _ => false,
    })
}

/// Removes the innermost key on the path. List items are not removed by themselves: those behind them would move up and be
/// reported under wrong numbers.
fn take_out(tree: &mut Value, path: &[Step]) -> bool {
    let Some(last_key) = path.iter().rposition(|step| matches!(step, Step::Key(_))) else { return false };
    let mut at = tree;
    for step in &path[..last_key] {
        let next = match step {
            Step::Key(key) => at.get_mut(key.as_str()),
            Step::Index(index) => at.get_mut(*index),
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match (&path[last_key], at) {
        (Step::Key(key), Value::Object(table)) => table.remove(key).is_some(),
        _ => false,
    }
}
