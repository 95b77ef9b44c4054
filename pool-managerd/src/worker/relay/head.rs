//! Heads of requests: what is meant, who asks, and what the engine gets of it.

use httparse::{EMPTY_HEADER, Request, Status};

/// Largest head.
pub(super) const MAX_HEAD: usize = 16 * 1024;
/// Most headers.
const MAX_HEADERS: usize = 64;

/// A head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its bytes.
    pub(super) len: usize,
    /// Who asks: the value of `Authorization`.
    pub(super) authorization: Option<Vec<u8>>,
    /// What is asked for.
    pub(super) route: Route,
    /// Bytes of the body that follows.
    pub(super) body: u64,
}

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// An engine, and the head that it gets.
    Engine { pool: String, head: Vec<u8> },
    /// What a pool's engine has written.
    Logs { pool: String, lines: Option<usize>, follow: bool },
    /// What preparing a pool's engine takes.
    Plan { pool: String },
    /// Nothing that there is.
    Nothing,
}

/// Why a request cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeadError {
    /// It is not HTTP/1.
    #[error("that is no HTTP/1.1 request")]
    Syntax,
    /// Too long, or too many headers.
    #[error("the request's head is too large")]
    TooLarge,
    /// A body whose length nobody knows, or more than one length.
    #[error("the request's body needs one Content-Length, and no Transfer-Encoding")]
    Length,
}

impl HeadError {
    pub(super) const fn status(self) -> &'static str {
        match self {
            Self::Syntax => "400 Bad Request",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Length => "411 Length Required",
        }
    }
}

/// Reads a head; `None` while there is not all of it.
///
/// # Errors
/// [`HeadError`].
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let len = match request.parse(bytes) {
        Ok(Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLarge),
        Err(_) => return Err(HeadError::Syntax),
    };
    let (Some(method), Some(path), Some(1)) = (request.method, request.path, request.version) else {
        return Err(HeadError::Syntax);
    };
    let body = body_length(request.headers)?;
    let mut authorized = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("authorization"));
    let authorization = authorized.next().map(|header| header.value.to_vec());
    if authorized.next().is_some() {
        return Err(HeadError::Syntax);
    }
    Ok(Some(Head { len, authorization, route: route(method, path, request.headers), body }))
}

fn body_length(headers: &[httparse::Header<'_>]) -> Result<u64, HeadError> {
    let mut length = None;
    for header in headers {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(HeadError::Length);
        }
        if header.name.eq_ignore_ascii_case("content-length") {
            let digits = !header.value.is_empty() && header.value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(header.value).ok().filter(|_| digits);
            let value = text.and_then(|text| text.parse::<u64>().ok()).ok_or(HeadError::Length)?;
            if length.replace(value).is_some() {
                return Err(HeadError::Length);
            }
        }
    }
    Ok(length.unwrap_or(0))
}

fn route(method: &str, target: &str, headers: &[httparse::Header<'_>]) -> Route {
    let Some((kind, rest)) = target.strip_prefix('/').and_then(|path| path.split_once('/')) else {
        return Route::Nothing;
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (pool, rest) = (rest[..end].to_owned(), &rest[end..]);
    match kind {
        "engines" => {
            let path = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
            Route::Engine { pool, head: passed_on(method, &path, headers) }
        }
        "logs" if method == "GET" => {
            let query = rest.strip_prefix('?').unwrap_or_default();
            let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            let lines = value("lines").and_then(|lines| lines.parse().ok());
            Route::Logs { pool, lines, follow: value("follow") == Some("true") }
        }
        "plan" if method == "GET" => Route::Plan { pool },
        _ => Route::Nothing,
    }
}

/// The head as the engine gets it: another path, and nothing of the secret.
fn passed_on(method: &str, path: &str, headers: &[httparse::Header<'_>]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n").into_bytes();
    for header in headers.iter().filter(|header| !header.name.eq_ignore_ascii_case("authorization")) {
        head.extend_from_slice(header.name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(header.value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Head, HeadError, MAX_HEAD, Route, parse};

    fn whole(text: &str) -> Result<Head, HeadError> {
        parse(text.as_bytes()).map(|head| head.expect("it is whole"))
    }

    /// LO-HST-06: the path is stripped of its beginning, the secret of the head, and the rest is as it was.
    #[test]
    fn an_engine_gets_its_own_path_and_not_the_secret() {
        let text = "POST /engines/gpu1/v1/chat?x=1 HTTP/1.1\r\nHost: box2\r\nAUTHORIZATION: Bearer s\r\nContent-Length: 2\r\n\r\n{}";
        let head = whole(text).expect("it is one");
        assert_eq!((head.len, head.body), (text.len() - 2, 2));
        assert_eq!(head.authorization.as_deref(), Some(&b"Bearer s"[..]));
        let passed_on = b"POST /v1/chat?x=1 HTTP/1.1\r\nHost: box2\r\nContent-Length: 2\r\n\r\n".to_vec();
        assert_eq!(head.route, Route::Engine { pool: "gpu1".to_owned(), head: passed_on });
        for (target, route) in [
            ("/", Route::Nothing),
            ("/engines", Route::Nothing),
            ("*", Route::Nothing),
            ("http://box2/engines/gpu1/health", Route::Nothing),
            ("/plan/gpu1", Route::Plan { pool: "gpu1".to_owned() }),
            ("/logs/gpu1", Route::Logs { pool: "gpu1".to_owned(), lines: None, follow: false }),
            ("/logs/gpu1?lines=5&follow=true", Route::Logs { pool: "gpu1".to_owned(), lines: Some(5), follow: true }),
            ("/engines/a?b", Route::Engine { pool: "a".to_owned(), head: b"GET /?b HTTP/1.1\r\n\r\n".to_vec() }),
        ] {
            assert_eq!(whole(&format!("GET {target} HTTP/1.1\r\n\r\n")).expect("a head").route, route, "{target}");
        }
    }

    /// LO-HST-06: what could be read in two ways is read in none.
    #[test]
    fn ambiguous_heads_are_refused() {
        for (headers, error) in [
            ("Transfer-Encoding: chunked", HeadError::Length),
            ("Content-Length: 1\r\nContent-Length: 1", HeadError::Length),
            ("Content-Length: +1", HeadError::Length),
            ("Content-Length:", HeadError::Length),
            ("Authorization: Bearer a\r\nAuthorization: Bearer b", HeadError::Syntax),
            ("Bad Name: x", HeadError::Syntax),
        ] {
            assert_eq!(whole(&format!("POST /engines/a/ HTTP/1.1\r\n{headers}\r\n\r\n")), Err(error), "{headers}");
        }
        assert_eq!(whole("GET / HTTP/1.0\r\n\r\n"), Err(HeadError::Syntax));
        let long = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(MAX_HEAD));
        assert_eq!(parse(long.as_bytes()), Err(HeadError::TooLarge));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: x\r\n".repeat(100));
        assert_eq!(whole(&many), Err(HeadError::TooLarge));
    }

    proptest! {
        /// Whatever comes is read, refused, or waited for more of.
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
