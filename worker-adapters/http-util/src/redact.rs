//! What must not be printed (LO-WAD-12, ORCH-3278): keys, tokens, cookies, by their header, their shape or their name.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// What stands in for a credential.
pub const MASK: &str = "[redacted]";

/// Headers whose value is a credential.
const SECRET_HEADERS: [&str; 5] = ["authorization", "proxy-authorization", "x-api-key", "cookie", "set-cookie"];

/// Beginnings of keys that say themselves what they are.
const PREFIXES: [&str; 15] = [
    "sk-",
    "pk-",
    "rk-",
    "hf_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "nvapi-",
    "xoxb-",
    "xoxp-",
    "AKIA",
    "eyJ",
];
/// Fewest characters behind a prefix.
const MIN_AFTER_PREFIX: usize = 8;

/// Ends of names whose value is a credential when it has at least so many characters.
const NAMES: [(&str, usize); 7] =
    [("password", 1), ("passwd", 1), ("secret", 1), ("key", 12), ("token", 12), ("credential", 1), ("auth", 12)];

/// A key that never prints. Not comparable: a comparison that takes time by its content would tell it bit by bit.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The key itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(key: &str) -> Self {
        Self(key.into())
    }
}

impl From<String> for Secret {
    fn from(key: String) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Whether a header's value is a credential.
#[must_use]
pub fn is_secret_header(name: &str) -> bool {
    SECRET_HEADERS.iter().any(|secret| secret.eq_ignore_ascii_case(name))
}

/// The text with everything masked that looks like a credential. Borrowed when there is nothing to mask.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let (mut out, mut copied, mut at) = (String::new(), 0, 0);
    while let Some(word) = next_word(text, at) {
        at = word.end;
        let Some(secret) = secret_at(text, &word) else { continue };
        out.push_str(&text[copied..secret.start]);
        out.push_str(MASK);
        (copied, at) = (secret.end, secret.end);
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[copied..]);
    Cow::Owned(out)
}

/// Where a credential begins and ends that `word` is or announces.
fn secret_at(text: &str, word: &Range<usize>) -> Option<Range<usize>> {
    let name = &text[word.clone()];
    let behind = &text[word.end..];
    if is_secret_header(name)
        && let Some(value) = after_separator(behind)
    {
        let start = text.len() - value.len();
        let length = value.find(['\r', '\n']).unwrap_or(value.len());
        return (length > 0).then_some(start..start + length);
    }
    if name.eq_ignore_ascii_case("bearer") {
        return value_of(text, behind.trim_start_matches(' '), 1);
    }
    if PREFIXES.iter().any(|prefix| name.starts_with(prefix) && name.len() >= prefix.len() + MIN_AFTER_PREFIX) {
        // A token's own characters go beyond those of a word.
        return value_of(text, &text[word.start..], 1);
    }
    let lower = name.to_ascii_lowercase();
    let (_, least) = NAMES.iter().find(|(end, _)| lower.ends_with(end))?;
    value_of(text, after_separator(behind)?, *least)
}

/// What follows `: `, `=`, `":"` and the like.
fn after_separator(behind: &str) -> Option<&str> {
    let quotes = ['"', '\'', ' '];
    let value = behind.trim_start_matches(quotes).strip_prefix([':', '='])?;
    Some(value.trim_start_matches(quotes))
}

/// The credential at the beginning of `value`, a tail of `text`, if it is long enough.
fn value_of(text: &str, value: &str, least: usize) -> Option<Range<usize>> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.~+/=%".contains(c);
    let length = value.find(|c| !is_token(c)).unwrap_or(value.len());
    let start = text.len() - value.len();
    (length >= least).then_some(start..start + length)
}

/// The next run of letters, digits, `-` and `_` from `at`.
fn next_word(text: &str, at: usize) -> Option<Range<usize>> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let start = at + text[at..].find(is_word)?;
    let length = text[start..].find(|c| !is_word(c)).unwrap_or(text.len() - start);
    Some(start..start + length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// LO-WAD-12, ORCH-3278, OC-ADAPT-OAI-6020: by header, by shape and by name.
    #[test]
    fn what_is_masked() {
        for (text, masked) in [
            ("Authorization: Basic dXNlcjpw\r\nHost: x", "Authorization: [redacted]\r\nHost: x"),
            ("x-api-key:abc", "x-api-key:[redacted]"),
            ("{\"Cookie\": \"a=b; c=d\"}", "{\"Cookie\": \"[redacted]"),
            ("Proxy-Authorization: x y", "Proxy-Authorization: [redacted]"),
            ("got bearer abc.def-123 back", "got bearer [redacted] back"),
            ("key sk-proj-0123456789abcdef.", "key [redacted]"),
            ("(hf_abcdefghijkl)", "([redacted])"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln", "jwt [redacted]"),
            ("?api_key=0123456789abcdef&x=1", "?api_key=[redacted]&x=1"),
            ("\"accessToken\": \"c29tZXRoaW5nbG9uZw==\"", "\"accessToken\": \"[redacted]\""),
            ("password=a", "password=[redacted]"),
        ] {
            assert_eq!(redact(text), masked);
        }
    }

    #[test]
    fn what_is_left_alone() {
        for text in [
            "request (3002 tokens) exceeds the available context size (1024 tokens)",
            "token: 5279, key=short, tokens=123456789012345",
            "sk-1 hf_x the key is in the environment; no auth",
            "你好 🦙",
        ] {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text}");
        }
        assert_eq!(format!("{:?}", Secret::from("sk-secret")), MASK);
    }

    proptest! {
        #[test]
        fn never_panics_and_masks_wherever_it_stands(before in "\\PC{0,20}", after in "\\PC{0,20}") {
            let text = format!("{before} sk-abcdefgh12345678 {after}");
            prop_assert!(!redact(&text).contains("abcdefgh12345678"));
        }
    }
}
