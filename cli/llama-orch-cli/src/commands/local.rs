//! This machine's configuration, and the orchestratord that may run by it.

pub(super) mod background;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use api_types::PoolStatus;
use config_schema::{Config, Loaded, ProcessEnvironment, Sources};
use openapi_client::{Client, ClientConfig, ClientError, Server};

use crate::args::{ConfigArgs, Connection};
use crate::connect;
use crate::failure::Failure;

/// Longest wait for an answer of a daemon on this machine.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who answers where the configuration says that the daemon listens.
pub(super) enum Answer {
    /// An orchestrator, with its pools.
    Orchestrator(Client, Vec<PoolStatus>),
    /// An orchestrator that wants another token.
    Locked(ClientError),
    /// Something else.
    Stranger(ClientError),
    /// Nobody.
    Nobody,
}

/// Reads the configuration as the daemon does.
pub(super) fn load(args: &ConfigArgs) -> Result<Loaded, Failure> {
    let mut sources = Sources::new(&ProcessEnvironment);
    sources.file.clone_from(&args.config);
    Config::load(&sources).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Failure::usage(format!("{error}{cause}"), "correct the file, or name another one with --config")
    })
}

/// Asks whoever listens there.
pub(super) async fn ask(loaded: &Loaded, connection: &Connection) -> Result<Answer, Failure> {
    let config = &loaded.config;
    let Some(address) = address(config) else { return Ok(Answer::Nobody) };
    let client = client(loaded, connection, address)?;
    Ok(match client.list_pools().await {
        Ok(list) => Answer::Orchestrator(client, list.pools),
        // An address that was noted down may be somebody else's by now.
        Err(_) if config.server.bind.port() == 0 => Answer::Nobody,
        Err(error @ ClientError::Unauthorized(_)) => Answer::Locked(error),
        Err(ClientError::Unreachable { .. }) => Answer::Nobody,
        Err(error) => Answer::Stranger(error),
    })
}

/// A client of the daemon at an address of this machine.
pub(super) fn client(loaded: &Loaded, connection: &Connection, address: SocketAddr) -> Result<Client, Failure> {
    let mut settings = ClientConfig::new(server(&loaded.config, address)?);
    settings.token = connect::token(connection)?.or_else(|| loaded.token.clone());
    settings.answer_timeout = PATIENCE;
    settings.retries = 0;
    Ok(Client::new(settings)?)
}

fn server(config: &Config, address: SocketAddr) -> Result<Server, Failure> {
    let scheme = if config.server.tls_cert.is_some() { "https" } else { "http" };
    let text = format!("{scheme}://{}", reachable(address));
    text.parse().map_err(|error| Failure::local(format!("{text}: {error}")))
}

/// Where to reach whoever listens there: one who listens everywhere is reached on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Where the daemon listens: as configured, or as it noted down when it took any free port.
fn address(config: &Config) -> Option<SocketAddr> {
    match config.server.bind.port() {
        0 => background::Files::of(config).address(),
        _ => Some(config.server.bind),
    }
}

/// A program that lies beside this one, else the one that PATH names.
pub(super) fn program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name));
    beside.into_iter().chain(named).find(|file| Path::is_file(file))
}
