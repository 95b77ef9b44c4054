//! The one gate to the network.
//!
//! Redirects are followed by hand, so that each hop passes the policy. Addresses are judged where names are resolved, so that
//! a name cannot show one address to the check and another to the connection. Proxies of the environment are not used: a
//! proxy resolves names itself, and nothing of this could be promised.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use catalog_core::FetchError;
use http_util::Secret;
use narration_core::redact;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue, IF_RANGE, LOCATION, RANGE,
};
use reqwest::{Certificate, Client, Response, StatusCode, redirect};
use url::Url;

use crate::outbound::{Errand, OutboundPolicy, Reach, host_of, is_public, is_this_machine};

/// Most redirects that one request follows.
const MOST_REDIRECTS: usize = 10;
/// Idle connections kept for each host.
const IDLE_CONNECTIONS: usize = 4;

/// A request that is about to leave.
#[derive(Clone, Debug)]
pub struct Request {
    /// Where to. May hold a signature: never show it whole.
    pub url: Url,
    /// Headers with credentials; sent to the origin of `url` only, never on to where a redirect leads, and never in the clear
    /// to another machine.
    pub secret_headers: Vec<(&'static str, Secret)>,
    /// Further headers, such as `Accept`.
    pub headers: Vec<(&'static str, String)>,
}

impl Request {
    /// Asks for `url`, without credentials.
    #[must_use]
    pub fn new(url: Url) -> Self {
        Self { url, secret_headers: Vec::new(), headers: Vec::new() }
    }

    /// Adds `Authorization: Bearer`, when there is a token.
    #[must_use]
    pub fn bearer(mut self, token: Option<&Secret>) -> Self {
        let header = token.map(|token| ("authorization", Secret::from(format!("Bearer {}", token.expose()))));
        self.secret_headers.extend(header);
        self
    }
}

/// The part of a file that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub from: u64,
    /// Last byte; the file's end without.
    pub to: Option<u64>,
    /// A strong validator: the whole file comes when it is another one by now.
    pub if_range: Option<String>,
}

/// A small answer, whole.
#[derive(Debug)]
pub struct Document {
    /// Its status, which is the caller's to judge.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Document {
    /// A header's text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// How connections are made.
#[derive(Clone, Debug)]
pub struct WebSettings {
    /// Time for a connection, TLS included.
    pub connect_timeout: Duration,
    /// Longest silence of a source, before its answer and within.
    pub stall_timeout: Duration,
    /// Certificates to trust, in PEM form, instead of the system's.
    pub ca_pem: Option<Arc<[u8]>>,
}

impl WebSettings {
    /// The defaults, with `[catalog].stall_timeout_ms`.
    #[must_use]
    pub fn new(stall_timeout: Duration) -> Self {
        Self { connect_timeout: Duration::from_secs(10), stall_timeout, ca_pem: None }
    }
}

/// Lets requests out that the policy lets out.
pub struct Web {
    policy: OutboundPolicy,
    settings: WebSettings,
    /// Certificates to trust instead of the system's.
    roots: Option<Vec<Certificate>>,
    /// Connects to public addresses only. Made when it is wanted, since reading the system's certificates takes a while.
    public: OnceLock<Client>,
    /// Connects to any address. Apart from the other so that they never share a connection.
    any: OnceLock<Client>,
}

impl Web {
    /// A gate that nothing has passed yet.
    ///
    /// # Errors
    /// [`FetchError::Unsupported`] when certificates cannot be used.
    pub fn new(policy: OutboundPolicy, settings: &WebSettings) -> Result<Self, FetchError> {
        let roots = settings.ca_pem.as_ref().map(|pem| Certificate::from_pem_bundle(pem)).transpose();
        let roots = roots.map_err(unusable)?;
        Ok(Self { policy, settings: settings.clone(), roots, public: OnceLock::new(), any: OnceLock::new() })
    }

    fn client(&self, reach: Reach) -> Result<&Client, FetchError> {
        let place = match reach {
            Reach::Public => &self.public,
            Reach::Any => &self.any,
        };
        if let Some(client) = place.get() {
            return Ok(client);
        }
        let client = self.build(reach).map_err(unusable)?;
        Ok(place.get_or_init(|| client))
    }

    fn build(&self, reach: Reach) -> reqwest::Result<Client> {
        http_util::install_crypto();
        let builder = Client::builder()
            .user_agent(concat!("llama-orch/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(self.settings.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .redirect(redirect::Policy::none())
            .no_proxy()
            // Files that are fetched in parallel get connections of their own.
            .http1_only()
            .dns_resolver(Resolver { reach });
        match &self.roots {
            Some(roots) => builder.tls_certs_only(roots.iter().cloned()).build(),
            None => builder.build(),
        }
    }

    /// The gate for one errand.
    ///
    /// # Errors
    /// [`FetchError::Denied`] when nothing may be asked for on it.
    pub fn gate(self: &Arc<Self>, errand: Errand) -> Result<Gate, FetchError> {
        self.policy.check_errand(&errand)?;
        Ok(Gate { web: Arc::clone(self), errand: errand.into() })
    }

    /// Longest silence of a source.
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.settings.stall_timeout
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("policy", &self.policy).finish_non_exhaustive()
    }
}

fn unusable(error: reqwest::Error) -> FetchError {
    FetchError::Unsupported(format!("the http client cannot be built: {}", chain(&error.without_url())))
}

/// Resolves names and leaves out addresses that must not be connected to.
struct Resolver {
    reach: Reach,
}

/// A name has no address but such as must not be connected to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the name has no public address")]
struct NoPublicAddress;

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let any = !found.is_empty();
            let usable: Vec<_> =
                found.into_iter().filter(|socket| reach == Reach::Any || is_public(socket.ip())).collect();
            if any && usable.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

/// Lets requests out for one errand. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    web: Arc<Web>,
    errand: Arc<Errand>,
}

impl Gate {
    /// What it is for.
    #[must_use]
    pub fn errand(&self) -> &Errand {
        &self.errand
    }

    /// Whether a program that speaks for itself, such as Git, may connect to the URL's host: by the policy, and by the addresses
    /// that its name has just now. Redirects are the program's to refuse.
    ///
    /// # Errors
    /// [`FetchError::Denied`] with the key to change; [`FetchError::Source`] when the name has no address.
    pub async fn permits(&self, url: &Url) -> Result<(), FetchError> {
        if self.web.policy.check(&self.errand, url)? == Reach::Any {
            return Ok(());
        }
        let host = host_of(url).unwrap_or_default();
        let found = tokio::net::lookup_host((host.as_str(), 0)).await;
        let found = found.map_err(|error| FetchError::Source(format!("{host} cannot be found: {error}")))?;
        match found.into_iter().all(|socket| is_public(socket.ip())) {
            true => Ok(()),
            false => Err(OutboundPolicy::private(&self.errand, &host)),
        }
    }

    /// Longest silence of a source.
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.web.stall_timeout()
    }

    /// Asks for a small document and reads it.
    ///
    /// # Errors
    /// As [`get`](Self::get), and [`FetchError::Source`] when it is larger than `limit` bytes.
    pub async fn document(&self, request: &Request, limit: usize) -> Result<Document, FetchError> {
        self.read(self.get(request, None).await?, limit).await
    }

    /// Reads the rest of an answer.
    ///
    /// # Errors
    /// As [`document`](Self::document).
    pub(crate) async fn read(&self, mut response: Response, limit: usize) -> Result<Document, FetchError> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut response).await? {
            if body.len() + piece.len() > limit {
                let shown = shown(response.url());
                return Err(FetchError::Source(format!(
                    "{shown} is larger than {limit} bytes, which it should not be"
                )));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Document { status: response.status(), headers: response.headers().clone(), body })
    }

    /// The next bytes of an answer; `None` at its end.
    ///
    /// # Errors
    /// [`FetchError::Source`] when the connection breaks, or nothing comes for the stall timeout.
    pub(crate) async fn piece(&self, response: &mut Response) -> Result<Option<bytes::Bytes>, FetchError> {
        match tokio::time::timeout(self.stall_timeout(), response.chunk()).await {
            Ok(Ok(piece)) => Ok(piece),
            Ok(Err(error)) => Err(self.failed(response.url(), error)),
            Err(_) => Err(self.silent(response.url())),
        }
    }

    /// Sends a `GET`, follows redirects, and returns the answer whose body is still to be read. Every status but that of a
    /// redirect is the caller's to judge.
    ///
    /// # Errors
    /// [`FetchError::Denied`] by the policy; [`FetchError::Source`] when no answer comes, which may pass.
    pub async fn get(&self, request: &Request, range: Option<&Range>) -> Result<Response, FetchError> {
        let mut url = request.url.clone();
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(request, &url, range).await?;
            let status = response.status();
            // S3 redirects without saying where to, and explains it in the body.
            if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) || !response.headers().contains_key(LOCATION) {
                return plain(response);
            }
            let next =
                response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| url.join(to).ok());
            let Some(next) = next else {
                return Err(FetchError::Source(format!("{} redirects to nowhere", shown(&url))));
            };
            if url.scheme() == "https" && next.scheme() != "https" {
                let (from, to) = (shown(&url), shown(&next));
                return Err(FetchError::Denied(format!(
                    "{from} redirects to {to}, and https is not left for plain http"
                )));
            }
            url = next;
        }
        Err(FetchError::Source(format!("{} redirects more than {MOST_REDIRECTS} times", shown(&request.url))))
    }

    async fn send(&self, request: &Request, url: &Url, range: Option<&Range>) -> Result<Response, FetchError> {
        let client = self.web.client(self.web.policy.check(&self.errand, url)?)?;
        let mut bare = url.clone();
        // Whoever redirects does not choose the credentials that are sent.
        let is_bare = bare.set_username("").is_ok() && bare.set_password(None).is_ok();
        if !is_bare {
            return Err(FetchError::Source(format!("{} cannot be asked", shown(url))));
        }
        let headers = headers(request, url, range)?;
        let answer = client.get(bare).headers(headers).send();
        match tokio::time::timeout(self.stall_timeout(), answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.failed(url, error)),
            Err(_) => Err(self.silent(url)),
        }
    }

    fn failed(&self, url: &Url, error: reqwest::Error) -> FetchError {
        let error = error.without_url();
        if causes(&error).any(|cause| cause.is::<NoPublicAddress>()) {
            return OutboundPolicy::private(&self.errand, &host_of(url).unwrap_or_default());
        }
        let what = if error.is_connect() { "cannot be reached" } else { "broke off" };
        FetchError::Source(format!("{} {what}: {}", shown(url), chain(&error)))
    }

    fn silent(&self, url: &Url) -> FetchError {
        let waited = self.stall_timeout().as_secs_f64();
        FetchError::Source(format!("{} sent nothing for {waited} s (catalog.stall_timeout_ms)", shown(url)))
    }
}

fn headers(request: &Request, url: &Url, range: Option<&Range>) -> Result<HeaderMap, FetchError> {
    let mut headers = HeaderMap::new();
    // What is hashed and counted is the file, not an encoding of it.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    for (name, value) in &request.headers {
        headers.insert(HeaderName::from_static(name), value_of(name, value)?);
    }
    let is_own = url.origin() == request.url.origin() && (url.scheme() == "https" || is_this_machine(url));
    for (name, secret) in request.secret_headers.iter().filter(|_| is_own) {
        let mut value = value_of(name, secret.expose())?;
        value.set_sensitive(true);
        headers.insert(HeaderName::from_static(name), value);
    }
    if let Some(range) = range {
        let to = range.to.map_or_else(String::new, |to| to.to_string());
        headers.insert(RANGE, value_of("range", &format!("bytes={}-{to}", range.from))?);
        if let Some(validator) = &range.if_range {
            headers.insert(IF_RANGE, value_of("if-range", validator)?);
        }
    }
    Ok(headers)
}

fn value_of(name: &str, value: &str) -> Result<HeaderValue, FetchError> {
    let unusable =
        |_| FetchError::Unsupported(format!("the value of the header `{name}` has characters it must not have"));
    HeaderValue::try_from(value).map_err(unusable)
}

/// An answer that is not encoded.
fn plain(response: Response) -> Result<Response, FetchError> {
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if encoding != "identity" => {
            Err(FetchError::Source(format!("{} sends an encoding that was not asked for", shown(response.url()))))
        }
        _ => Ok(response),
    }
}

/// A URL for errors and logs: without user, query and fragment, which is where credentials and signatures are.
#[must_use]
pub fn shown(url: &Url) -> String {
    let mut bare = url.clone();
    let _ = bare.set_username("");
    let _ = bare.set_password(None);
    bare.set_query(None);
    bare.set_fragment(None);
    redact(bare.as_str()).into_owned()
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| (*error).source())
}

/// An error and its causes in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = causes(error).map(ToString::to_string).collect();
    parts.dedup();
    redact(&parts.join(": ")).into_owned()
}
