//! The listening socket and what its connections inherit from it.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use config_schema::Server as Settings;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// Connections that may wait to be accepted; the system's `net.core.somaxconn` is a limit too.
const BACKLOG: i32 = 4096;
/// Most that waits unsent in the kernel for one slow reader: its transcript holds the rest, once for all readers.
const UNSENT_BYTES: u32 = 128 * 1024;
/// Probes of a silent connection between the first one and the end of the patience with it.
const KEEPALIVE_PROBES: u32 = 3;

/// Opens the listening socket of `settings.bind`.
///
/// # Errors
/// The operating system's, for example when the port is in use.
pub fn bind(settings: &Settings) -> io::Result<TcpListener> {
    let addr = settings.bind;
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' time-wait to pass.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    inherited(&socket, settings.peer_timeout())?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Options that Linux copies to every accepted connection, which saves each of them the calls.
fn inherited(socket: &Socket, peer_timeout: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // A client whose host has vanished says nothing; half of the patience is silence, the rest probing.
    let silence = (peer_timeout / 2).max(Duration::from_secs(1));
    let interval = (silence / KEEPALIVE_PROBES).max(Duration::from_secs(1));
    let keepalive = TcpKeepalive::new().with_time(silence).with_interval(interval).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    // The same patience while there is something to send. Since Linux 5.11 it also ends a connection whose peer answers
    // probes but has not taken a byte for that long.
    socket.set_tcp_user_timeout(Some(peer_timeout))?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use config_schema::Server as Settings;
    use socket2::SockRef;

    use super::{UNSENT_BYTES, bind};

    /// SSE-1003.2: the options that find out about a vanished client hold for the accepted connection.
    #[test]
    fn connections_inherit_the_options() {
        let settings = Settings { bind: ([127, 0, 0, 1], 0).into(), peer_timeout_ms: 60_000, ..Settings::default() };
        let listener = bind(&settings).expect("a port");
        listener.set_nonblocking(false).expect("blocking");
        let _client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (accepted, _) = listener.accept().expect("a connection");
        let socket = SockRef::from(&accepted);
        assert!(socket.tcp_nodelay().expect("nodelay") && socket.keepalive().expect("keepalive"));
        assert_eq!(socket.tcp_keepalive_time().expect("time"), Duration::from_secs(30));
        assert_eq!(socket.tcp_keepalive_interval().expect("interval"), Duration::from_secs(10));
        assert_eq!(socket.tcp_user_timeout().expect("user timeout"), Some(Duration::from_secs(60)));
        assert_eq!(socket.tcp_notsent_lowat().expect("lowat"), UNSENT_BYTES);
    }
}
