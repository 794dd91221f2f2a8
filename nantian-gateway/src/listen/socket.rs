//! The socket of a client, below TLS.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::state::State;
use crate::{runtime::note_read, socket::limit_unanswered, stream::reset};

/// The socket of a client; it is noted how long the client takes nothing of what is written.
///
/// Only here is that to be seen: above, what TLS has taken looks as if the client had.
#[derive(Debug)]
pub(crate) struct ClientSocket {
    stream: TcpStream,
    state: Arc<State>,
    /// Whether what is sent must be answered within a limit.
    is_limited: bool,
}

// === impl ClientSocket ===

impl ClientSocket {
    /// A client may leave what is sent `unanswered` for so long, while HTTP is spoken.
    pub(super) fn new(stream: TcpStream, state: Arc<State>, unanswered: Option<Duration>) -> Self {
        // On a socket that is beyond that, reading and writing tell why.
        let is_limited = unanswered.is_some() && limit_unanswered(&stream, unanswered).is_ok();
        Self { stream, state, is_limited }
    }

    /// The socket itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// The other end of a tunnel may pause for as long as it likes.
    fn lift_limit(&mut self) {
        if self.is_limited && self.state.leaves_http() {
            self.is_limited = limit_unanswered(&self.stream, None).is_err();
        }
    }

    fn note<R>(&self, written: Poll<R>) -> Poll<R> {
        match written {
            Poll::Pending => self.state.write_waits(),
            Poll::Ready(_) => self.state.write_goes_on(),
        }
        written
    }
}

impl AsyncRead for ClientSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_ready() {
            note_read();
        }
        read
    }
}

impl AsyncWrite for ClientSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.lift_limit();
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.lift_limit();
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.state.finishes();
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Drop for ClientSocket {
    fn drop(&mut self) {
        if self.state.is_broken() {
            // The kernel would keep what the client does not take for minutes, too.
            reset(&self.stream);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        sync::Semaphore,
    };

    use super::*;
    use crate::listen::state::InFlight;

    /// A connection of this state, and its client.
    async fn connected(state: &Arc<State>) -> (ClientSocket, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        (ClientSocket::new(stream, Arc::clone(state), Some(Duration::from_secs(300))), client)
    }

    fn state() -> Arc<State> {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Arc::new(State::new(Arc::default(), &Arc::default(), place))
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_client_may_leave_bytes_unanswered_for_a_time_and_in_a_tunnel_for_longer() {
        let state = state();
        let (mut socket, _client) = connected(&state).await;
        let limit =
            |socket: &ClientSocket| socket2::SockRef::from(&socket.stream).tcp_user_timeout().unwrap();
        socket.write_all(b"x").await.unwrap();
        let (request, _offered) = (InFlight::begin(&state), state.tunnel());
        socket.write_all(b"x").await.unwrap();
        assert_eq!(limit(&socket), Some(Duration::from_secs(300)), "an offer may be declined");
        request.changes_protocol();
        socket.write_all(b"x").await.unwrap();
        assert_eq!(limit(&socket), None);
    }

    #[tokio::test]
    async fn it_is_noted_when_a_client_takes_nothing_and_when_it_goes_on() {
        let state = state();
        let (mut socket, mut client) = connected(&state).await;
        let request = InFlight::begin(&state);
        let content = vec![b'x'; 65_536];
        let mut written = 0;
        poll_fn(|cx| {
            while let Poll::Ready(length) = Pin::new(&mut socket).poll_write(cx, &content) {
                written += length.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        assert!(request.is_writing());
        client.read_exact(&mut vec![0; written]).await.unwrap();
        socket.write_all(b"x").await.unwrap();
        assert!(!request.is_writing());
    }
}
