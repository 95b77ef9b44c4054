//! Texts that are checked while the file is read.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use serde::{Deserialize, Deserializer};

macro_rules! checked {
    ($(#[$doc:meta])* $name:ident, pattern $pattern:literal, $check:expr, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }

            fn inline_schema() -> bool {
                true
            }
        }

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Unfit;
            fn try_from(text: String) -> Result<Self, Unfit> {
                let check: fn(&str) -> bool = $check;
                if check(&text) { Ok(Self(text)) } else { Err(Unfit { expected: $expected }) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = Unfit;
            fn from_str(text: &str) -> Result<Self, Unfit> {
                text.to_owned().try_into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

/// A text does not have the form it must have. It does not repeat the text, which may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct Unfit {
    /// The form it must have.
    pub expected: &'static str,
}

checked! {
    /// Where an external engine listens.
    EngineUrl, pattern "^(https?://[^/]+|unix:/)", |text| has_host(text, &["http://", "https://"]) || is_unix(text),
    "`http://host:port`, `https://host:port` or `unix:/path/of/socket`, without a password"
}

checked! {
    /// Where an orchestrator listens.
    OrchestratorUrl, pattern "^https?://[^/]+", |text| has_host(text, &["http://", "https://"]),
    "`http://host:port` or `https://host:port`, without a password"
}

checked! {
    /// A Git repository.
    RepoUrl, pattern "^(https?://|ssh://|git@|file:///)",
    |text| has_host(text, &["https://", "http://", "ssh://"]) || text.starts_with("git@") || text.starts_with("file:///"),
    "`https://…`, `ssh://…`, `git@host:path` or `file:///path`, without a password"
}

checked! {
    /// Something to download.
    DownloadUrl, pattern "^(https?://|file:///)",
    |text| has_host(text, &["https://", "http://"]) || text.starts_with("file:///"),
    "`https://…`, `http://…` or `file:///path`, without a password"
}

checked! {
    /// A SHA-256 digest.
    Checksum, pattern "^sha256:[0-9a-f]{64}$", is_checksum, "`sha256:` and 64 lower-case hex digits"
}

impl EngineUrl {
    /// The socket's path, for `unix:/path`.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        self.0.strip_prefix("unix:").map(Path::new)
    }
}

impl Checksum {
    /// The 64 hex digits.
    #[must_use]
    pub fn hex(&self) -> &str {
        self.0.trim_start_matches("sha256:")
    }
}

/// A host after one of the schemes, without a password: secrets do not belong into the file.
fn has_host(text: &str, schemes: &[&str]) -> bool {
    schemes.iter().filter_map(|scheme| text.strip_prefix(scheme)).any(|rest| {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let password = authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'));
        !authority.is_empty() && !password && !text.contains(char::is_whitespace)
    })
}

fn is_unix(text: &str) -> bool {
    text.strip_prefix("unix:/").is_some_and(|path| !path.is_empty())
}

fn is_checksum(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

/// An address with a port; `localhost` is taken for 127.0.0.1, other names are not looked up.
pub(crate) fn parse_addr(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse().ok()?))),
        None => text.parse().ok(),
    }
}

pub(crate) const ADDR_FORM: &str = "an IP address and a port, such as `127.0.0.1:8080`";

pub(crate) fn socket_addr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
    parse_addr(&text).ok_or_else(|| serde::de::Error::custom(Unfit { expected: ADDR_FORM }))
}
