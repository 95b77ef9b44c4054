//! Control calls: health, properties, tokenization. A tuned library client with bounded everything.

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, TryStreamExt as _};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Method, Proxy, RequestBuilder, Response, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::endpoint::Endpoint;
use crate::secret::Secret;

/// Longer than any answer takes that is read as it comes.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// How control calls are made (ORCH-3610).
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Where the engine listens.
    pub endpoint: Endpoint,
    /// Time for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time for a whole call.
    pub request_timeout: Duration,
    /// Idle connections kept. llama.cpp's server parks a thread for each.
    pub max_idle: usize,
    /// How long one is kept; llama.cpp's server closes it after 5 s.
    pub idle_timeout: Duration,
    /// Largest answer, in bytes.
    pub max_answer: usize,
    /// The one proxy to use. The environment is never asked.
    pub proxy: Option<String>,
    /// Sent as a bearer token.
    pub api_key: Option<Secret>,
    /// Certificates to trust, in PEM form, instead of the system's.
    pub ca_pem: Option<Arc<[u8]>>,
}

impl ControlConfig {
    /// The defaults towards `endpoint`.
    #[must_use]
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(5),
            max_idle: 1,
            idle_timeout: Duration::from_secs(4),
            max_answer: 16 * 1024 * 1024,
            proxy: None,
            api_key: None,
            ca_pem: None,
        }
    }
}

/// How a control call can fail.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The client cannot be built as configured.
    #[error("the http client cannot be built")]
    Setup(#[source] Cause),
    /// Nobody listens there, or the handshake failed.
    #[error("could not connect")]
    Connect(#[source] Cause),
    /// No complete answer in time.
    #[error("no answer in time")]
    Timeout(#[source] Cause),
    /// The connection broke before the answer was complete.
    #[error("the connection broke during the call")]
    Lost(#[source] Cause),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// The answer is not the JSON that was expected. The parser's message is left out, since it may quote the answer.
    #[error("the answer is not the expected json ({0})")]
    Body(&'static str),
    /// The request cannot be written as JSON.
    #[error("the request cannot be written as json")]
    Encode(#[source] Cause),
}

/// An underlying error, without the URL it happened on.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Builds the library client behind [`Control`]: keep-alive, HTTP/2 where TLS offers it, checked certificates, a bounded
/// pool, no redirects, no proxy but the configured one.
///
/// # Errors
/// When a proxy, key or certificate cannot be used.
pub fn build_client(config: &ControlConfig) -> Result<Client, ControlError> {
    install_crypto();
    let mut builder = Client::builder()
        .connect_timeout(config.connect_timeout)
        .timeout(config.request_timeout)
        .pool_max_idle_per_host(config.max_idle)
        .pool_idle_timeout(config.idle_timeout)
        .tcp_nodelay(true)
        .redirect(redirect::Policy::none())
        .no_proxy()
        .default_headers(headers(config)?);
    if let Some(path) = config.endpoint.unix_path() {
        builder = builder.unix_socket(path.to_path_buf());
    }
    if let Some(proxy) = &config.proxy {
        builder = builder.proxy(Proxy::all(proxy).map_err(setup)?);
    }
    if !config.endpoint.is_tls() {
        // Reading the system's certificates takes milliseconds, and nothing here would ever be checked against them.
        builder = builder.tls_certs_only([]);
    } else if let Some(pem) = &config.ca_pem {
        builder = builder.tls_certs_only(Certificate::from_pem_bundle(pem).map_err(setup)?);
    }
    builder.build().map_err(setup)
}

/// Makes `ring` the process's provider of cryptography, once; whoever came first stays.
pub fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

fn headers(config: &ControlConfig) -> Result<HeaderMap, ControlError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = &config.api_key {
        let mut value = HeaderValue::try_from(format!("Bearer {}", key.expose()))
            .map_err(|_| ControlError::Setup("the api key cannot be sent in a header".into()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn setup(error: reqwest::Error) -> ControlError {
    ControlError::Setup(error.without_url().into())
}

/// Control calls to one engine. Cheap to clone.
#[derive(Clone)]
pub struct Control {
    client: Client,
    endpoint: Endpoint,
    max_answer: usize,
}

/// A complete answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Errors
    /// When it is something else.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ControlError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            ControlError::Body(match error.classify() {
                serde_json::error::Category::Data => "another shape",
                serde_json::error::Category::Eof => "cut short",
                _ => "not json",
            })
        })
    }
}

impl Control {
    /// Prepares a client; nothing is connected yet.
    ///
    /// # Errors
    /// As [`build_client`].
    pub fn new(config: &ControlConfig) -> Result<Self, ControlError> {
        Ok(Self { client: build_client(config)?, endpoint: config.endpoint.clone(), max_answer: config.max_answer })
    }

    /// `GET path`; `timeout` replaces the configured one.
    ///
    /// # Errors
    /// When no complete answer comes; its status is the caller's to judge.
    pub async fn get(&self, path: &str, timeout: Option<Duration>) -> Result<Answer, ControlError> {
        self.call(self.client.request(Method::GET, self.endpoint.url(path)), timeout).await
    }

    /// `POST path` with a JSON body; `timeout` replaces the configured one.
    ///
    /// # Errors
    /// When no complete answer comes; its status is the caller's to judge.
    pub async fn post(
        &self,
        path: &str,
        body: &impl Serialize,
        timeout: Option<Duration>,
    ) -> Result<Answer, ControlError> {
        let body = serde_json::to_vec(body).map_err(|error| ControlError::Encode(error.into()))?;
        let request = self.client.request(Method::POST, self.endpoint.url(path));
        self.call(request.header("content-type", "application/json").body(body), timeout).await
    }

    /// `GET path`, whose answer is read as it comes and may never end; no time limit holds for it.
    ///
    /// # Errors
    /// When no answer begins.
    pub async fn open(
        &self,
        path: &str,
    ) -> Result<(u16, impl Stream<Item = Result<Bytes, ControlError>> + use<>), ControlError> {
        let request = self.client.request(Method::GET, self.endpoint.url(path)).timeout(NO_LIMIT);
        let response = request.send().await.map_err(classify)?;
        let status = response.status().as_u16();
        Ok((status, response.bytes_stream().map_err(classify)))
    }

    async fn call(&self, request: RequestBuilder, timeout: Option<Duration>) -> Result<Answer, ControlError> {
        let request = match timeout {
            Some(timeout) => request.timeout(timeout),
            None => request,
        };
        let response = request.send().await.map_err(classify)?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: self.read(response).await? })
    }

    async fn read(&self, mut response: Response) -> Result<Bytes, ControlError> {
        let mut whole = BytesMut::new();
        while let Some(piece) = response.chunk().await.map_err(classify)? {
            if whole.len() + piece.len() > self.max_answer {
                return Err(ControlError::TooLarge { limit: self.max_answer });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn classify(error: reqwest::Error) -> ControlError {
    let error = error.without_url();
    if error.is_connect() {
        ControlError::Connect(error.into())
    } else if error.is_timeout() {
        ControlError::Timeout(error.into())
    } else if error.is_builder() {
        ControlError::Setup(error.into())
    } else {
        ControlError::Lost(error.into())
    }
}

#[cfg(test)]
mod tests;
