//! One line of a log.

use std::fmt;

use narration_core::{redact, time_stamp};

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The engine's standard output.
    Stdout,
    /// The engine's standard error.
    Stderr,
    /// Ours.
    Note,
}

impl Source {
    const ALL: [Self; 3] = [Self::Stdout, Self::Stderr, Self::Note];

    /// As it stands in the file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "out",
            Self::Stderr => "err",
            Self::Note => "---",
        }
    }
}

/// A line of a log, its secrets masked. Displays as it stands in the file: `2026-01-31T23:59:59.999Z err text`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was read, RFC 3339 in UTC.
    pub at: String,
    /// Where it comes from.
    pub source: Source,
    /// What it says.
    pub text: String,
}

impl LogLine {
    /// A line that comes now. Control characters go, among them those that colour a terminal.
    #[must_use]
    pub fn new(source: Source, text: &str) -> Self {
        let plain = plain(text);
        Self { at: time_stamp(), source, text: redact(&plain).into_owned() }
    }

    /// Reads a line of a file; `None` if it is none.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (at, rest) = line.split_once(' ')?;
        let (source, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let source = Source::ALL.into_iter().find(|known| known.as_str() == source)?;
        Some(Self { at: at.to_owned(), source, text: text.to_owned() })
    }
}

impl fmt::Display for LogLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.at, self.source.as_str(), self.text)
    }
}

/// The text without escape sequences and control characters. Source: ECMA-48, 5.4 for control sequences.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                while chars.next_if(|c| matches!(c, '\u{20}'..='\u{3f}')).is_some() {}
                chars.next_if(|c| matches!(c, '\u{40}'..='\u{7e}'));
            }
            '\t' => out.push(c),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{LogLine, Source};

    /// ORCH-3302: what an engine prints is masked before it is kept.
    #[test]
    fn secrets_and_colours_go() {
        let line = LogLine::new(Source::Stderr, "\u{1b}[31mloading\u{1b}[0m with token=abcdef\u{7} \u{1b}[2K50%");
        assert_eq!(line.text, "loading with token=[redacted] 50%");
    }

    #[test]
    fn a_line_reads_back_as_it_was_written() {
        for (source, text) in [(Source::Stdout, "a  b "), (Source::Stderr, ""), (Source::Note, "started")] {
            let line = LogLine::new(source, text);
            assert_eq!(LogLine::parse(&line.to_string()), Some(line));
        }
        assert_eq!(LogLine::parse("torn li"), None);
    }
}
