//! `oci://registry/repository:tag` and `…@sha256:…`: artifacts whose layers are the files of a model.
//!
//! Registries speak https; those of this machine (`localhost` and loopback addresses) plain http. Credentials of the
//! environment go to the one registry that `OCI_REGISTRY` names, and to the token service it names in turn: a reference that
//! somebody else chose must not get them. Source: OCI Distribution and Image specifications, 1.1.

mod auth;
mod manifest;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use catalog_core::{Digest, FetchError, ModelRef};
use reqwest::StatusCode;
use url::Url;

use crate::outbound::{Home, is_this_machine};
use crate::source::distinct_names;
use crate::web::{Document, shown};
use crate::{Environment, Gate, Listing, RemoteFile, Request, Source};
use auth::{Authorization, Challenge};
use manifest::{Content, MEDIA_TYPES, Manifest};

/// Largest manifest, as the specification has it.
const LARGEST_MANIFEST: usize = 4 << 20;

/// Artifacts of OCI registries.
#[derive(Debug)]
pub struct Oci {
    environment: Environment,
    /// How repositories were told who asks, for further requests.
    known: Mutex<HashMap<Repository, (Challenge, Authorization)>>,
}

/// A repository of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Repository {
    /// The registry as the reference has it.
    registry: String,
    /// Its URL.
    base: Url,
    /// The name within.
    name: String,
}

impl Repository {
    fn new(registry: &str, name: &str) -> Result<Self, FetchError> {
        let unusable = |_| FetchError::Unsupported(format!("{registry} is not the name of a registry"));
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let mut base: Url = format!("https://{host}/v2/").parse().map_err(unusable)?;
        if is_this_machine(&base) {
            base = format!("http://{host}/v2/").parse().map_err(unusable)?;
        }
        Ok(Self { registry: registry.to_owned(), base, name: name.to_owned() })
    }

    fn of(model: &ModelRef) -> Result<Self, FetchError> {
        match model {
            ModelRef::Oci { registry, repository, .. } => Self::new(registry, repository),
            other => Err(FetchError::Unsupported(format!("{other} is not of an OCI registry"))),
        }
    }

    /// `manifests` or `blobs` by a name that the parser of references or of digests has let through.
    fn url(&self, kind: &str, name: &str) -> Result<Url, FetchError> {
        let unusable = |_| FetchError::Unsupported(format!("{} is not the name of a repository", self.name));
        self.base.join(&format!("{}/{kind}/{name}", self.name)).map_err(unusable)
    }

    fn blob(&self, digest: &Digest) -> Result<Request, FetchError> {
        Ok(Request::new(self.url("blobs", digest.as_str())?))
    }
}

impl Oci {
    /// Credentials come from `environment`: `OCI_USERNAME` and `OCI_PASSWORD`, for the registry `OCI_REGISTRY`.
    #[must_use]
    pub fn new(environment: Environment) -> Self {
        Self { environment, known: Mutex::default() }
    }

    /// The manifest of an artifact; of several that an index offers the one for any platform, or for Linux on x86-64.
    async fn manifest(&self, gate: &Gate, at: &Repository, model: &ModelRef) -> Result<Manifest, FetchError> {
        let (tag, digest) = match model {
            ModelRef::Oci { tag, digest, .. } => (tag.as_deref(), digest.clone()),
            _ => (None, None),
        };
        let reference = digest.as_ref().map_or(tag.unwrap_or("latest"), Digest::as_str);
        match self.content(gate, at, reference, digest.as_ref(), model).await? {
            Content::Manifest(manifest) => Ok(manifest),
            Content::Index(index) => {
                let digest = index.choose(model)?;
                match self.content(gate, at, digest.as_str(), Some(&digest), model).await? {
                    Content::Manifest(manifest) => Ok(manifest),
                    Content::Index(_) => Err(FetchError::Unsupported(format!("{model}: its index leads to an index"))),
                }
            }
        }
    }

    async fn content(
        &self,
        gate: &Gate,
        at: &Repository,
        reference: &str,
        expected: Option<&Digest>,
        model: &ModelRef,
    ) -> Result<Content, FetchError> {
        let mut request = Request::new(at.url("manifests", reference)?);
        request.headers.push(("accept", MEDIA_TYPES.join(", ")));
        let document = self.ask(gate, at, request, model).await?;
        if !document.status.is_success() {
            return Err(self.refusal(at, &document, model));
        }
        let told = document.header("docker-content-digest").and_then(|digest| digest.parse().ok());
        if let Some(expected) = expected.cloned().or(told) {
            let found = Digest::of(&document.body);
            if found != expected {
                return Err(FetchError::Digest { file: "the manifest".to_owned(), expected, found });
            }
        }
        Content::parse(&document.body, model)
    }

    /// Asks, and once more with what the registry wants to know.
    async fn ask(
        &self,
        gate: &Gate,
        at: &Repository,
        request: Request,
        model: &ModelRef,
    ) -> Result<Document, FetchError> {
        let known = self.authorized(gate, at, request.clone(), model).await?;
        let document = gate.document(&known, LARGEST_MANIFEST).await?;
        if document.status != StatusCode::UNAUTHORIZED {
            return Ok(document);
        }
        let Some(challenge) = Challenge::of(&document, at) else { return Ok(document) };
        let Some(authorization) = self.answer(gate, at, &challenge, model).await? else { return Ok(document) };
        let request = authorization.on(request);
        self.remember(at, challenge, authorization);
        gate.document(&request, LARGEST_MANIFEST).await
    }

    /// Adds what is known to satisfy the registry, got anew when it is about to expire.
    async fn authorized(
        &self,
        gate: &Gate,
        at: &Repository,
        request: Request,
        model: &ModelRef,
    ) -> Result<Request, FetchError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(at).cloned();
        let Some((challenge, authorization)) = known else { return Ok(request) };
        if !authorization.expires(Instant::now()) {
            return Ok(authorization.on(request));
        }
        let Some(authorization) = self.answer(gate, at, &challenge, model).await? else { return Ok(request) };
        let request = authorization.on(request);
        self.remember(at, challenge, authorization);
        Ok(request)
    }

    async fn answer(
        &self,
        gate: &Gate,
        at: &Repository,
        challenge: &Challenge,
        model: &ModelRef,
    ) -> Result<Option<Authorization>, FetchError> {
        let credentials = auth::credentials(&self.environment, &at.registry);
        challenge.answer(gate, credentials.as_ref(), model).await
    }

    fn remember(&self, at: &Repository, challenge: Challenge, authorization: Authorization) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(at.clone(), (challenge, authorization));
    }

    fn refusal(&self, at: &Repository, document: &Document, model: &ModelRef) -> FetchError {
        let registry = &at.registry;
        match document.status.as_u16() {
            404 => FetchError::NotFound(format!("{model}: {registry} has no such artifact; check repository and tag")),
            401 | 403 => auth::unauthorized(&self.environment, registry, model),
            status @ 400..=499 if !matches!(status, 408 | 429) => {
                FetchError::Unsupported(format!("{model}: {registry} refuses it ({})", document.status))
            }
            _ => FetchError::Source(format!("{model}: {registry} failed ({})", document.status)),
        }
    }
}

/// Where registries deliver layers from, beside themselves.
fn delivery(registry: &str) -> Vec<String> {
    let domains: &[&str] = match registry {
        "docker.io" => &["docker.io", "docker.com", "r2.cloudflarestorage.com"],
        "ghcr.io" => &["githubusercontent.com"],
        "quay.io" => &["quay.io"],
        "registry.ollama.ai" => &["r2.cloudflarestorage.com"],
        _ => &[],
    };
    domains.iter().map(|domain| (*domain).to_owned()).collect()
}

#[async_trait]
impl Source for Oci {
    fn home(&self, model: &ModelRef) -> Result<Home, FetchError> {
        let at = Repository::of(model)?;
        Ok(Home { delivery: delivery(&at.registry), origin: at.base })
    }

    async fn list(&self, model: &ModelRef, gate: &Gate) -> Result<Listing, FetchError> {
        let at = Repository::of(model)?;
        let manifest = self.manifest(gate, &at, model).await?;
        let mut files = Vec::new();
        for layer in manifest.files(model)? {
            let request = self.authorized(gate, &at, at.blob(&layer.digest)?, model).await?;
            files.push(RemoteFile {
                name: layer.name,
                request,
                size: Some(layer.size),
                digest: Some(layer.digest),
                version: None,
            });
        }
        distinct_names(&files)?;
        let source_url = shown(&at.url("manifests", manifest.digest.as_str())?);
        Ok(Listing { single: files.len() == 1, files, source_url })
    }

    async fn request(&self, model: &ModelRef, file: &RemoteFile, gate: &Gate) -> Result<Request, FetchError> {
        let at = Repository::of(model)?;
        match &file.digest {
            Some(digest) => self.authorized(gate, &at, at.blob(digest)?, model).await,
            None => Ok(file.request.clone()),
        }
    }

    fn advice(&self) -> &'static str {
        auth::ADVICE
    }
}
