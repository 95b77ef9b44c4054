//! From an event to one line.

use tracing::{Level, Metadata};

use crate::clock;
use crate::record::{Kind, Record};

/// Keys that every JSON line starts with; an event's own fields of these names get an underscore.
const HEAD: [&str; 3] = ["ts", "level", "module"];

/// `{"ts":…,"level":…,"module":…, fields}` and a line break.
///
/// `module` is tracing's own target, under another name since `target` is what an action is done to (ORCH-3304). Narrated
/// events name an actor instead.
pub(crate) fn json(line: &mut String, metadata: &Metadata<'_>, record: &Record) {
    line.push_str("{\"ts\":\"");
    push_ascii(line, &clock::now());
    line.push_str("\",\"level\":\"");
    line.push_str(metadata.level().as_str());
    line.push('"');
    if record.get("actor").is_none() {
        line.push_str(",\"module\":");
        quoted(line, metadata.target());
    }
    for (name, kind, value) in record.iter() {
        line.push_str(if HEAD.contains(&name) { ",\"_" } else { ",\"" });
        // A field's name is a Rust identifier, which needs no escaping.
        line.push_str(name);
        line.push_str("\":");
        match kind {
            Kind::Text => quoted(line, value),
            Kind::Bare => line.push_str(value),
        }
    }
    line.push_str("}\n");
}

/// `time LEVEL sentence  key=value …`, with colours if asked for.
pub(crate) fn pretty(line: &mut String, metadata: &Metadata<'_>, record: &Record, colour: bool) {
    let paint = |code: &'static str| if colour { code } else { "" };
    line.push_str(paint(DIM));
    // The date is of no use to somebody who is watching.
    push_ascii(line, &clock::now()[11..clock::LEN - 1]);
    line.push_str(paint(RESET));
    line.push(' ');
    line.push_str(paint(level_colour(*metadata.level())));
    line.push_str(padded(*metadata.level()));
    line.push_str(paint(RESET));
    line.push(' ');
    let sentence = ["human", "message"].into_iter().find(|name| record.get(name).is_some());
    if let Some(name) = sentence {
        plain(line, record.get(name).unwrap_or_default());
    }
    line.push_str(paint(DIM));
    line.push(' ');
    for (name, _, value) in record.iter().filter(|(name, ..)| Some(*name) != sentence) {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        if value.is_empty() || value.contains([' ', '"', '=']) { quoted(line, value) } else { plain(line, value) }
    }
    if record.get("actor").is_none() {
        line.push_str(" module=");
        line.push_str(metadata.target());
    }
    line.push_str(paint(RESET));
    line.push('\n');
}

const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

fn level_colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

fn padded(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARN ",
        Level::INFO => "INFO ",
        Level::DEBUG => "DEBUG",
        Level::TRACE => "TRACE",
    }
}

fn push_ascii(line: &mut String, ascii: &[u8]) {
    line.push_str(std::str::from_utf8(ascii).expect("digits and punctuation"));
}

/// Text for a terminal: control characters, which could move its cursor or change its title, become visible.
fn plain(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() { line.extend(character.escape_default()) } else { line.push(character) }
    }
}

/// A JSON string (RFC 8259, section 7).
pub(crate) fn quoted(line: &mut String, text: &str) {
    line.push('"');
    // Without an early exit this loop is vectorised, and nearly every value passes.
    let escapes = text.bytes().fold(false, |found, b| found | (b < 0x20) | (b == b'"') | (b == b'\\'));
    if escapes {
        escaped(line, text);
    } else {
        line.push_str(text);
    }
    line.push('"');
}

fn escaped(line: &mut String, text: &str) {
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..=0x1f => "",
            _ => continue,
        };
        line.push_str(&text[copied..at]);
        copied = at + 1;
        if escape.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            line.push_str("\\u00");
            line.push(char::from(HEX[usize::from(byte >> 4)]));
            line.push(char::from(HEX[usize::from(byte & 15)]));
        } else {
            line.push_str(escape);
        }
    }
    line.push_str(&text[copied..]);
}
