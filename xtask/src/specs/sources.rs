//! Reads the Rust sources: which requirements their comments cite, which tests prove them, which names exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::ids;

/// A line of a file of the repository.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

impl Serialize for Place {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A requirement named somewhere.
pub(super) struct Citation {
    pub(super) id: String,
    pub(super) place: Place,
}

/// What the sources say.
#[derive(Default)]
pub(super) struct Sources {
    /// Every ID in a comment.
    pub(super) citations: Vec<Citation>,
    /// Requirement → the tests whose doc comment cites it, as `file: name`, or `file` where its head does.
    pub(super) tests: BTreeMap<String, BTreeSet<String>>,
    /// Every word of every source.
    pub(super) names: BTreeSet<String>,
}

impl Sources {
    /// All `.rs` files of the repository, but not what is built.
    pub(super) fn read(root: &Path) -> anyhow::Result<Self> {
        let mut sources = Self::default();
        sources.add_folder(root, root)?;
        Ok(sources)
    }

    fn add_folder(&mut self, root: &Path, folder: &Path) -> anyhow::Result<()> {
        let entries = std::fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (name, path) = (entry.file_name(), entry.path());
            let hidden_or_built = name.to_string_lossy().starts_with('.') || name == "target";
            if entry.file_type()?.is_dir() && !hidden_or_built {
                self.add_folder(root, &path)?;
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text =
                    std::fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
                self.add(&path.strip_prefix(root).unwrap_or(&path).display().to_string(), &text);
            }
        }
        Ok(())
    }

    /// One file's text.
    pub(super) fn add(&mut self, file: &str, text: &str) {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        self.names.extend(words.filter(|word| word.contains('_')).map(str::to_owned));

        let mut reader =
            Reader { sources: self, file, head: Vec::new(), has_tests: false, above: ItemAbove::default() };
        for (line, content) in (1..).zip(text.lines()) {
            reader.line(line, content.trim_start());
        }
        reader.end();
    }
}

/// Reads one file line by line.
struct Reader<'a> {
    sources: &'a mut Sources,
    file: &'a str,
    /// What the module's own documentation cites.
    head: Vec<String>,
    has_tests: bool,
    above: ItemAbove,
}

/// Doc comment and attributes of the item that comes next.
#[derive(Default)]
struct ItemAbove {
    cited: Vec<String>,
    is_test: bool,
}

impl Reader<'_> {
    fn line(&mut self, line: usize, content: &str) {
        if content.starts_with("//") {
            self.comment(line, content);
        } else if content.starts_with("#[") {
            self.above.is_test |= is_test_attribute(content);
        } else {
            let above = std::mem::take(&mut self.above);
            if let Some(name) = function_name(content).filter(|_| above.is_test) {
                self.has_tests = true;
                self.proves(above.cited, &format!("{}: {name}", self.file));
            }
        }
    }

    fn comment(&mut self, line: usize, content: &str) {
        let cited = ids::find(content);
        let place = Place { file: self.file.to_owned(), line };
        let citations = cited.iter().map(|id| Citation { id: id.clone(), place: place.clone() });
        self.sources.citations.extend(citations);
        if content.starts_with("///") {
            self.above.cited.extend(cited);
        } else if content.starts_with("//!") {
            self.head.extend(cited);
        }
    }

    fn end(mut self) {
        if self.has_tests && is_test_file(self.file) {
            let head = std::mem::take(&mut self.head);
            self.proves(head, self.file);
        }
    }

    fn proves(&mut self, cited: Vec<String>, test: &str) {
        for id in cited {
            self.sources.tests.entry(id).or_default().insert(test.to_owned());
        }
    }
}

/// A file that holds nothing but tests.
fn is_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.split('/').any(|folder| folder == "tests")
}

/// `#[test]`, `#[tokio::test(…)]` and the like.
fn is_test_attribute(attribute: &str) -> bool {
    let path = attribute.trim_start_matches("#[").split(['(', ']']).next().unwrap_or_default();
    path.rsplit("::").next() == Some("test")
}

fn function_name(line: &str) -> Option<&str> {
    let line = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    line.split(['(', '<']).next()
}
