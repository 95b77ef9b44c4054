//! One request and its plain answer; what the generated methods are made of.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ClientError, correlation_id};
use crate::{ClientConfig, Server};

/// First wait before a call is sent again; it doubles.
const RETRY_STEP: Duration = Duration::from_millis(100);

/// A client of one server. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    shared: Arc<ClientConfig>,
}

impl Client {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`ClientError::Setup`] when the system lacks what TLS needs.
    pub fn new(config: ClientConfig) -> Result<Self, ClientError> {
        // reqwest takes its cryptography from the process; whoever installed one first is fine too.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut http = reqwest::Client::builder()
            .default_headers(default_headers(&config))
            .connect_timeout(config.connect_timeout)
            // A stream may be silent for long; this is how a dead server is noticed.
            .tcp_keepalive(Duration::from_secs(15))
            .tcp_nodelay(true);
        if let Some(path) = &config.server.socket {
            http = http.unix_socket(path.clone());
        }
        if !config.server.is_tls() {
            // The system's certificates take longer to read than a whole command runs.
            http = http.tls_certs_only([]);
        }
        let http = http.build().map_err(|error| ClientError::Setup(error.without_url()))?;
        Ok(Self { http, shared: Arc::new(config) })
    }

    /// The server's address.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.shared.server
    }

    pub(crate) async fn receive<Answer: DeserializeOwned>(&self, call: &Call) -> Result<Answer, ClientError> {
        let reply = self.exchange(call).await?.successful(self)?;
        reply.parse(self)
    }

    pub(crate) async fn receive_text(&self, call: &Call) -> Result<String, ClientError> {
        let reply = self.exchange(call).await?.successful(self)?;
        String::from_utf8(reply.body.into()).map_err(|_| self.protocol("text that is not UTF-8", &reply.headers))
    }

    pub(crate) async fn receive_nothing(&self, call: &Call) -> Result<(), ClientError> {
        self.exchange(call).await?.successful(self).map(drop)
    }

    /// Sends a call, again if its transport fails and it may be, and reads the whole answer.
    pub(crate) async fn exchange(&self, call: &Call) -> Result<Reply, ClientError> {
        let mut tries = 0;
        loop {
            let outcome = self.exchange_once(call).await;
            match outcome {
                Err(ref error) if call.repeatable && tries < self.shared.retries && error.is_retriable() => {
                    tokio::time::sleep(RETRY_STEP * 2_u32.pow(tries.min(8))).await;
                    tries += 1;
                }
                _ => return outcome,
            }
        }
    }

    async fn exchange_once(&self, call: &Call) -> Result<Reply, ClientError> {
        let request = self.request(call).timeout(self.shared.answer_timeout);
        let response = request.send().await.map_err(|error| self.transport(error))?;
        Reply::read(response).await.map_err(|error| self.transport(error))
    }

    pub(crate) fn request(&self, call: &Call) -> RequestBuilder {
        let request = self.http.request(call.method.clone(), format!("{}{}", self.shared.server.base, call.path));
        match &call.body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(body.clone()),
            None => request,
        }
    }

    pub(crate) fn transport(&self, error: reqwest::Error) -> ClientError {
        ClientError::transport(self.server().to_string(), error)
    }

    pub(crate) fn protocol(&self, problem: impl Into<String>, headers: &HeaderMap) -> ClientError {
        ClientError::Protocol {
            server: self.server().to_string(),
            problem: problem.into(),
            correlation_id: correlation_id(headers),
        }
    }
}

fn default_headers(config: &ClientConfig) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(token) = &config.token {
        let text = format!("Bearer {}", token.expose());
        let mut value = HeaderValue::try_from(text).expect("a token is visible ASCII");
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

/// A request to be sent.
#[derive(Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    body: Option<Bytes>,
    repeatable: bool,
}

impl Call {
    /// A call of a path. Segments are escaped, so that a pool's name cannot lead elsewhere.
    pub(crate) fn new(method: Method, segments: &[&str]) -> Self {
        let mut path = String::new();
        for segment in segments {
            path.push('/');
            escape(segment, &mut path);
        }
        let repeatable = method != Method::POST;
        Self { method, path, body: None, repeatable }
    }

    /// Marks a POST that may be sent twice without harm.
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    /// Adds a query; fields without a value stay away.
    pub(crate) fn query(mut self, query: &impl Serialize) -> Self {
        let text = serde_urlencoded::to_string(query).expect("the contract's queries are flat and serialize");
        if !text.is_empty() {
            let _ = write!(self.path, "?{text}");
        }
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        let text = serde_json::to_vec(body).expect("the contract's types have string keys only and serialize");
        self.body = Some(text.into());
        self
    }
}

fn escape(segment: &str, path: &mut String) {
    for byte in segment.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => path.push(char::from(byte)),
            // A segment of dots only would be resolved as a folder.
            b'.' if !segment.trim_matches('.').is_empty() => path.push('.'),
            other => {
                let _ = write!(path, "%{other:02X}");
            }
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    status: reqwest::StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    pub(crate) async fn read(response: Response) -> Result<Self, reqwest::Error> {
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Self { status, headers, body: response.bytes().await? })
    }

    /// The reply, or the refusal that it is.
    pub(crate) fn successful(self, client: &Client) -> Result<Self, ClientError> {
        if self.status.is_success() {
            return Ok(self);
        }
        Err(ClientError::refusal(&client.shared, self.status, &self.headers, &self.body))
    }

    /// The error of a good answer that should have been a stream.
    pub(crate) fn not_a_stream(&self, client: &Client) -> ClientError {
        client.protocol(format!("{} instead of a stream of events", self.status), &self.headers)
    }

    pub(crate) fn parse<Answer: DeserializeOwned>(&self, client: &Client) -> Result<Answer, ClientError> {
        serde_json::from_slice(&self.body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let problem = format!("a body that does not fit the contract (line {line}, column {column})");
            client.protocol(problem, &self.headers)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Method};

    #[test]
    fn a_segment_cannot_leave_its_place() {
        let path = |segment| Call::new(Method::GET, &["v1", segment, "health"]).path;
        assert_eq!(path("gpu0.a-b_c"), "/v1/gpu0.a-b_c/health");
        assert_eq!(path("../a b?c#d/é"), "/v1/..%2Fa%20b%3Fc%23d%2F%C3%A9/health");
        assert_eq!(path(".."), "/v1/%2E%2E/health");
    }
}
