//! `[server]` and `[log]`: how the daemon itself runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};
use std::ops::RangeInclusive;
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
    /// Most open connections. Further ones are told to try again later, and dropped when there are far too many.
    pub max_connections: NonZeroUsize,
    /// Most open connections of one address. Unset: a quarter of `max_connections`, and no limit for loopback, where a
    /// reverse proxy speaks for many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// Most requests at a time, streams among them, on one HTTP/2 connection.
    pub max_streams_per_connection: NonZeroU32,
    /// Time a connection has to send a request's head, and may be idle between two requests, in milliseconds.
    pub head_timeout_ms: NonZeroU64,
    /// Time a request's body has to arrive, in milliseconds.
    pub body_timeout_ms: NonZeroU64,
    /// Time a TLS handshake may take, in milliseconds.
    pub tls_handshake_timeout_ms: NonZeroU64,
    /// Time after which a client that gives no sign of life, or takes nothing of what is sent to it, counts as gone, in
    /// milliseconds.
    #[schemars(range(min = 2000, max = 3_600_000))]
    pub peer_timeout_ms: u64,
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
            max_connections: NonZeroUsize::new(16_384).expect("16384 is not zero"),
            max_connections_per_address: None,
            max_streams_per_connection: NonZeroU32::new(1024).expect("1024 is not zero"),
            head_timeout_ms: NonZeroU64::new(60_000).expect("60000 is not zero"),
            body_timeout_ms: NonZeroU64::new(60_000).expect("60000 is not zero"),
            tls_handshake_timeout_ms: NonZeroU64::new(10_000).expect("10000 is not zero"),
            peer_timeout_ms: 60_000,
            shutdown_grace_ms: 10_000,
            threads: None,
        }
    }
}

impl Server {
    /// Shortest and longest `peer_timeout_ms`: the system counts in seconds, and not beyond some hours.
    pub const PEER_TIMEOUT_MS: RangeInclusive<u64> = 2000..=3_600_000;

    /// Time a connection has to send a request's head, and may be idle between two requests.
    #[must_use]
    pub fn head_timeout(&self) -> Duration {
        Duration::from_millis(self.head_timeout_ms.get())
    }

    /// Time a request's body has to arrive.
    #[must_use]
    pub fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms.get())
    }

    /// Time a TLS handshake may take.
    #[must_use]
    pub fn tls_handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.tls_handshake_timeout_ms.get())
    }

    /// Time after which a silent client counts as gone.
    #[must_use]
    pub fn peer_timeout(&self) -> Duration {
        Duration::from_millis(self.peer_timeout_ms)
    }

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
