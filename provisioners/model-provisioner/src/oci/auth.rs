//! What a registry wants to know of who asks (`WWW-Authenticate`).

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catalog_core::{FetchError, ModelRef};
use http_auth::{ChallengeRef, parse_challenges};
use http_util::Secret;
use serde::Deserialize;
use url::Url;

use super::Repository;
use crate::outbound::is_this_machine;
use crate::web::{Document, shown};
use crate::{Environment, Gate, Request};

pub(super) const ADVICE: &str = "set OCI_USERNAME and OCI_PASSWORD to an account that may read it, and OCI_REGISTRY to the \
                                 registry they are for";
/// Largest answer of a token service.
const LARGEST_TOKEN: usize = 64 << 10;
/// How long a token is good for when its service does not say. Source: the distribution specification's token page.
const TOKEN_LASTS: Duration = Duration::from_secs(60);

/// How a registry wants to be told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By name and password.
    Basic,
    /// By a token from elsewhere.
    Bearer {
        /// Where tokens are to be had, with all that is to be asked.
        url: Url,
    },
}

/// What satisfies a registry.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    header: Secret,
    expires: Option<Instant>,
}

/// The answer of a token service.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// `Basic`, for `registry` and nobody else.
pub(super) fn credentials(environment: &Environment, registry: &str) -> Option<Authorization> {
    let (name, password) = (environment.text("OCI_USERNAME")?, environment.text("OCI_PASSWORD")?);
    if !environment.text("OCI_REGISTRY")?.eq_ignore_ascii_case(registry) {
        return None;
    }
    let encoded = STANDARD.encode(format!("{name}:{password}"));
    Some(Authorization { header: Secret::from(format!("Basic {encoded}")), expires: None })
}

pub(super) fn unauthorized(environment: &Environment, registry: &str, model: &ModelRef) -> FetchError {
    let why = match credentials(environment, registry) {
        Some(_) => "does not take OCI_USERNAME and OCI_PASSWORD, or they may not read it",
        None => "wants credentials",
    };
    FetchError::Unauthorized(format!("{model}: {registry} {why}, and it must exist; {ADVICE}={registry}"))
}

impl Authorization {
    pub(super) fn on(&self, mut request: Request) -> Request {
        request.secret_headers.push(("authorization", self.header.clone()));
        request
    }

    /// Whether it is too old for a request at `now`.
    pub(super) fn expires(&self, now: Instant) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

impl Challenge {
    /// What an answer asks for; `None` when it is nothing known.
    pub(super) fn of(document: &Document, at: &Repository) -> Option<Self> {
        let values = document.headers.get_all("www-authenticate").iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<_> = values.filter_map(|value| parse_challenges(value).ok()).flatten().collect();
        let of_scheme = |scheme| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        let bearer = of_scheme("Bearer").and_then(|challenge| Self::bearer(challenge, at));
        bearer.or_else(|| of_scheme("Basic").map(|_| Self::Basic))
    }

    fn bearer(challenge: &ChallengeRef<'_>, at: &Repository) -> Option<Self> {
        let parameter = |wanted: &str| {
            let (_, value) = challenge.params.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
            Some(value.to_unescaped())
        };
        let mut url: Url = parameter("realm")?.parse().ok()?;
        let scope = parameter("scope").unwrap_or_else(|| format!("repository:{}:pull", at.name));
        if let Some(service) = parameter("service") {
            url.query_pairs_mut().append_pair("service", &service);
        }
        url.query_pairs_mut().append_pair("scope", &scope);
        Some(Self::Bearer { url })
    }

    /// What satisfies it; `None` when there are no credentials and it cannot do without.
    pub(super) async fn answer(
        &self,
        gate: &Gate,
        credentials: Option<&Authorization>,
        model: &ModelRef,
    ) -> Result<Option<Authorization>, FetchError> {
        match self {
            Self::Basic => Ok(credentials.cloned()),
            Self::Bearer { url } => token(gate, url, credentials, model).await,
        }
    }
}

async fn token(
    gate: &Gate,
    url: &Url,
    credentials: Option<&Authorization>,
    model: &ModelRef,
) -> Result<Option<Authorization>, FetchError> {
    let service = shown(url);
    if url.scheme() != "https" && !is_this_machine(url) {
        return Err(FetchError::Denied(format!("{model}: the token service {service} does not speak https")));
    }
    let request = Request::new(url.clone());
    let request = credentials.map_or_else(|| request.clone(), |credentials| credentials.on(request.clone()));
    let asked = Instant::now();
    let document = gate.document(&request, LARGEST_TOKEN).await?;
    match document.status.as_u16() {
        200..=299 => {}
        400..=499 => return Ok(None),
        _ => return Err(FetchError::Source(format!("{model}: {service} failed ({})", document.status))),
    }
    let unusable = || FetchError::Source(format!("{model}: the answer of {service} is no token"));
    let answer: Token = serde_json::from_slice(&document.body).map_err(|_| unusable())?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty()).ok_or_else(unusable)?;
    let lasts = answer.expires_in.map_or(TOKEN_LASTS, Duration::from_secs);
    // A request should not have to race with it.
    let expires = asked.checked_add(lasts * 3 / 4);
    Ok(Some(Authorization { header: Secret::from(format!("Bearer {token}")), expires }))
}
