//! A health probe against a server on this machine; too small a job for an HTTP client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// The status that `GET path` answers at `http://ADDRESS:PORT`; `None` when nothing sensible comes back.
pub(crate) fn status(url: &str, path: &str) -> Option<u16> {
    let address: SocketAddr = url.strip_prefix("http://")?.parse().ok()?;
    let mut connection = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    // "HTTP/1.1 200": the rest of the answer is of no interest.
    let mut head = [0; 12];
    connection.read_exact(&mut head).ok()?;
    std::str::from_utf8(&head).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use super::status;

    #[test]
    fn reads_the_status_or_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            for reply in ["HTTP/1.1 503 Service Unavailable\r\n\r\n", "hello"] {
                let (mut connection, _) = listener.accept().unwrap();
                let mut request = [0; 16];
                connection.read_exact(&mut request).unwrap();
                assert!(request.starts_with(b"GET /health HTTP"));
                connection.write_all(reply.as_bytes()).unwrap();
            }
        });
        assert_eq!(status(&url, "/health"), Some(503));
        assert_eq!(status(&url, "/health"), None);
        server.join().unwrap();
        assert_eq!(status(&url, "/health"), None, "nobody listens any more");
    }
}
