//! Bytes in both directions, each until its end.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::buffers::Buffers;
use crate::runtime::note_read;

/// Whose bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Peer {
    Client,
    Backend,
}

/// Copies until both sides have ended; the end of one side is passed on and leaves the other direction open.
///
/// `moved` is told of all bytes as they are read.
///
/// # Errors
/// When one of the two connections breaks: nothing more can be said to either side.
pub(super) async fn both<C, B>(
    client: &mut C,
    backend: &mut B,
    buffers: &Buffers,
    moved: impl Fn(Peer, usize),
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut forth, mut back) = (Direction::new(buffers), Direction::new(buffers));
    poll_fn(|cx| {
        let forth = forth.poll(cx, client, backend, |bytes| moved(Peer::Client, bytes))?;
        let back = back.poll(cx, backend, client, |bytes| moved(Peer::Backend, bytes))?;
        if forth.is_ready() && back.is_ready() { Poll::Ready(Ok(())) } else { Poll::Pending }
    })
    .await
}

/// One direction.
struct Direction<'b> {
    buffers: &'b Buffers,
    /// Held from the moment that bytes are read until they are written.
    held: Option<Buffered>,
    state: State,
}

/// Bytes on their way.
struct Buffered {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ending,
    Ended,
}

// === impl Direction ===

impl<'b> Direction<'b> {
    fn new(buffers: &'b Buffers) -> Self {
        Self { buffers, held: None, state: State::Open }
    }

    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: impl Fn(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match self.state {
                State::Ended => return Poll::Ready(Ok(())),
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Open => {
                    ready!(self.write(cx, to))?;
                    match self.read(cx, from) {
                        Poll::Ready(Ok(0)) => self.state = State::Ending,
                        Poll::Ready(Ok(bytes)) => moved(bytes),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => {
                            // Under TLS a write may only have filled a buffer.
                            ready!(Pin::new(&mut *to).poll_flush(cx))?;
                            return Poll::Pending;
                        }
                    }
                }
            }
        }
    }

    /// Writes what is held.
    fn write(&mut self, cx: &mut Context<'_>, to: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<()>> {
        while let Some(held) = self.held.as_mut().filter(|held| held.start < held.end) {
            let bytes = held.buffer.get(held.start..held.end).unwrap_or_default();
            match ready!(Pin::new(&mut *to).poll_write(cx, bytes))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => held.start += written,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads into a buffer that has nothing to write any more; gives it back if there is nothing to read.
    fn read(&mut self, cx: &mut Context<'_>, from: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<usize>> {
        let mut buffer = self.held.take().map_or_else(|| self.buffers.take(), |held| held.buffer);
        let mut free = ReadBuf::new(&mut buffer);
        let read = Pin::new(from).poll_read(cx, &mut free);
        let end = free.filled().len();
        if read.is_ready() {
            note_read();
        }
        match read {
            Poll::Ready(Ok(())) if end > 0 => {
                self.held = Some(Buffered { buffer, start: 0, end });
                Poll::Ready(Ok(end))
            }
            other => {
                self.buffers.give_back(buffer);
                match other {
                    // A client that closes its connection without saying so in TLS has ended all the same.
                    Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        Poll::Ready(Ok(0))
                    }
                    other => other.map_ok(|()| 0),
                }
            }
        }
    }
}

impl Drop for Direction<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.buffers.give_back(held.buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// What comes out at the other end of `sent`, written in pieces of these sizes through pipes of `room`
    /// bytes.
    fn passed(sent: &[u8], sizes: &[usize], room: usize) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut client, mut near) = duplex(room);
            let (mut far, mut backend) = duplex(room);
            let buffers = Buffers::default();
            let write = async {
                let mut rest = sent;
                for size in sizes.iter().cycle() {
                    if rest.is_empty() {
                        break;
                    }
                    let (piece, further) = rest.split_at((*size).min(rest.len()));
                    client.write_all(piece).await.unwrap();
                    rest = further;
                }
                client.shutdown().await.unwrap();
                let mut answer = Vec::new();
                client.read_to_end(&mut answer).await.unwrap();
                answer
            };
            let echo = async {
                let mut seen = Vec::new();
                backend.read_to_end(&mut seen).await.unwrap();
                backend.write_all(&seen).await.unwrap();
                backend.shutdown().await.unwrap();
            };
            let copied = both(&mut near, &mut far, &buffers, |_, _| ());
            let (answer, (), copied) = tokio::join!(write, echo, copied);
            copied.unwrap();
            answer
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_byte_arrives_once_and_in_order_and_an_end_leaves_the_other_way_open(
            sent in prop::collection::vec(any::<u8>(), 0..20_000),
            sizes in prop::collection::vec(1_usize..5000, 1..8),
            room in 1_usize..3000,
        ) {
            prop_assert_eq!(passed(&sent, &sizes, room), sent);
        }
    }

    #[tokio::test]
    async fn a_connection_that_waits_holds_no_buffer() {
        let (_client, mut near) = duplex(10);
        let (mut far, _backend) = duplex(10);
        let buffers = Buffers::default();
        let mut copied = Box::pin(both(&mut near, &mut far, &buffers, |_, _| ()));
        assert!(poll_fn(|cx| Poll::Ready(copied.as_mut().poll(cx).is_pending())).await);
        let lent = buffers.take();
        buffers.give_back(lent);
        assert_eq!(buffers.spare(), 1, "both directions have used one and the same");
    }
}
