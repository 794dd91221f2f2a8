//! Connections that end when nothing is asked: a client that says nothing is to hold no file for ever.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{Instant, Sleep, sleep},
};

use crate::socket::keep_alive;

/// How long a client is waited for: more than most pauses between two scrapes.
const PATIENCE: Duration = Duration::from_secs(75);

/// Accepts connections whose clients are waited for no longer than [`PATIENCE`].
pub(super) struct PatientListener(pub(super) TcpListener);

/// A connection whose reads fail when nothing comes for too long.
pub(super) struct PatientStream {
    stream: TcpStream,
    patience: Pin<Box<Sleep>>,
}

impl Listener for PatientListener {
    type Io = PatientStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (PatientStream, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        if let Err(error) = keep_alive(&stream) {
            tracing::debug!(%error, "a client of the admin server is not asked whether it is there");
        }
        (PatientStream { stream, patience: Box::pin(sleep(PATIENCE)) }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

// === impl PatientStream ===

impl AsyncRead for PatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Pending => {
                ready!(self.patience.as_mut().poll(cx));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
            read => {
                self.patience.as_mut().reset(Instant::now() + PATIENCE);
                read
            }
        }
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use axum::{Router, routing::get};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_that_asks_nothing_is_left_before_its_head_and_after_an_answer() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(|| async { "ok" }));
        tokio::spawn(async { axum::serve(PatientListener(listener), router).await });
        for asked in ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: h\r\n\r\n"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(asked.as_bytes()).await.unwrap();
            let mut answer = vec![0; 15];
            if asked.contains("Host") {
                client.read_exact(&mut answer).await.unwrap();
                assert_eq!(answer, b"HTTP/1.1 200 OK");
            }
            tokio::time::pause();
            // Whether it ends by an error is nothing to the client.
            let _ = client.read_to_end(&mut answer).await;
            tokio::time::resume();
        }
    }
}
