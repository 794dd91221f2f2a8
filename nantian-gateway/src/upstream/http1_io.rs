//! A connection as hyper's HTTP/1.1 is to have it: read in small pieces, and to its end even if it cannot be
//! written to any more.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The most bytes that are read at once: a byte less than 64 KiB. hyper takes a buffer twice as large
/// whenever a read has filled one, up to 400 KiB, and all of it is held for a client that takes nothing; one
/// of 64 KiB is never filled like this. A limit on the buffer itself would be one on heads, too.
const PIECE: u64 = 64 * 1024 - 1;

/// A connection that is read in pieces, and on which writing does not fail.
///
/// A backend may answer a request that it has not read to its end, and close. A write that fails then would
/// end the exchange before the answer is read. So what cannot be written is dropped, and reading tells what
/// the backend has said, or that it has said nothing.
pub(super) struct Http1Io<T> {
    io: T,
    /// Writing has failed.
    severed: bool,
}

impl<T> Http1Io<T> {
    pub(super) fn new(io: T) -> Self {
        Self { io, severed: false }
    }

    /// The result of writing, or that of dropping `length` bytes.
    fn written(&mut self, result: io::Result<usize>, length: usize) -> io::Result<usize> {
        result.or_else(|_| {
            self.severed = true;
            Ok(length)
        })
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Http1Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut (&mut self.io).take(PIECE)).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Http1Io<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.severed {
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut self.io).poll_write(cx, buf).map(|result| self.written(result, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.severed {
            return Poll::Ready(Ok(length));
        }
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs).map(|result| self.written(result, length))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.severed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        flushed.map(|result| self.written(result.map(|()| 0), 0).map(drop))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
