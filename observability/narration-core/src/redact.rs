//! Masks credentials in text (ORCH-3302, ORCH-3037.4, ORCH-3278, LO-WAD-12): for log lines, and for what engines and
//! libraries say before it is passed on.
//!
//! A credential tells itself by the header or name before it, as in `Cookie: x`, `Bearer x`, `token=x`, `api_key: x` and
//! `://user:x@host`, or by its own beginning, as in `sk-x`, `hf_x` and `eyJx`. Each of these has a byte that is rare
//! enough in prose, so the text is read once, and only such bytes are looked at closely.

use std::borrow::Cow;

/// What stands in place of a secret.
pub const REDACTED: &str = "[redacted]";

/// What well-known services put before their keys, without the `-` or `_` behind it.
const KEY_PREFIXES: &[&str] =
    &["sk", "pk", "rk", "hf", "ghp", "gho", "ghs", "ghu", "github_pat", "glpat", "nvapi", "xoxb", "xoxp"];

/// Shortest key after such a prefix; shorter ones are ordinary words such as `hf_hub`.
const SHORTEST_KEY: usize = 8;

/// Headers whose value is secret up to the end of the line, alone or after `_` or `-`, as in `set-cookie`.
const SECRET_HEADERS: &[&str] = &["authorization", "x-api-key", "cookie"];

/// Ends of names whose value is secret after `=` or `:`.
const SECRET_NAMES: &[&str] =
    &["api_key", "api-key", "apikey", "access_token", "auth_token", "password", "passwd", "secret", "credential"];

/// Names whose value is secret after `=` only: `identity=token:<fp6>` is no secret.
const SECRET_SETTINGS: &[&str] = &["token", "key", "bearer"];

/// Ends of names whose value is secret when it is long: `token: 5279` is a number of the vocabulary.
const SECRET_WHEN_LONG: &[&str] = &["token", "key", "auth"];

/// Shortest value after such a name.
const LONG: usize = 12;

/// The text with its secrets masked; borrowed when there are none.
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let bytes = text.as_bytes();
    // Without an early exit this loop is vectorised, and most values are single words.
    if !bytes.iter().fold(false, |found, b| found | is_mark(*b)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::new();
    let mut copied = 0;
    let mut at = 0;
    while at < bytes.len() {
        let secret = if is_mark(bytes[at]) { secret_at(bytes, at) } else { None };
        match secret {
            Some((start, end)) => {
                // Both ends stand beside ASCII delimiters or at the end of the text, so they are character boundaries.
                clean.push_str(&text[copied..start]);
                clean.push_str(REDACTED);
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
    let name = name.as_bytes();
    name == b"token" || ends_with_any(name, SECRET_NAMES) || ends_with_any_word(name, SECRET_HEADERS)
}

fn is_mark(byte: u8) -> bool {
    matches!(byte, b' ' | b'-' | b'_' | b'=' | b':' | b'J' | b'K')
}

/// The secret that the byte at `at` is a mark of, if there is one.
fn secret_at(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let (before, start) = (&bytes[..at], at + 1);
    match bytes[at] {
        // Cheapest test first: most spaces are between ordinary words.
        b' ' if matches!(before.last(), Some(b'r' | b'R' | b'c' | b'C')) => after_scheme(bytes, at),
        b'-' | b'_' if before.last().is_some_and(|b| ends_a_prefix(*b)) => {
            let prefix = KEY_PREFIXES.iter().find(|prefix| ends_with_word(before, prefix))?;
            key(bytes, at - prefix.len(), start)
        }
        // A JSON Web Token: `{"` in base64.
        b'J' if before.ends_with(b"ey") => key(bytes, at - 2, start),
        // An id of an AWS access key.
        b'K' if before.ends_with(b"A") && bytes[start..].starts_with(b"IA") => key(bytes, at - 1, start + 2),
        b'=' => named_value(bytes, at),
        b':' => password_in_url(bytes, at).or_else(|| named_value(bytes, at)),
        _ => None,
    }
}

/// Whether one of the [`KEY_PREFIXES`] ends with this letter.
fn ends_a_prefix(letter: u8) -> bool {
    matches!(letter.to_ascii_lowercase(), b'k' | b'f' | b'p' | b'o' | b's' | b'u' | b't' | b'i' | b'b')
}

/// What follows `Bearer` or `Basic`, given the place of the space behind it.
fn after_scheme(bytes: &[u8], space: usize) -> Option<(usize, usize)> {
    let start = space + bytes[space..].iter().take_while(|b| **b == b' ').count();
    let end = value_end(bytes, start);
    // "a bearer token" is an ordinary phrase.
    let is_secret = ends_with_any_word(&bytes[..space], &["bearer", "basic"]) && !is_phrase(&bytes[start..end]);
    (is_secret && end > start).then_some((start, end))
}

/// The key that begins at `start`, if it is a word of its own and long enough behind its prefix.
fn key(bytes: &[u8], start: usize, behind_prefix: usize) -> Option<(usize, usize)> {
    let length = bytes[behind_prefix..].iter().take_while(|b| is_key_byte(**b)).count();
    // A token's own characters go beyond those of a word.
    (is_word_start(&bytes[..start]) && length >= SHORTEST_KEY).then(|| (start, value_end(bytes, behind_prefix)))
}

fn is_phrase(word: &[u8]) -> bool {
    ["token", "tokens", "auth", "authentication", "scheme"]
        .iter()
        .any(|known| word.eq_ignore_ascii_case(known.as_bytes()))
}

fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Whether a word may start behind this text.
fn is_word_start(before: &[u8]) -> bool {
    !before.last().is_some_and(u8::is_ascii_alphanumeric)
}

/// Whether the text ends with the word, and the word starts there; something may stand before it if set off, as by `_`.
fn ends_with_word(before: &[u8], word: &str) -> bool {
    ends_with(before, word).is_some_and(is_word_start)
}

fn ends_with_any_word(before: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| ends_with_word(before, word))
}

fn ends_with_any(before: &[u8], ends: &[&str]) -> bool {
    ends.iter().any(|end| ends_with(before, end).is_some())
}

fn ends_with<'a>(before: &'a [u8], word: &str) -> Option<&'a [u8]> {
    let (rest, end) = before.split_at_checked(before.len().checked_sub(word.len())?)?;
    end.eq_ignore_ascii_case(word.as_bytes()).then_some(rest)
}

/// The value behind the `=` or `:` at `separator`, if the name before it says that it is secret.
fn named_value(bytes: &[u8], separator: usize) -> Option<(usize, usize)> {
    let quotes = bytes[..separator].iter().rev().take_while(|b| is_quote(**b)).count();
    let name = &bytes[..separator - quotes];
    let start = skip_quotes(bytes, separator + 1);
    if ends_with_any_word(name, SECRET_HEADERS) {
        let length = bytes[start..].iter().take_while(|b| !matches!(b, b'\r' | b'\n')).count();
        return masked_once(bytes, start, start + length);
    }
    let (start, end) = value(bytes, start)?;
    (end - start >= least_length(name, bytes[separator])?).then_some((start, end))
}

/// Fewest bytes of a secret with this name; `None` when the name tells of none.
fn least_length(name: &[u8], separator: u8) -> Option<usize> {
    let is_setting = separator == b'=' && ends_with_any_word(name, SECRET_SETTINGS);
    if is_setting || ends_with_any(name, SECRET_NAMES) {
        Some(1)
    } else {
        ends_with_any(name, SECRET_WHEN_LONG).then_some(LONG)
    }
}

/// The value that starts at `start`; after a scheme, if there is one.
fn value(bytes: &[u8], mut start: usize) -> Option<(usize, usize)> {
    let mut end = value_end(bytes, start);
    if ["bearer", "basic"].iter().any(|scheme| bytes[start..end].eq_ignore_ascii_case(scheme.as_bytes())) {
        start = skip_quotes(bytes, end);
        end = value_end(bytes, start);
    }
    masked_once(bytes, start, end)
}

/// The range, unless it is empty or masked already.
fn masked_once(bytes: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
    (end > start && &bytes[start..end] != REDACTED.as_bytes()).then_some((start, end))
}

/// What may stand between a name, its separator and its value.
fn is_quote(byte: u8) -> bool {
    matches!(byte, b' ' | b'"' | b'\'' | b'\\')
}

fn skip_quotes(bytes: &[u8], from: usize) -> usize {
    from + bytes[from..].iter().take_while(|b| is_quote(**b)).count()
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

    /// ORCH-3302, ORCH-3037.4, ORCH-3278, AUTH-1008, LO-MOD-03, LO-WAD-12, OC-ADAPT-OAI-6020: common forms of secrets are masked, what only looks alike stays.
    #[test]
    fn common_forms() {
        let masked = [
            ("Authorization: Bearer abc.def-123", "Authorization: [redacted]"),
            ("curl -H 'authorization: bearer s3cret' x", "curl -H 'authorization: [redacted]"),
            ("sent Bearer s3cret to", "sent Bearer [redacted] to"),
            ("key sk-abcdefgh1234 refused", "key [redacted] refused"),
            ("hf_AbCdEfGhIjKl", "[redacted]"),
            ("github_pat_11ABCDEFG0", "[redacted]"),
            ("https://h/x?token=abc&y=1", "https://h/x?token=[redacted]&y=1"),
            ("https://h/x?api_key=a%2Fb", "https://h/x?api_key=[redacted]"),
            (r#"{"api_key":"abc","n":1}"#, r#"{"api_key":"[redacted]","n":1}"#),
            (r#"{\"api_key\": \"abc\"}"#, r#"{\"api_key\": \"[redacted]\"}"#),
            ("X-API-Key: abc", "X-API-Key: [redacted]"),
            ("HF_TOKEN=abc AWS_SECRET=d", "HF_TOKEN=[redacted] AWS_SECRET=[redacted]"),
            ("password = 'it'", "password = '[redacted]'"),
            ("password='it'", "password='[redacted]'"),
            ("https://user:hunter2@host/path", "https://user:[redacted]@host/path"),
            ("Basic dXNlcjpwYXNz", "Basic [redacted]"),
            ("token=é", "token=[redacted]"),
            ("Authorization: Basic dXNlcjpw\r\nHost: x", "Authorization: [redacted]\r\nHost: x"),
            ("x-api-key:abc", "x-api-key:[redacted]"),
            ("{\"Cookie\": \"a=b; c=d\"}", "{\"Cookie\": \"[redacted]"),
            ("Proxy-Authorization: x y", "Proxy-Authorization: [redacted]"),
            ("got bearer abc.def-123 back", "got bearer [redacted] back"),
            ("Bearer  s3cret, bearer=s3cret", "Bearer  [redacted], bearer=[redacted]"),
            ("key sk-proj-0123456789abcdef.", "key [redacted]"),
            ("(hf_abcdefghijkl)", "([redacted])"),
            ("glpat-12345678 xoxb-12345678 AKIA12345678", "[redacted] [redacted] [redacted]"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIi.c2ln", "jwt [redacted]"),
            ("?api_key=0123456789abcdef&x=1", "?api_key=[redacted]&x=1"),
            ("\"accessToken\": \"c29tZXRoaW5nbG9uZw==\"", "\"accessToken\": \"[redacted]\""),
            ("password=a", "password=[redacted]"),
            ("token: 5279, key=short", "token: 5279, key=[redacted]"),
            ("https://key:hunter2@h", "https://key:[redacted]@h"),
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
            "monKey JSON greyJacket12 NAKIA",
            "request (3002 tokens) exceeds the available context size (1024 tokens)",
            "token: 5279, tokens=123456789012345",
            "sk-1 hf_x the key is in the environment; no auth",
            "你好 🦙",
            "",
        ];
        for text in kept {
            assert!(matches!(redact(text), Cow::Borrowed(same) if same == text), "{text} became {}", redact(text));
        }
    }

    /// LO-WAD-12, ORCH-3278: every service's keys are known by their prefix.
    #[test]
    fn every_prefix() {
        for prefix in super::KEY_PREFIXES {
            for mark in ["-", "_"] {
                assert_eq!(redact(&format!("a {prefix}{mark}12345678 b")), "a [redacted] b");
            }
        }
    }

    proptest! {
        /// ORCH-3302: no secret survives wherever it stands, masking twice changes nothing, and no text breaks it.
        #[test]
        fn no_secret_survives(before in "\\PC{0,20}", secret in "[A-Za-z0-9]{12,30}", after in "\\PC{0,20}", form in 0..9) {
            let secret = format!("Zq9{secret}");
            let told = match form {
                0 => format!("Bearer {secret}"),
                1 => format!("sk-{secret}"),
                2 => format!("token={secret}"),
                3 => format!("\"password\":\"{secret}\""),
                4 => format!("Cookie: id={secret}"),
                5 => format!("eyJ{secret}.x"),
                6 => format!("AKIA{secret}"),
                7 => format!("accessToken: {secret}"),
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
