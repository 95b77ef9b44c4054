//! The head of a response.

use std::time::Duration;

use super::StreamError;

const MAX_HEADERS: usize = 64;

/// What is kept of a response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// What kind of body it says to have.
    pub content_type: ContentType,
    /// `Retry-After`, when it is given in seconds.
    pub retry_after: Option<Duration>,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

/// The kinds of body that engines send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// `text/event-stream`.
    EventStream,
    /// `application/json`.
    Json,
    /// Anything else, or nothing.
    Other,
}

/// How the end of the body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    Close,
}

/// Parses a head at the beginning of `bytes` and gives its length with it; `None` when it is not complete yet.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, StreamError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(StreamError::Malformed("the head has too many headers"));
        }
        Err(_) => return Err(StreamError::Malformed("the head is not http/1.1")),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(StreamError::Malformed("the head has no status"));
    };
    Ok(Some((read_headers(status, version, response.headers)?, length)))
}

fn read_headers(status: u16, version: u8, headers: &[httparse::Header<'_>]) -> Result<Head, StreamError> {
    let mut keep_alive = version == 1;
    let (mut length, mut chunked) = (None, false);
    let (mut content_type, mut retry_after) = (ContentType::Other, None);
    for header in headers {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let value = parse_number(header.value).ok_or(StreamError::Malformed("content-length is not a number"))?;
            if length.is_some_and(|earlier| earlier != value) {
                return Err(StreamError::Malformed("two different content-lengths"));
            }
            length = Some(value);
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !header.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(StreamError::Malformed("a transfer-encoding other than chunked"));
            }
            chunked = true;
        } else if name.eq_ignore_ascii_case("content-encoding") {
            if !header.value.trim_ascii().eq_ignore_ascii_case(b"identity") {
                return Err(StreamError::Malformed("a compressed body that was not asked for"));
            }
        } else if name.eq_ignore_ascii_case("connection") {
            keep_alive = connection(header.value, keep_alive);
        } else if name.eq_ignore_ascii_case("content-type") {
            content_type = kind_of_body(header.value);
        } else if name.eq_ignore_ascii_case("retry-after") {
            retry_after = parse_number(header.value).map(Duration::from_secs);
        }
    }
    if chunked && length.is_some() {
        // RFC 9112, 6.3: the encoding wins, and the connection must not be trusted with another response.
        keep_alive = false;
    }
    Ok(Head { status, content_type, retry_after, framing: framing(status, chunked, length), keep_alive })
}

fn framing(status: u16, chunked: bool, length: Option<u64>) -> Framing {
    match (status, chunked, length) {
        (100..200 | 204 | 304, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked,
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::Close,
    }
}

fn connection(value: &[u8], default: bool) -> bool {
    let mut keep_alive = default;
    for word in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
        if word.eq_ignore_ascii_case(b"close") {
            return false;
        }
        keep_alive |= word.eq_ignore_ascii_case(b"keep-alive");
    }
    keep_alive
}

fn kind_of_body(value: &[u8]) -> ContentType {
    let kind = value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    if kind.eq_ignore_ascii_case(b"text/event-stream") {
        ContentType::EventStream
    } else if kind.eq_ignore_ascii_case(b"application/json") {
        ContentType::Json
    } else {
        ContentType::Other
    }
}

fn parse_number(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    // `parse` would accept a sign.
    if !value.first()?.is_ascii_digit() {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, StreamError> {
        parse(text.replace('\n', "\r\n").as_bytes())
    }

    #[test]
    fn framing_and_keep_alive() {
        for (text, framing, keep_alive) in [
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n", Framing::Chunked, true),
            ("HTTP/1.1 200 OK\nTransfer-Encoding: chunked\nContent-Length: 3\n\n", Framing::Chunked, false),
            ("HTTP/1.1 200 OK\nContent-Length: 3\nConnection: close\n\n", Framing::Length(3), false),
            ("HTTP/1.0 200 OK\nContent-Length: 3\n\n", Framing::Length(3), false),
            ("HTTP/1.0 200 OK\nContent-Length: 3\nConnection: Keep-Alive\n\n", Framing::Length(3), true),
            ("HTTP/1.1 204 No Content\n\n", Framing::Length(0), true),
            ("HTTP/1.1 200 OK\n\n", Framing::Close, true),
        ] {
            let (head, length) = head(text).unwrap().unwrap();
            assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{text}");
            assert_eq!(length, text.replace('\n', "\r\n").len());
        }
    }

    #[test]
    fn what_is_refused() {
        for text in [
            "SSH-2.0-x\n\n",
            "HTTP/1.1 200 OK\nContent-Length: -1\n\n",
            "HTTP/1.1 200 OK\nContent-Length: +1\n\n",
            "HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2\n\n",
            "HTTP/1.1 200 OK\nTransfer-Encoding: gzip, chunked\n\n",
            "HTTP/1.1 200 OK\nContent-Encoding: gzip\n\n",
        ] {
            assert!(head(text).is_err(), "{text}");
        }
        assert_eq!(head("HTTP/1.1 200 OK\nContent-Length: 1\n").unwrap(), None);
        let many = |count: usize| format!("HTTP/1.1 200 OK\n{}\n", "X: y\n".repeat(count));
        assert!(head(&many(MAX_HEADERS)).is_ok() && head(&many(MAX_HEADERS + 1)).is_err());
    }

    proptest::proptest! {
        /// Whatever the bytes, a head is parsed, not complete, or refused.
        #[test]
        fn no_head_panics(status in "[0-9]{1,4}", headers in proptest::collection::vec("[A-Za-z-]{1,20}: ?[ -~]{0,20}", 0..9), noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..40)) {
            let lines = headers.concat();
            let _ = parse(&[format!("HTTP/1.1 {status} OK\r\n{lines}\r\n\r\n").as_bytes(), &noise].concat());
            let _ = parse(&noise);
        }
    }

    #[test]
    fn type_and_retry_after() {
        let text = "HTTP/1.1 429 Too Many\nContent-Type: Text/Event-Stream; charset=utf-8\nRetry-After: 7\n\n";
        let (head, _) = head(text).unwrap().unwrap();
        assert_eq!((head.status, head.content_type), (429, ContentType::EventStream));
        assert_eq!(head.retry_after, Some(Duration::from_secs(7)));
    }
}
