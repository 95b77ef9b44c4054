//! One connection to an engine, whatever it runs over.

use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Handle, Id};
use tokio_rustls::client::TlsStream;

use super::{StreamConfig, StreamError, Tls};
use crate::endpoint::{Endpoint, Target};

/// A connected socket.
#[derive(Debug)]
pub(super) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Transport {
    /// Connects; the TLS handshake is part of it.
    pub(super) async fn connect(
        endpoint: &Endpoint,
        config: &StreamConfig,
        tls: Option<&Tls>,
    ) -> Result<Self, StreamError> {
        let connecting = async {
            match endpoint.target() {
                Target::Unix(path) => UnixStream::connect(path).await.map(Self::Unix).map_err(StreamError::Connect),
                Target::Tcp { host, port, .. } => {
                    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(StreamError::Connect)?;
                    stream.set_nodelay(true).map_err(StreamError::Connect)?;
                    match tls {
                        None => Ok(Self::Tcp(stream)),
                        Some(tls) => {
                            let handshake = tls.connector.connect(tls.name.clone(), stream).await;
                            Ok(Self::Tls(Box::new(handshake.map_err(StreamError::Tls)?)))
                        }
                    }
                }
            }
        };
        tokio::time::timeout(config.connect_timeout, connecting)
            .await
            .map_err(|_| StreamError::ConnectTimeout(config.connect_timeout))?
    }

    /// Lets the kernel put off ACKs (measured: 5 % less CPU per token). It is a hint that the kernel may drop again, so it
    /// is given once per request; a failure changes nothing but that.
    pub(super) fn delay_acks(&self) {
        if let Self::Tcp(stream) = self {
            #[cfg(target_os = "linux")]
            let _ = stream.set_quickack(false);
            #[cfg(not(target_os = "linux"))]
            let _ = stream;
        }
    }

    /// Takes an idle connection off its reactor.
    pub(super) fn park(self) -> Option<ParkedTransport> {
        match self {
            Self::Tcp(stream) => stream.into_std().ok().map(ParkedTransport::Tcp),
            Self::Unix(stream) => stream.into_std().ok().map(ParkedTransport::Unix),
            Self::Tls(stream) => Some(ParkedTransport::Tls(stream, Handle::try_current().ok()?.id())),
        }
    }
}

/// A connected socket that lies idle.
#[derive(Debug)]
pub(super) enum ParkedTransport {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
    /// A session cannot leave its reactor, and is of use to that runtime only.
    Tls(Box<TlsStream<TcpStream>>, Id),
}

impl ParkedTransport {
    /// Puts it on the current runtime's reactor. A connection that the peer closed a moment ago may still look alive, so a
    /// request on it may fail and must then be sent again on a fresh one.
    pub(super) fn unpark(self) -> Option<Transport> {
        match self {
            Self::Tcp(mut stream) => {
                is_silent(stream.read(&mut [0])).then(|| TcpStream::from_std(stream).ok().map(Transport::Tcp))?
            }
            Self::Unix(mut stream) => {
                is_silent(stream.read(&mut [0])).then(|| UnixStream::from_std(stream).ok().map(Transport::Unix))?
            }
            // A session ticket may be waiting; looking at it here would lose it.
            Self::Tls(stream, runtime) => {
                (Handle::try_current().ok()?.id() == runtime).then_some(Transport::Tls(stream))
            }
        }
    }
}

/// Bytes that nobody asked for are as bad as an end.
fn is_silent(read: io::Result<usize>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Transport::Tcp($stream) => $call,
            Transport::Unix($stream) => $call,
            Transport::Tls(boxed) => {
                let $stream = &mut **boxed;
                $call
            }
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
