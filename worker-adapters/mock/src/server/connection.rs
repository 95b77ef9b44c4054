//! One connection, with a say in how it ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// An accepted connection, perhaps on its way to another thread.
#[derive(Debug)]
pub struct Connection(Socket);

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    DetachedTcp(std::net::TcpStream),
    DetachedUnix(std::os::unix::net::UnixStream),
}

impl Connection {
    pub(super) fn tcp(stream: TcpStream) -> Self {
        Self(Socket::Tcp(stream))
    }

    pub(super) fn unix(stream: UnixStream) -> Self {
        Self(Socket::Unix(stream))
    }

    /// Leaves this thread's runtime, so that another one can take it.
    pub(super) fn detach(self) -> io::Result<Self> {
        Ok(Self(match self.0 {
            Socket::Tcp(stream) => Socket::DetachedTcp(stream.into_std()?),
            Socket::Unix(stream) => Socket::DetachedUnix(stream.into_std()?),
            detached => detached,
        }))
    }

    /// Enters this thread's runtime.
    pub(super) fn open(self) -> io::Result<(Stream, Fate)> {
        let transport = match self.0 {
            Socket::Tcp(stream) => Transport::Tcp(stream),
            Socket::Unix(stream) => Transport::Unix(stream),
            Socket::DetachedTcp(stream) => Transport::Tcp(TcpStream::from_std(stream)?),
            Socket::DetachedUnix(stream) => Transport::Unix(UnixStream::from_std(stream)?),
        };
        if let Transport::Tcp(stream) = &transport {
            stream.set_nodelay(true)?;
        }
        let fate = Fate::default();
        Ok((Stream { transport, fate: fate.clone() }, fate))
    }
}

/// How a connection will end.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<AtomicBool>);

impl Fate {
    /// It will end with a TCP reset instead of a close.
    pub(super) fn reset(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    fate: Fate,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let (Transport::Tcp(stream), true) = (&self.transport, self.fate.0.load(Ordering::Relaxed)) {
            // Failing that, the peer sees a close in the middle of an answer, which says the same.
            let _reset = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fate.0.load(Ordering::Relaxed) {
            // A close before the reset would make it look like an ordinary end.
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
