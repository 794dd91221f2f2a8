//! One connection, byte by byte.

use std::{io, net::SocketAddr};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{Message, soon};

/// What a [`Wire`] is over.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// One side of a connection, and what was read of it and not yet taken.
pub(crate) struct Wire {
    io: Box<dyn Stream>,
    buffer: BytesMut,
}

impl Wire {
    pub(crate) fn over(io: impl Stream + 'static) -> Self {
        Self { io: Box::new(io), buffer: BytesMut::new() }
    }

    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let io = soon(TcpStream::connect(address)).await.expect("the gateway accepts");
        io.set_nodelay(true).unwrap();
        Self::over(io)
    }

    /// The connection itself, of which nothing was read.
    pub(crate) fn into_io(self) -> Box<dyn Stream> {
        self.io
    }

    /// Writes `bytes`; that the other side has closed is told by what is read.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A peer that has seen enough may close before all is written.
        let _ = soon(self.io.write_all(bytes.as_ref())).await;
    }

    /// Writes `bytes`, however long the other side takes.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.io.write_all(bytes).await
    }

    /// Ends this side; the other may go on.
    pub(crate) async fn finish(&mut self) {
        soon(self.io.shutdown()).await.unwrap();
    }

    /// Sends a request and reads the response.
    pub(crate) async fn ask(&mut self, request: impl AsRef<[u8]>) -> Message {
        self.send(request).await;
        self.reply().await
    }

    /// `GET path` and its response, on a connection that stays open.
    pub(crate) async fn get(&mut self, path: &str) -> Message {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n")).await
    }

    /// The next message, which must come soon.
    pub(crate) async fn reply(&mut self) -> Message {
        soon(self.message()).await.expect("there is a message")
    }

    /// The head of the next message, which must come soon.
    pub(crate) async fn reply_head(&mut self) -> Message {
        soon(self.head()).await.expect("there is a head")
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> io::Result<Message> {
        let mut message = self.head().await?;
        self.body_of(&mut message).await?;
        Ok(message)
    }

    /// The head of the next message.
    pub(crate) async fn head(&mut self) -> io::Result<Message> {
        let start = self.line().await?;
        let headers = self.fields().await?;
        Ok(Message { start, headers, ..Message::default() })
    }

    /// Reads the content that belongs to the head of `message`.
    pub(crate) async fn body_of(&mut self, message: &mut Message) -> io::Result<()> {
        if message.is_chunked() {
            loop {
                let chunk = self.chunk().await?;
                if chunk.is_empty() {
                    break;
                }
                message.body.extend(chunk);
            }
            message.trailers = self.fields().await?;
        } else if let Some(length) = message.content_length() {
            message.body = self.exactly(length).await?;
        } else if message.ends_with_connection() {
            while self.fill().await.is_ok() {}
            message.body = self.buffer.split().to_vec();
        }
        Ok(())
    }

    /// The next chunk of a chunked body; empty is the last one, which trailers follow.
    pub(crate) async fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line().await?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let chunk = self.exactly(size).await?;
        if size > 0 {
            self.exactly(2).await?;
        }
        Ok(chunk)
    }

    /// So many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill().await?;
        }
        Ok(self.buffer.split_to(length).to_vec())
    }

    /// Whatever comes until the other side closes, which must be soon.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        soon(async { while self.fill().await.is_ok() {} }).await;
        self.buffer.split().to_vec()
    }

    /// Whether the other side closes without a further byte.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    /// How the other side ends, which must be soon: `None` is without an error.
    pub(crate) async fn end(&mut self) -> Option<io::ErrorKind> {
        soon(async {
            loop {
                match self.fill().await {
                    Ok(()) => {}
                    Err(error) => {
                        return Some(error.kind()).filter(|kind| *kind != io::ErrorKind::UnexpectedEof);
                    }
                }
            }
        })
        .await
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.buffer.split_to(end);
                self.buffer.advance(2);
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            self.fill().await?;
        }
    }

    async fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(':') else { return Ok(fields) };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.io.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}
