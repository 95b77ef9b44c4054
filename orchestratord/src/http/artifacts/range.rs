//! Which part of a document a request asks for (RFC 9110, sections 13 and 14).

use std::ops::Range;

use axum::http::header::{IF_RANGE, RANGE};
use axum::http::{HeaderMap, HeaderValue};

/// What a `Range` header comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// There is none, or one that is not understood and may be passed over: several ranges, another unit.
    All,
    /// These bytes; there is at least one.
    Part(Range<usize>),
    /// Bytes that are not there.
    Nothing,
}

impl Asked {
    /// What these headers ask of a document of so many bytes.
    pub(super) fn of(headers: &HeaderMap, etag: &str, length: usize) -> Self {
        let is_stale = headers.get(IF_RANGE).is_some_and(|known| known.as_bytes() != etag.as_bytes());
        let asked = headers.get(RANGE).filter(|_| !is_stale).and_then(|range| range.to_str().ok());
        asked.and_then(|range| Self::read(range, length)).unwrap_or(Self::All)
    }

    fn read(range: &str, length: usize) -> Option<Self> {
        let (unit, range) = range.split_once('=')?;
        let (first, last) = range.split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().unwrap_or(usize::MAX));
        let part = match (first.trim(), last.trim()) {
            ("", "") => return None,
            ("", last) => length.saturating_sub(number(last)?)..length,
            (first, "") => number(first)?..length,
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(length)
            }
        };
        Some(if part.is_empty() { Self::Nothing } else { Self::Part(part) })
    }
}

/// Whether `If-None-Match` has this tag among its tags.
pub(super) fn names(header: Option<&HeaderValue>, etag: &str) -> bool {
    let tags = header.and_then(|tags| tags.to_str().ok()).unwrap_or_default().split(',');
    tags.map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use super::Asked;

    #[test]
    fn ranges_are_read() {
        let cases = [
            ("bytes=0-3", Some(Asked::Part(0..4))),
            ("bytes=0-0", Some(Asked::Part(0..1))),
            ("Bytes=6-", Some(Asked::Part(6..10))),
            ("bytes=-3", Some(Asked::Part(7..10))),
            ("bytes=-99", Some(Asked::Part(0..10))),
            ("bytes=8-99999999999999999999999", Some(Asked::Part(8..10))),
            ("bytes=10-", Some(Asked::Nothing)),
            ("bytes=10-12", Some(Asked::Nothing)),
            ("bytes=-0", Some(Asked::Nothing)),
            ("bytes=3-2", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=0-1,4-5", None),
            ("lines=0-1", None),
            ("0-1", None),
        ];
        for (header, expected) in cases {
            assert_eq!(Asked::read(header, 10), expected, "{header}");
        }
        assert_eq!(Asked::read("bytes=0-", 0), Some(Asked::Nothing));
    }
}
