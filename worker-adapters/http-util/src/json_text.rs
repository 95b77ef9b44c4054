//! Text out of JSON without an allocation per string.
//!
//! `serde_json` borrows a string only when it holds no escape, and fails otherwise; a `Cow` allocates for every line feed
//! that a model writes. So token text is taken as `&RawValue`, which always borrows, and unescaped here into a buffer that
//! lives as long as the stream.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// Why a raw JSON value is not a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonTextError {
    /// It is a number, an object, …
    #[error("not a json string")]
    NotAString,
    /// An escape that JSON does not have, or half of a surrogate pair.
    #[error("a bad escape in a json string")]
    BadEscape,
}

/// The text of a raw JSON string, quotes included (as `RawValue::get` gives it). Borrowed from `raw` when nothing is
/// escaped, else written into `scratch`, whose earlier content is dropped.
///
/// # Errors
/// When `raw` is not a JSON string.
pub fn unescape<'a>(raw: &'a str, scratch: &'a mut String) -> Result<&'a str, JsonTextError> {
    let inner = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).ok_or(JsonTextError::NotAString)?;
    let Some(first) = memchr::memchr(b'\\', inner.as_bytes()) else {
        return Ok(inner);
    };
    scratch.clear();
    let (plain, mut rest) = inner.split_at(first);
    scratch.push_str(plain);
    while let Some(escape) = rest.strip_prefix('\\') {
        let (character, behind) = read_escape(escape)?;
        scratch.push(character);
        let next = memchr::memchr(b'\\', behind.as_bytes()).unwrap_or(behind.len());
        let (plain, tail) = behind.split_at(next);
        scratch.push_str(plain);
        rest = tail;
    }
    Ok(scratch)
}

/// Reads what follows a backslash.
fn read_escape(escape: &str) -> Result<(char, &str), JsonTextError> {
    let character = match escape.as_bytes().first() {
        Some(b'n') => '\n',
        Some(b't') => '\t',
        Some(b'r') => '\r',
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(byte @ (b'"' | b'\\' | b'/')) => char::from(*byte),
        Some(b'u') => return read_unicode(&escape[1..]),
        _ => return Err(JsonTextError::BadEscape),
    };
    Ok((character, &escape[1..]))
}

fn read_unicode(digits: &str) -> Result<(char, &str), JsonTextError> {
    let (unit, rest) = read_unit(digits)?;
    if let Some(character) = char::from_u32(unit) {
        return Ok((character, rest));
    }
    let low = rest.strip_prefix("\\u").ok_or(JsonTextError::BadEscape)?;
    let (low, rest) = read_unit(low)?;
    if !(0xD800..0xDC00).contains(&unit) || !(0xDC00..0xE000).contains(&low) {
        return Err(JsonTextError::BadEscape);
    }
    let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
    Ok((char::from_u32(code).ok_or(JsonTextError::BadEscape)?, rest))
}

fn read_unit(digits: &str) -> Result<(u32, &str), JsonTextError> {
    let (unit, rest) = digits.split_at_checked(4).ok_or(JsonTextError::BadEscape)?;
    if !unit.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(JsonTextError::BadEscape);
    }
    u32::from_str_radix(unit, 16).map(|unit| (unit, rest)).map_err(|_| JsonTextError::BadEscape)
}

/// The first element of a JSON array, if any; the others are read past. Engines send arrays of choices that hold one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First<T>(pub Option<T>);

impl<T> Default for First<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for First<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(FirstVisitor(PhantomData))
    }
}

struct FirstVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FirstVisitor<T> {
    type Value = First<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<First<T>, A::Error> {
        let first = elements.next_element()?;
        while elements.next_element::<IgnoredAny>()?.is_some() {}
        Ok(First(first))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    /// What serde_json makes of the same literal.
    fn check(raw: &str) {
        let mut scratch = String::from("left over");
        let expected = serde_json::from_str::<String>(raw).ok();
        assert_eq!(unescape(raw, &mut scratch).ok().map(str::to_owned), expected, "{raw}");
    }

    #[test]
    fn escapes_and_their_errors() {
        for raw in [
            r#""""#,
            r#""plain 你好""#,
            r#""\"\\\/\b\f\n\r\tend""#,
            r#""\u00e9\ud83e\udd99x""#,
            r#""\ud83e""#,
            r#""\ud83e\u0041""#,
            r#""\udd99\ud83e""#,
            r#""\u12""#,
            r#""\u+123""#,
            r#""\x""#,
            "1",
            "\"",
        ] {
            check(raw);
        }
    }

    #[test]
    fn plain_text_is_borrowed_and_the_scratch_is_reused() {
        let mut scratch = String::with_capacity(16);
        let raw = "\"plain\"";
        assert!(std::ptr::eq(unescape(raw, &mut scratch).unwrap(), &raw[1..6]));
        let allocations = allocation_counter::measure(|| {
            unescape(r#""a\nb\u00e9""#, &mut scratch).unwrap();
        });
        assert_eq!(allocations.count_total, 0);
    }

    #[test]
    fn the_first_of_an_array() {
        let first = |text| serde_json::from_str::<First<u8>>(text).unwrap().0;
        assert_eq!((first("[]"), first("[1]"), first("[1,{\"x\":2}]")), (None, Some(1), Some(1)));
        assert!(serde_json::from_str::<First<u8>>("{}").is_err());
    }

    proptest! {
        #[test]
        fn same_as_serde_json(text in any::<String>(), ascii_only in any::<bool>()) {
            let mut raw = serde_json::to_string(&text).unwrap();
            if ascii_only {
                raw = raw.encode_utf16().fold(String::new(), |out, unit| match u8::try_from(unit) {
                    Ok(byte) if byte.is_ascii() => out + &char::from(byte).to_string(),
                    _ => out + &format!("\\u{unit:04x}"),
                });
            }
            let value: Box<RawValue> = serde_json::from_str(&raw).unwrap();
            let mut scratch = String::new();
            prop_assert_eq!(unescape(value.get(), &mut scratch).unwrap(), &text);
        }

        #[test]
        fn same_verdict_as_serde_json_on_any_escapes(text in r#"(\\[\\u"nbx]|[0-9a-fDd8C]){0,12}"#) {
            let raw = format!("\"{text}\"");
            // A quote in the middle cannot come out of a raw value.
            prop_assume!(serde_json::from_str::<&RawValue>(&raw).is_ok());
            check(&raw);
        }
    }
}
