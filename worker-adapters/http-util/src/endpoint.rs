//! Where an engine listens.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::Url;

/// An engine's address: `http://host:port[/prefix]`, `https://host[:port][/prefix]` or `unix:/path/of/socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    target: Target,
    authority: String,
    prefix: String,
}

/// What a connection is made to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Tcp { tls: bool, host: String, port: u16 },
    Unix(PathBuf),
}

/// Why a text is not an [`Endpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Neither `http`, `https` nor `unix`.
    #[error("an engine's url begins with http://, https:// or unix:/, not with {scheme:?}")]
    Scheme {
        /// What it begins with.
        scheme: String,
    },
    /// It cannot be read as a URL.
    #[error("an engine's url looks like http://host:port/prefix")]
    Syntax,
    /// `unix:` without an absolute path.
    #[error("a unix socket needs an absolute path, as in unix:/run/engine.sock")]
    RelativePath,
    /// A key in the URL would end up in logs.
    #[error("user names and passwords do not belong in an engine's url; give the key in the environment")]
    Credentials,
    /// Requests have their own paths; a query or fragment would be lost.
    #[error("an engine's url has no query and no fragment")]
    Query,
}

impl Endpoint {
    /// Whether connections are encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.target, Target::Tcp { tls: true, .. })
    }

    /// The socket's path, when it is a Unix socket.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.target {
            Target::Unix(path) => Some(path),
            Target::Tcp { .. } => None,
        }
    }

    /// The URL of `path`, which begins with a slash, for a library client. On a Unix socket the host is `localhost`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        let scheme = if self.is_tls() { "https" } else { "http" };
        format!("{scheme}://{}{}{path}", self.authority, self.prefix)
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Value of the `Host` header.
    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// What goes before every path: empty, or with a slash at its beginning and none at its end.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn unix(path: &str) -> Result<Self, EndpointError> {
        // `unix:///run/x` is how some tools write it.
        let path = path.strip_prefix("//").unwrap_or(path);
        if !path.starts_with('/') {
            return Err(EndpointError::RelativePath);
        }
        Ok(Self { target: Target::Unix(path.into()), authority: "localhost".to_owned(), prefix: String::new() })
    }

    fn tcp(text: &str, tls: bool) -> Result<Self, EndpointError> {
        let url = Url::parse(text).map_err(|_| EndpointError::Syntax)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EndpointError::Credentials);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(EndpointError::Query);
        }
        let written = url.host_str().ok_or(EndpointError::Syntax)?;
        let host = written.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or(EndpointError::Syntax)?;
        let authority = url.port().map_or_else(|| written.to_owned(), |port| format!("{written}:{port}"));
        let prefix = url.path().trim_end_matches('/').to_owned();
        Ok(Self { target: Target::Tcp { tls, host, port }, authority, prefix })
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let Some((scheme, rest)) = text.split_once(':') else {
            return Err(EndpointError::Syntax);
        };
        match scheme {
            "http" => Self::tcp(text, false),
            "https" => Self::tcp(text, true),
            "unix" => Self::unix(rest),
            _ => Err(EndpointError::Scheme { scheme: scheme.chars().take(16).collect() }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.target {
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
            Target::Tcp { .. } => f.write_str(&self.url("")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_may_write() {
        for (text, url, shown) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/x", "http://127.0.0.1:8080"),
            ("http://[::1]:80/", "http://[::1]/x", "http://[::1]"),
            ("https://engine.test/llm/", "https://engine.test/llm/x", "https://engine.test/llm"),
            ("unix:/run/e.sock", "http://localhost/x", "unix:/run/e.sock"),
            ("unix:///run/e.sock", "http://localhost/x", "unix:/run/e.sock"),
        ] {
            let endpoint: Endpoint = text.parse().expect(text);
            assert_eq!(endpoint.url("/x"), url);
            assert_eq!(endpoint.to_string(), shown);
        }
        let Target::Tcp { host, .. } = "http://[::1]:1".parse::<Endpoint>().unwrap().target else { unreachable!() };
        assert_eq!(host, "::1");
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, error) in [
            ("localhost", EndpointError::Syntax),
            ("localhost:8080", EndpointError::Scheme { scheme: "localhost".into() }),
            ("ftp://x", EndpointError::Scheme { scheme: "ftp".into() }),
            ("http://", EndpointError::Syntax),
            ("http://x:99999", EndpointError::Syntax),
            ("unix:run/e.sock", EndpointError::RelativePath),
            ("http://me:secret@x", EndpointError::Credentials),
            ("http://x/?key=1", EndpointError::Query),
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(error), "{text}");
        }
    }
}
