//! Masks secrets in text (ORCH-3302, ORCH-3037.4).
//!
//! A secret follows a delimiter, and the word before the delimiter tells: `Bearer x`, `sk-x`, `hf_x`, `token=x`,
//! `api_key: x`, `://user:x@host`. So the text is read once, and only delimiters are looked at closely.

use std::borrow::Cow;

/// What stands in place of a secret.
const MASK: &str = "[redacted]";

/// Prefixes that well-known services put before their keys; what follows is the key.
const KEY_PREFIXES: &[&str] = &["sk", "hf", "ghp", "github_pat"];

/// Shortest key after such a prefix; shorter ones are ordinary words such as `hf_hub`.
const SHORTEST_KEY: usize = 8;

/// Names whose value is secret after `=` or `:`, alone or after `_` or `-`, as in `hf_access_token`.
const SECRET_NAMES: &[&str] =
    &["api_key", "api-key", "apikey", "access_token", "auth_token", "password", "passwd", "secret", "authorization"];

/// Names whose value is secret after `=` only: `identity=token:<fp6>` is no secret.
const SECRET_SETTINGS: &[&str] = &["token", "key"];

/// The text with its secrets masked; borrowed when there are none.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    // Without an early exit this loop is vectorised, and most values are single words.
    if !bytes.iter().fold(false, |found, b| found | is_delimiter(*b)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let secret = if is_delimiter(bytes[at]) { secret_after(bytes, at) } else { None };
        match secret {
            Some((start, end)) => {
                // Both ends stand beside ASCII delimiters or at the end of the text, so they are character boundaries.
                clean.push_str(&text[copied..start]);
                clean.push_str(MASK);
                copied = end;
                at = end;
            }
            None => at += 1,
        }
    }
    if copied == 0 { Cow::Borrowed(text) } else { Cow::Owned(clean + &text[copied..]) }
}

/// Whether a field of this name holds a secret whatever its value looks like.
pub(crate) fn is_secret_name(name: &str) -> bool {
    name == "token" || ends_with_name(name.as_bytes(), SECRET_NAMES)
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b' ' | b'-' | b'_' | b'=' | b':')
}

/// The secret behind the delimiter at `at`, if there is one.
fn secret_after(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (before, start) = (&bytes[..at], at + 1);
    match bytes[at] {
        // Cheapest test first: most spaces are between ordinary words.
        b' ' if matches!(before.last(), Some(b'r' | b'R' | b'c' | b'C')) => {
            let scheme = ["bearer", "basic"].iter().any(|scheme| ends_with_word(before, scheme));
            let end = value_end(bytes, start);
            // "a bearer token" is an ordinary phrase.
            (scheme && end > start && !is_phrase(&bytes[start..end])).then_some((start, end))
        }
        b'-' | b'_' if matches!(before.last(), Some(b'k' | b'K' | b'f' | b'F' | b'p' | b'P' | b't' | b'T')) => {
            let prefix = KEY_PREFIXES.iter().any(|prefix| ends_with_word(before, prefix));
            let end = start + bytes[start..].iter().take_while(|b| is_key_byte(**b)).count();
            (prefix && end - start >= SHORTEST_KEY).then_some((start, end))
        }
        b'=' if ends_with_name(before, SECRET_SETTINGS) => value(bytes, start),
        b'=' | b':' if ends_with_name(before, SECRET_NAMES) => value(bytes, start),
        b':' => password_in_url(bytes, at),
        _ => None,
    }
}

fn is_phrase(word: &[u8]) -> bool {
    ["token", "tokens", "auth", "authentication", "scheme"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Whether the text ends with the word, and the word starts there.
fn ends_with_word(before: &[u8], word: &str) -> bool {
    ends_with(before, word).is_some_and(|rest| !rest.last().is_some_and(|b| b.is_ascii_alphanumeric()))
}

/// Whether the text ends with one of the names, in quotes or not; something may stand before it if set off by `_` or `-`.
fn ends_with_name(before: &[u8], names: &[&str]) -> bool {
    let before = before.strip_suffix(b"\"").or_else(|| before.strip_suffix(b"\\\"")).unwrap_or(before);
    let before = before.strip_suffix(b"\\").unwrap_or(before);
    names.iter().any(|name| ends_with_word(before, name))
}

fn ends_with<'a>(before: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let (rest, end) = before.split_at_checked(before.len().checked_sub(word.len())?)?;
    end.eq_ignore_ascii_case(word.as_bytes()).then_some(rest)
}

/// The value that starts at `start`, after a space and an opening quote; after a scheme, if there is one.
fn value(bytes: &[u8], start: usize) -> Option<(usize, usize)> {
    let skip = |from: usize| bytes[from..].iter().take_while(|b| matches!(b, b' ' | b'"' | b'\'' | b'\\')).count();
    let mut start = start + skip(start);
    let mut end = value_end(bytes, start);
    if ["bearer", "basic"].iter().any(|scheme| bytes[start..end].eq_ignore_ascii_case(scheme.as_bytes())) {
        start = end + skip(end);
        end = value_end(bytes, start);
    }
    (end > start && &bytes[start..end] != MASK.as_bytes()).then_some((start, end))
}

fn value_end(bytes: &[u8], start: usize) -> usize {
    let ends =
        |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'\'' | b'\\' | b',' | b';' | b'&' | b')' | b'}' | b'<');
    start + bytes[start..].iter().take_while(|b| !ends(b)).count()
}

/// The password of `://user:password@host`, given the place of its colon.
fn password_in_url(bytes: &[u8], colon: usize) -> Option<(usize, usize)> {
    let user_start = bytes[..colon].iter().rposition(|b| matches!(b, b'/' | b' '))?;
    if !bytes[..=user_start].ends_with(b"://") {
        return None;
    }
    let end = value_end(bytes, colon + 1);
    let authority_end = bytes[colon..end].iter().position(|b| *b == b'/').map_or(end, |slash| colon + slash);
    let at = bytes[colon..authority_end].iter().rposition(|b| *b == b'@')?;
    (at > 1).then_some((colon + 1, colon + at))
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::redact;

    /// ORCH-3302, ORCH-3037.4, AUTH-1008, LO-MOD-03: common forms of secrets are masked, what only looks alike stays.
    #[test]
    fn common_forms() {
        let masked = [
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
            ("curl -H 'authorization: bearer s3cret' x", "curl -H 'authorization: bearer [redacted]' x"),
            ("sent Bearer s3cret to", "sent Bearer [redacted] to"),
            ("key sk-abcdefgh1234 refused", "key sk-[redacted] refused"),
            ("hf_AbCdEfGhIjKl", "hf_[redacted]"),
            ("github_pat_11ABCDEFG0", "github_pat_[redacted]"),
            ("https://h/x?token=abc&y=1", "https://h/x?token=[redacted]&y=1"),
            ("https://h/x?api_key=a%2Fb", "https://h/x?api_key=[redacted]"),
            (r#"{"api_key":"abc","n":1}"#, r#"{"api_key":"[redacted]","n":1}"#),
            (r#"{\"api_key\": \"abc\"}"#, r#"{\"api_key\": \"[redacted]\"}"#),
            ("X-API-Key: abc", "X-API-Key: [redacted]"),
            ("HF_TOKEN=abc AWS_SECRET=d", "HF_TOKEN=[redacted] AWS_SECRET=[redacted]"),
            ("password = 'it'", "password = 'it'"),
            ("password='it'", "password='[redacted]'"),
            ("https://user:hunter2@host/path", "https://user:[redacted]@host/path"),
            ("Basic dXNlcjpwYXNz", "Basic [redacted]"),
            ("token=é", "token=[redacted]"),
        ];
        for (text, expected) in masked {
            assert_eq!(redact(text), expected, "{text}");
        }
        let kept = [
            "identity=token:ba7816",
            "tokens_out=12 max_tokens=5",
            "MISSING_TOKEN: this server wants a bearer token",
            "http://127.0.0.1:8080/v1/tasks",
            "queued on gpu0, 3 tasks ahead",
            "hf_hub and sk-1",
            "hf:org/repo/file.gguf",
            "monkey:3",
            "",
        ];
        for text in kept {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text} became {}", redact(text));
        }
    }

    proptest! {
        /// ORCH-3302: no secret survives wherever it stands, masking twice changes nothing, and no text breaks it.
        #[test]
        fn no_secret_survives(before in "\\PC{0,20}", secret in "[A-Za-z0-9]{12,30}", after in "\\PC{0,20}", form in 0..5) {
            let secret = format!("Zq9{secret}");
            let told = match form {
                0 => format!("Bearer {secret}"),
                1 => format!("sk-{secret}"),
                2 => format!("token={secret}"),
                3 => format!("\"password\":\"{secret}\""),
                _ => format!("https://u:{secret}@h"),
            };
            let clean = redact(&format!("{before} {told} {after}")).into_owned();
            prop_assert!(!clean.contains(&secret), "{clean}");
            prop_assert_eq!(redact(&clean).into_owned(), clean.clone());
        }

        #[test]
        fn any_text_is_taken(text in "\\PC*") {
            let _ = redact(&text);
        }
    }
}
