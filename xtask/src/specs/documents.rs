//! Reads the documents under `.specs`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use api_types::ErrorKind;
use serde::Serialize;

use super::ids;
use super::sources::{Citation, Place, Sources};

/// One row of a requirements table: `| ID, ID | Level | Requirement | Proof |`.
#[derive(Serialize)]
pub(super) struct Requirement {
    pub(super) ids: Vec<String>,
    pub(super) level: String,
    pub(super) title: String,
    pub(super) proof: String,
    pub(super) section: String,
    pub(super) place: Place,
}

/// One document.
pub(super) struct Document {
    pub(super) path: PathBuf,
    /// Its path as the messages show it.
    pub(super) shown: String,
    text: String,
    pub(super) requirements: Vec<Requirement>,
    /// IDs named outside the first column of a requirements table.
    pub(super) citations: Vec<Citation>,
}

impl Document {
    /// All documents of `.specs`, by name.
    pub(super) fn read_all(root: &Path) -> anyhow::Result<Vec<Self>> {
        let folder = root.join(".specs");
        let entries = std::fs::read_dir(&folder).with_context(|| format!("could not read {}", folder.display()))?;
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
        paths.sort();
        paths.into_iter().map(|path| Self::read(root, path)).collect()
    }

    fn read(root: &Path, path: PathBuf) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        Ok(Self::parse(path, shown, text))
    }

    pub(super) fn parse(path: PathBuf, shown: String, text: String) -> Self {
        let mut document = Self { path, shown, text: String::new(), requirements: Vec::new(), citations: Vec::new() };
        let mut section = String::new();
        for (line, content) in (1..).zip(text.lines()) {
            let place = Place { file: document.shown.clone(), line };
            if let Some(title) = content.strip_prefix("## ") {
                section = title.trim().to_owned();
            }
            let rest = match requirement(content, &section, &place) {
                Some(requirement) => {
                    let rest = format!("{} {}", requirement.title, requirement.proof);
                    document.requirements.push(requirement);
                    rest
                }
                None => content.to_owned(),
            };
            document.citations.extend(ids::find(&rest).into_iter().map(|id| Citation { id, place: place.clone() }));
        }
        Self { text, ..document }
    }

    /// What LO-DOC-01 asks of every document and this one lacks.
    pub(super) fn front_matter_problems(&self) -> Vec<String> {
        let starts = |start: &str| self.text.lines().any(|line| line.starts_with(start));
        let wanted = ["# ", "Status: ", "Owner: ", "Date: ", "## Refinement Opportunities"];
        let missing = wanted.iter().filter(|start| !starts(start));
        missing.map(|start| format!("{}: has no line that begins with \"{start}\"", self.shown)).collect()
    }

    /// Names in backticks that no code knows: error codes and variables in capitals, metrics and fields in small letters.
    pub(super) fn unknown_names(&self, sources: &Sources) -> Vec<String> {
        let mut problems = Vec::new();
        for (line, content) in (1..).zip(self.text.lines()) {
            let names = content.split('`').skip(1).step_by(2).filter(|name| is_compound(name));
            for name in names.filter(|name| !is_error_code(name) && !sources.names.contains(*name)) {
                problems.push(format!("{}:{line}: no code knows the name `{name}`", self.shown));
            }
        }
        problems
    }
}

fn requirement(line: &str, section: &str, place: &Place) -> Option<Requirement> {
    let cells: Vec<&str> = line.strip_prefix('|')?.strip_suffix('|')?.split('|').map(str::trim).collect();
    let [first, level, title, proof] = cells[..] else { return None };
    let ids = ids::find(first);
    (!ids.is_empty()).then(|| Requirement {
        ids,
        level: level.to_owned(),
        title: title.to_owned(),
        proof: proof.to_owned(),
        section: section.to_owned(),
        place: place.clone(),
    })
}

fn is_error_code(name: &str) -> bool {
    ErrorKind::ALL.iter().any(|kind| kind.as_str() == name)
}

/// Words joined by underscores and nothing else: what is worth looking up. Single words are too often plain language.
fn is_compound(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
