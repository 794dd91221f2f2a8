//! The bytes that a client sends, watched on their way.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{frame_scanner::FrameScanner, head_scanner::HeadScanner, state::State};

/// A connection of which it is noted when a head begins, and which requests are ambiguous.
#[derive(Debug)]
pub(super) struct HeadScanIo<T> {
    io: T,
    /// Bytes that were read to tell the protocol.
    read_ahead: Bytes,
    state: Arc<State>,
    scanner: Scanner,
}

#[derive(Debug)]
enum Scanner {
    Http1(HeadScanner),
    Http2(FrameScanner),
}

impl<T> HeadScanIo<T> {
    pub(super) fn http1(io: T, read_ahead: Bytes, state: Arc<State>) -> Self {
        Self { io, read_ahead, state, scanner: Scanner::Http1(HeadScanner::default()) }
    }

    pub(super) fn http2(io: T, read_ahead: Bytes, state: Arc<State>) -> Self {
        state.begins_http2();
        Self { io, read_ahead, state, scanner: Scanner::Http2(FrameScanner::default()) }
    }

    fn has_read(&mut self, bytes: &[u8]) {
        let state = &self.state;
        match &mut self.scanner {
            _ if bytes.is_empty() => {}
            Scanner::Http1(scanner) => {
                if state.expects_head() {
                    state.head_bytes();
                }
                if let Some(request) = scanner.feed(bytes) {
                    state.refuse(request);
                }
                state.note_head(scanner.is_in_head());
            }
            Scanner::Http2(scanner) => {
                let has_ended = scanner.feed(bytes);
                state.note_frames(has_ended, scanner.is_in_head());
            }
        }
    }

    /// Whether the client waits for a response, and owes nothing.
    fn is_listening(&self) -> bool {
        match &self.scanner {
            Scanner::Http1(scanner) => scanner.is_between_requests() && !self.state.expects_head(),
            Scanner::Http2(_) => false,
        }
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
