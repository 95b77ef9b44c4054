//! Sending requests.

use std::sync::Arc;
use std::time::Duration;

use super::body::Body;
use super::connection::{Connection, ExchangeError};
use super::head::Head;
use super::pool::IdlePool;
use super::transport::Transport;
use super::{StreamError, Tls, TlsSetupError};
use crate::endpoint::Endpoint;
use crate::secret::Secret;

/// How a [`StreamClient`] works.
#[derive(Clone, Debug)]
pub struct StreamConfig {
    /// Time for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time from the call to the response's head, connecting included (LO-WAD-11). Some engines hold the head back until
    /// a slot is free.
    pub establish_timeout: Duration,
    /// Idle connections kept, over all threads.
    pub max_idle: usize,
    /// How long one is kept; less than the engine keeps it, or requests run into its closing.
    pub idle_lifetime: Duration,
    /// Size of a connection's read buffer in bytes.
    pub read_buffer: usize,
    /// Ask the kernel to put off ACKs. Only for engines that send with `TCP_NODELAY`: without it their next token would
    /// wait for the ACK of the one before.
    pub late_acks: bool,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Certificates to trust, in PEM form, instead of the system's.
    pub ca_pem: Option<Arc<[u8]>>,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            establish_timeout: Duration::from_secs(30),
            max_idle: 1,
            idle_lifetime: Duration::from_millis(3500),
            read_buffer: 8 * 1024,
            late_acks: false,
            api_key: None,
            ca_pem: None,
        }
    }
}

/// A request with a JSON body.
#[derive(Clone, Copy, Debug)]
pub struct StreamRequest<'a> {
    /// Path, beginning with a slash; the endpoint's prefix goes before it.
    pub path: &'a str,
    /// The body. Its text is the caller's; it is never logged here.
    pub body: &'a [u8],
    /// More headers. Names and values must be visible ASCII.
    pub headers: &'a [(&'a str, &'a str)],
    /// Another time for the response's head than the configured one, for calls that compute before they answer.
    pub establish_timeout: Option<Duration>,
}

impl<'a> StreamRequest<'a> {
    /// A POST of `body` to `path`.
    #[must_use]
    pub const fn post(path: &'a str, body: &'a [u8]) -> Self {
        Self { path, body, headers: &[], establish_timeout: None }
    }
}

/// A response whose body has not been read.
#[derive(Debug)]
pub struct StreamResponse {
    /// Status and what else its head says.
    pub head: Head,
    /// The body.
    pub body: Body,
}

/// An HTTP/1.1 client for one engine's token streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StreamClient {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    endpoint: Endpoint,
    pub(super) config: StreamConfig,
    tls: Option<Tls>,
    pub(super) idle: IdlePool,
}

impl StreamClient {
    /// Prepares a client; nothing is connected yet.
    ///
    /// # Errors
    /// When the certificates to trust cannot be used.
    pub fn new(endpoint: Endpoint, config: StreamConfig) -> Result<Self, TlsSetupError> {
        let tls = if endpoint.is_tls() { Some(Tls::new(&endpoint, config.ca_pem.as_deref())?) } else { None };
        Ok(Self { shared: Arc::new(Shared { endpoint, config, tls, idle: IdlePool::default() }) })
    }

    /// Number of idle connections kept, over all threads.
    #[must_use]
    pub fn idle_connections(&self) -> usize {
        self.shared.idle.len()
    }

    /// Sends a request and waits for the response's head, whatever its status. A request on a reused connection that was
    /// closed without a byte of response is sent once more on a fresh one. Dropping the future closes the connection.
    ///
    /// # Errors
    /// When no response head comes.
    pub async fn send(&self, request: &StreamRequest<'_>) -> Result<StreamResponse, StreamError> {
        let head = self.request_head(request)?;
        let limit = request.establish_timeout.unwrap_or(self.shared.config.establish_timeout);
        tokio::time::timeout(limit, self.exchange(&head, request.body))
            .await
            .map_err(|_| StreamError::EstablishTimeout(limit))?
    }

    async fn exchange(&self, head: &[u8], body: &[u8]) -> Result<StreamResponse, StreamError> {
        if let Some(connection) = self.shared.idle.take() {
            match self.exchange_on(connection, head, body).await {
                Err(ExchangeError { silent: true, .. }) => {
                    tracing::debug!("idle engine connection was closed, sending again on a fresh one");
                }
                done => return done.map_err(|failed| failed.error),
            }
        }
        let Shared { endpoint, config, tls, .. } = &*self.shared;
        let transport = Transport::connect(endpoint, config, tls.as_ref()).await?;
        let connection = Connection::new(transport, config.read_buffer);
        self.exchange_on(connection, head, body).await.map_err(|failed| failed.error)
    }

    async fn exchange_on(
        &self,
        mut connection: Connection,
        head: &[u8],
        body: &[u8],
    ) -> Result<StreamResponse, ExchangeError> {
        let head = connection.exchange(head, body, self.shared.config.late_acks).await?;
        let body = Body::new(connection, head.framing, head.keep_alive, Arc::clone(&self.shared));
        Ok(StreamResponse { head, body })
    }

    fn request_head(&self, request: &StreamRequest<'_>) -> Result<Vec<u8>, StreamError> {
        let Shared { endpoint, config, .. } = &*self.shared;
        let visible = |text: &str| text.bytes().all(|byte| matches!(byte, b'!'..=b'~'));
        let printable = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        let key = config.api_key.as_ref().map_or("", Secret::expose);
        let headers = request.headers.iter();
        if !visible(request.path)
            || !visible(key)
            || !headers.clone().all(|(name, value)| visible(name) && printable(value))
        {
            return Err(StreamError::BadRequest);
        }
        let length = request.body.len().to_string();
        let mut head = Vec::with_capacity(256 + key.len());
        let mut put = |parts: &[&str]| parts.iter().for_each(|part| head.extend_from_slice(part.as_bytes()));
        put(&["POST ", endpoint.prefix(), request.path, " HTTP/1.1\r\nHost: ", endpoint.authority()]);
        put(&["\r\nContent-Type: application/json\r\nContent-Length: ", &length, "\r\n"]);
        if !key.is_empty() {
            put(&["Authorization: Bearer ", key, "\r\n"]);
        }
        headers.for_each(|(name, value)| put(&[name, ": ", value, "\r\n"]));
        put(&["\r\n"]);
        Ok(head)
    }
}
