//! The bytes that a client sends, watched on their way.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{head_scanner::HeadScanner, state::State};

/// A connection of which it is noted when a head begins, and which requests are ambiguous.
#[derive(Debug)]
pub(super) struct HeadScanIo<T> {
    io: T,
    /// Bytes that were read to tell the protocol.
    read_ahead: Bytes,
    state: Arc<State>,
    /// `None` for HTTP/2, whose framing is not ambiguous.
    scanner: Option<HeadScanner>,
}

impl<T> HeadScanIo<T> {
    pub(super) fn http1(io: T, read_ahead: Bytes, state: Arc<State>) -> Self {
        Self { io, read_ahead, state, scanner: Some(HeadScanner::default()) }
    }

    pub(super) fn http2(io: T, read_ahead: Bytes, state: Arc<State>) -> Self {
        Self { io, read_ahead, state, scanner: None }
    }

    fn has_read(&mut self, bytes: &[u8]) {
        let Some(scanner) = self.scanner.as_mut().filter(|_| !bytes.is_empty()) else { return };
        if self.state.expects_head() {
            self.state.head_bytes();
        }
        if let Some(request) = scanner.feed(bytes) {
            self.state.refuse(request);
        }
        self.state.note_head(scanner.is_in_head());
    }

    /// Whether the client waits for a response, and owes nothing.
    fn is_listening(&self) -> bool {
        self.scanner.as_ref().is_some_and(HeadScanner::is_between_requests) && !self.state.expects_head()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for HeadScanIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        if this.read_ahead.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let length = this.read_ahead.len().min(buf.remaining());
            buf.put_slice(this.read_ahead.get(..length).unwrap_or_default());
            this.read_ahead.advance(length);
        }
        if buf.filled().len() == before && this.is_listening() {
            // hyper would take it for the end of the connection. It asks again when the response is over.
            this.state.client_ended();
            return Poll::Pending;
        }
        this.has_read(buf.filled().get(before..).unwrap_or_default());
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for HeadScanIo<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
