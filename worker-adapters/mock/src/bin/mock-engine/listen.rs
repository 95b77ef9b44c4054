//! Where it listens.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use mock::server::Listener;
use tokio::net::{TcpListener, UnixListener};

use crate::args::Args;

/// Where llama-server listens unless it is told otherwise.
const HOST: &str = "127.0.0.1";
const PORT: u16 = 8080;

/// A listener, and where it can be reached.
pub(crate) async fn listen(args: &Args) -> Result<(Listener, String)> {
    let socket = args.host.as_deref().filter(|host| host.ends_with(".sock")).map(Path::new);
    if let Some(path) = args.unix.as_deref().or(socket) {
        if path.exists() {
            std::fs::remove_file(path).with_context(|| format!("cannot replace {}", path.display()))?;
        }
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
        return Ok((Listener::Unix(listener), format!("unix:{}", path.display())));
    }
    let listener = if args.host.is_some() || args.port.is_some() {
        let (host, port) = (args.host.as_deref().unwrap_or(HOST), args.port.unwrap_or(PORT));
        TcpListener::bind((host, port)).await.with_context(|| {
            format!(
                "srv         start: couldn't bind HTTP server socket, hostname: {host}, port: {port}\n\
                 main: exiting due to HTTP server error"
            )
        })?
    } else {
        TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?
    };
    let address = listener.local_addr()?;
    if let Some(path) = &args.port_file {
        std::fs::write(path, address.port().to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok((Listener::Tcp(listener), format!("http://{address}")))
}

/// Tells where it listens.
pub(crate) fn announce(url: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening {url}")?;
    Ok(stdout.flush()?)
}
