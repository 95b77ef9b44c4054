//! Engines that somebody else runs.

use std::time::Duration;

use api_types::{DoctorCheck, PoolFault};
use config_schema::{EngineSource, EngineUrl, Pool};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::{failed, passed};
use crate::failure::Failure;

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether anybody listens where the pool's engines are said to be.
pub(super) async fn examine(pool: &Pool) -> Vec<DoctorCheck> {
    let external = match pool.engine_source() {
        Ok(EngineSource::External(external)) => external,
        Ok(_) => return vec![passed("engine", Some(&pool.id), "the simulated engine inside the daemon")],
        Err(missing) => {
            let failure = Failure::new(PoolFault::Unsupported, missing.to_string());
            return vec![failed("engine", Some(&pool.id), &failure)];
        }
    };
    let mut checks = Vec::new();
    for url in external.urls() {
        let connected = timeout(PATIENCE, connect(url)).await;
        let connected = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        checks.push(match connected {
            Ok(()) => passed("engine", Some(&pool.id), format!("something listens at {url}")),
            Err(error) => {
                let failure = Failure::new(PoolFault::SpawnFailed, format!("nothing answers at {url}: {error}"))
                    .with_fix("start the engine there, or correct provisioning.external.url");
                failed("engine", Some(&pool.id), &failure)
            }
        });
    }
    checks
}

async fn connect(url: &EngineUrl) -> std::io::Result<()> {
    if let Some(path) = url.unix_path() {
        return UnixStream::connect(path).await.map(drop);
    }
    TcpStream::connect(address(url.as_str())).await.map(drop)
}

/// Host and port of an HTTP address.
fn address(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let port = if scheme == "https" { 443 } else { 80 };
    // The colons of a bare IPv6 address are inside its brackets.
    match host.rsplit_once(':') {
        Some((_, digits)) if !digits.ends_with(']') => host.to_owned(),
        _ => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for (url, expected) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8081"),
            ("http://gpu.example/v1", "gpu.example:80"),
            ("https://gpu.example", "gpu.example:443"),
            ("https://[::1]:9/x", "[::1]:9"),
            ("http://[::1]", "[::1]:80"),
        ] {
            assert_eq!(address(url), expected, "{url}");
        }
    }
}
