//! Where in the text a value stands.

use std::fmt;

use toml::de::{DeTable, DeValue};

use crate::parse::Step;

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
}

impl Position {
    pub(crate) fn of_offset(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// The position of the innermost key or item on the path that the text has.
pub(crate) fn of_toml_path(text: &str, path: &[Step]) -> Option<Position> {
    let document = DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut value: Option<&DeValue<'_>> = None;
    let mut found = None;
    for step in path {
        let next = match step {
            Step::Key(key) => table.and_then(|table| table.get_key_value(key.as_str())),
            Step::Index(index) => {
                let item = value.and_then(DeValue::as_array).and_then(|items| items.get(*index));
                let Some(item) = item else { break };
                found = Some(item.span().start);
                (table, value) = (item.get_ref().as_table(), Some(item.get_ref()));
                continue;
            }
        };
        let Some((key, item)) = next else { break };
        found = Some(key.span().start);
        (table, value) = (item.get_ref().as_table(), Some(item.get_ref()));
    }
    found.map(|offset| Position::of_offset(text, offset))
}
