//! Where the server is and how patient the client is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use auth_min::BearerToken;
use reqwest::Url;

/// How to reach a server. `Debug` shows nothing of the token.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The server.
    pub server: Server,
    /// Sent as `Authorization: Bearer`, when there is one.
    pub token: Option<BearerToken>,
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest wait for a whole plain answer. Streams have no such limit: a task may wait for hours in its queue.
    pub answer_timeout: Duration,
    /// How often a call that may be sent twice is sent again after its connection failed.
    pub retries: u32,
}

impl ClientConfig {
    /// The default patience towards a server, without a token.
    #[must_use]
    pub fn new(server: Server) -> Self {
        Self {
            server,
            token: None,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(30),
            retries: 2,
        }
    }
}

/// A server's address: `http://host:port`, `https://host[:port]` or `unix:/path/of/socket`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub(crate) base: String,
    pub(crate) socket: Option<PathBuf>,
}

/// A text that is no server's address. The text itself is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Not a URL of a kind we speak.
    #[error("a server's address looks like http://127.0.0.1:8080, https://host or unix:/path/of/socket")]
    Syntax,
    /// Credentials in the URL end up in logs and process lists.
    #[error("user names and passwords do not belong in a server's address; set AUTH_TOKEN instead")]
    Credentials,
}

impl Server {
    pub(crate) fn is_tls(&self) -> bool {
        self.base.starts_with("https:")
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path.starts_with('/') {
                true => Ok(Self { base: "http://localhost".to_owned(), socket: Some(path.into()) }),
                false => Err(ServerError::Syntax),
            };
        }
        let url = Url::parse(text).map_err(|_| ServerError::Syntax)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ServerError::Credentials);
        }
        let fits = matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none();
        match fits {
            true => Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), socket: None }),
            false => Err(ServerError::Syntax),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "unix:{}", path.display()),
            None => f.write_str(&self.base),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Server, ServerError};

    #[test]
    fn addresses_and_what_is_not_one() {
        for (text, shown) in [
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("https://gpu.example/llm/", "https://gpu.example/llm"),
            ("unix:/run/orch.sock", "unix:/run/orch.sock"),
            ("unix:///run/orch.sock", "unix:/run/orch.sock"),
        ] {
            assert_eq!(text.parse::<Server>().expect(text).to_string(), shown);
        }
        for text in ["", "localhost", "127.0.0.1:8080", "ftp://x", "unix:run/x", "http://x/?q=1"] {
            assert_eq!(text.parse::<Server>(), Err(ServerError::Syntax), "{text}");
        }
        assert_eq!("http://me:secret@x".parse::<Server>(), Err(ServerError::Credentials));
    }
}
