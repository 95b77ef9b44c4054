//! One connection, with a say in how it ends.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Sleep;

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
        Ok((Stream { transport, fate: fate.clone(), pause: None }, fate))
    }
}

/// How a connection writes and ends; shared by its stream and by whoever answers on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate(Arc<Ways>);

#[derive(Debug, Default)]
struct Ways {
    resets: AtomicBool,
    /// Apart from the way itself, since every write asks.
    is_odd: AtomicBool,
    odd: Mutex<Option<Oddity>>,
}

/// An odd way to write.
#[derive(Clone, Copy, Debug)]
enum Oddity {
    /// Only so many more bytes, and then a reset.
    Cut(usize),
    /// Byte by byte, with so much time in between.
    Trickle(Duration),
    /// The same up to the end of the head, of whose last line so many bytes have been written.
    TrickleHead(Duration, usize),
}

/// What ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

impl Fate {
    /// It will end with a TCP reset instead of a close.
    pub(super) fn reset(&self) {
        self.0.resets.store(true, Ordering::Relaxed);
    }

    /// It will be reset after `count` more bytes.
    pub(super) fn reset_after(&self, count: usize) {
        self.write_oddly(Some(Oddity::Cut(count)));
    }

    /// From here on each byte is written so long after the one before.
    pub(super) fn trickle(&self, every: Duration) {
        self.write_oddly(Some(Oddity::Trickle(every)));
    }

    /// The same until the end of a head.
    pub(super) fn trickle_head(&self, every: Duration) {
        self.write_oddly(Some(Oddity::TrickleHead(every, 0)));
    }

    /// Back to the ordinary, for the next request on this connection.
    pub(super) fn write_plainly(&self) {
        if self.is_odd() {
            self.write_oddly(None);
        }
    }

    fn is_odd(&self) -> bool {
        self.0.is_odd.load(Ordering::Relaxed)
    }

    fn oddity(&self) -> Option<Oddity> {
        *self.0.odd.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_oddly(&self, oddity: Option<Oddity>) {
        *self.0.odd.lock().unwrap_or_else(PoisonError::into_inner) = oddity;
        self.0.is_odd.store(oddity.is_some(), Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) struct Stream {
    transport: Transport,
    fate: Fate,
    /// Until the next byte, when they come one by one.
    pause: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Transport {
    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }
}

impl Stream {
    fn poll_write_oddly(&mut self, oddity: Oddity, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match oddity {
            Oddity::Cut(0) => {
                self.fate.reset();
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
            Oddity::Cut(left) => {
                let written = ready!(self.transport.poll_write(cx, &bytes[..left.min(bytes.len())]))?;
                self.fate.reset_after(left - written);
                Poll::Ready(Ok(written))
            }
            Oddity::Trickle(every) => self.poll_write_byte(every, cx, bytes),
            Oddity::TrickleHead(every, matched) => {
                let written = ready!(self.poll_write_byte(every, cx, bytes))?;
                let matched =
                    if bytes[0] == HEAD_END[matched] { matched + 1 } else { usize::from(bytes[0] == HEAD_END[0]) };
                self.fate.write_oddly((matched < HEAD_END.len()).then_some(Oddity::TrickleHead(every, matched)));
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_write_byte(&mut self, every: Duration, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
        }
        let written = ready!(self.transport.poll_write(cx, &bytes[..1]))?;
        self.pause = (!every.is_zero()).then(|| Box::pin(tokio::time::sleep(every)));
        Poll::Ready(Ok(written))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let (Transport::Tcp(stream), true) = (&self.transport, self.fate.0.resets.load(Ordering::Relaxed)) {
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
        if self.fate.is_odd()
            && !bytes.is_empty()
            && let Some(oddity) = self.fate.oddity()
        {
            return self.poll_write_oddly(oddity, cx, bytes);
        }
        self.transport.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.fate.0.resets.load(Ordering::Relaxed) {
            // A close before the reset would make it look like an ordinary end.
            return Poll::Ready(Ok(()));
        }
        match &mut self.transport {
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
