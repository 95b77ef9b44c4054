//! `[server]` and `[log]`: how the daemon itself runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use api_types::words;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[server]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// Address and port to listen on. Anything but loopback needs a token. Environment: ORCHD_ADDR, alias BIND_ADDR.
    #[serde(deserialize_with = "crate::checked::socket_addr")]
    #[schemars(with = "String")]
    pub bind: SocketAddr,
    /// Whether loopback callers may skip the token. Unset: they may when no token is configured. Environment: AUTH_OPTIONAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth_optional: Option<bool>,
    /// Believe the `Authorization` header that a reverse proxy on this machine sends. Any local process can pass as that
    /// proxy. Environment: TRUST_PROXY_AUTH.
    pub trust_proxy_auth: bool,
    /// Where catalog, artifacts, journal and run files live.
    pub data_dir: PathBuf,
    /// PEM file with the certificate chain; together with `tls_key` it turns TLS on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_key: Option<PathBuf>,
    /// Web origins whose pages may call this server, such as `https://ui.example.org`. Empty: CORS is off.
    pub cors_origins: Vec<String>,
    /// Largest request body, in bytes.
    pub max_body_bytes: NonZeroUsize,
    /// Time running tasks have to end after a request to stop, in milliseconds.
    pub shutdown_grace_ms: u64,
    /// Runtime threads. Unset: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            auth_optional: None,
            trust_proxy_auth: false,
            data_dir: PathBuf::from("~/.local/share/llama-orch"),
            tls_cert: None,
            tls_key: None,
            cors_origins: Vec::new(),
            max_body_bytes: NonZeroUsize::new(4 << 20).expect("4 MiB is not zero"),
            shutdown_grace_ms: 10_000,
            threads: None,
        }
    }
}

impl Server {
    /// Time running tasks have to end after a request to stop.
    #[must_use]
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }
}

words! {
    /// How log lines look.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
    LogFormat {
        /// `pretty` on a terminal, `json` otherwise.
        #[default]
        Auto = "auto",
        /// One JSON object a line.
        Json = "json",
        /// For people: the sentence first.
        Pretty = "pretty",
    }
}

/// `[log]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// Which events are logged, in the syntax of RUST_LOG, which wins: `info`, `warn,orchestratord=debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Auto, level: "info".to_owned() }
    }
}
