//! What happens to every request before and after its handler: correlation id, foreign hosts, tokens.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use auth_min::{Authenticator, Identity, check_host, is_loopback};
use axum::Router;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tower::Service;
use tracing::debug;
use uuid::Uuid;

use super::respond;
use crate::task::Caller;

/// The header that ties a request, its log lines and its answer together.
pub(super) const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");

/// Longest correlation id taken from a client.
const MAX_CORRELATION_ID: usize = 128;

/// The paths that need no token: a supervisor must be able to ask whether we live.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// What comes before the paths that want the token wherever a request comes from (AUTH-1003).
const TOKEN_PATHS: &str = "/v1/workers/";

/// Who is at the other end of a connection.
#[derive(Clone, Copy)]
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    /// The server has more connections than it should, this one among them.
    pub(super) is_over_limit: bool,
}

/// The way in: one per daemon, shared by all connections.
pub struct Gate {
    router: Router,
    authenticator: Authenticator,
}

impl Gate {
    /// A gate in front of the routes.
    pub fn new(router: Router, authenticator: Authenticator) -> Self {
        Self { router, authenticator }
    }

    /// Serves one request.
    ///
    /// # Errors
    /// Never; the type is hyper's.
    pub(super) async fn handle(
        self: Arc<Self>,
        peer: Peer,
        mut request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let (correlation_id, header) = correlation_id(request.headers());
        let mut response = match self.admit(peer, &request) {
            Ok(identity) => {
                if request.uri().path().starts_with(TOKEN_PATHS) {
                    request.extensions_mut().insert(peer);
                }
                request.extensions_mut().insert(Caller { correlation_id, identity });
                self.router.clone().call(request).await.unwrap_or_else(|never| match never {})
            }
            Err(refusal) => *refusal,
        };
        response.headers_mut().insert(CORRELATION_ID, header);
        Ok(response)
    }

    fn admit(&self, peer: Peer, request: &Request<Incoming>) -> Result<Identity, Box<Response<Body>>> {
        let (addr, is_over_limit) = (peer.addr.ip(), peer.is_over_limit);
        let host = request.headers().get(HOST).map(HeaderValue::as_bytes);
        let host = host.or_else(|| request.uri().authority().map(|authority| authority.as_str().as_bytes()));
        if let Err(foreign) = check_host(host, is_loopback(addr)) {
            debug!(%addr, "refused a request for a foreign host");
            return Err(Box::new(respond::foreign_host(foreign)));
        }
        if OPEN_PATHS.contains(&request.uri().path()) {
            return Ok(Identity::Localhost);
        }
        if is_over_limit {
            return Err(Box::new(respond::too_many_connections(request.version())));
        }
        let authorization = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let checked = match request.uri().path().starts_with(TOKEN_PATHS) {
            true => self.authenticator.require_token(authorization),
            false => self.authenticator.check(addr, authorization),
        };
        checked.map_err(|denied| {
            debug!(%addr, code = denied.code(), "refused a request");
            Box::new(respond::denied(denied))
        })
    }
}

/// The client's id if it can be logged and echoed as it is, else a fresh one.
fn correlation_id(headers: &HeaderMap) -> (Arc<str>, HeaderValue) {
    let sent = headers.get(&CORRELATION_ID).filter(|value| {
        (1..=MAX_CORRELATION_ID).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    if let Some((value, text)) = sent.and_then(|value| Some((value, value.to_str().ok()?))) {
        return (text.into(), value.clone());
    }
    let mut buffer = Uuid::encode_buffer();
    let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut buffer);
    (text.into(), HeaderValue::from_str(text).expect("a UUID is visible ASCII"))
}
