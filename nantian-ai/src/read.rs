//! A request body read whole, within a limit.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::error::{BoxError, Error};
use crate::memory::HeldMemory;

pub use crate::packed::unpack;

/// The most that is reserved on the word of a `content-length` alone.
const FIRST_RESERVE: usize = 256 * 1024;

pin_project! {
    /// Reads a body to its end. Trailers are dropped.
    ///
    /// A body of one chunk is not copied.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`] as soon as the body is, or says that it will be, above the limit;
    /// [`Error::BodyRead`] if it fails, and, if it is to hold memory, what [`HeldMemory::hold`] says.
    ///
    /// # Cancellation
    /// Dropping it drops the body and what was read of it.
    #[derive(Debug)]
    pub struct ReadBody<B> {
        #[pin]
        body: B,
        limit: u64,
        held: Option<HeldMemory>,
        first: Bytes,
        rest: BytesMut,
    }
}

// === impl ReadBody ===

impl<B> ReadBody<B> {
    /// Reads at most `limit` bytes.
    pub fn new(body: B, limit: u64) -> Self {
        Self { body, limit, held: None, first: Bytes::new(), rest: BytesMut::new() }
    }

    /// Holds memory for what it reads, which stays held as long as anybody has a clone of it.
    #[must_use]
    pub fn holding(mut self, held: Option<HeldMemory>) -> Self {
        self.held = held;
        self
    }
}

impl<B> Future for ReadBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<Bytes, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let read = this.first.len() as u64 + this.rest.len() as u64;
            let announced = this.body.size_hint().lower();
            if read.saturating_add(announced) > *this.limit {
                return Poll::Ready(Err(Error::BodyTooLarge { limit: *this.limit }));
            }
            let frame = match ready!(this.body.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    return Poll::Ready(Err(Error::BodyRead { source: Arc::from(error.into()) }));
                }
                None if this.rest.is_empty() => {
                    return Poll::Ready(Ok(std::mem::take(this.first)));
                }
                None => return Poll::Ready(Ok(std::mem::take(this.rest).freeze())),
            };
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            if read.saturating_add(data.remaining() as u64) > *this.limit {
                return Poll::Ready(Err(Error::BodyTooLarge { limit: *this.limit }));
            }
            if let Some(held) = this.held
                && let Err(error) = held.hold(read.saturating_add(data.remaining() as u64))
            {
                return Poll::Ready(Err(error));
            }
            if read == 0 {
                *this.first = data.copy_to_bytes(data.remaining());
                continue;
            }
            if this.rest.is_empty() {
                let announced = usize::try_from(announced).unwrap_or(FIRST_RESERVE);
                this.rest.reserve(this.first.len() + announced.min(FIRST_RESERVE));
                this.rest.put(std::mem::take(this.first));
            }
            this.rest.put(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;

    use futures_util::stream;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;
    use crate::memory::BodyMemory;

    fn chunks(chunks: &[&'static str]) -> impl Body<Data = Bytes, Error = Infallible> + use<> {
        let frames: Vec<_> =
            chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))).collect();
        StreamBody::new(stream::iter(frames))
    }

    #[tokio::test]
    async fn chunks_are_joined_and_one_chunk_is_not_copied() {
        assert_eq!(ReadBody::new(chunks(&["ab", "", "cd", "e"]), 5).await.unwrap(), "abcde");
        assert_eq!(ReadBody::new(chunks(&[]), 5).await.unwrap(), "");
        let whole = Bytes::from_static(b"whole");
        let read = ReadBody::new(Full::new(whole.clone()), 5).await.unwrap();
        assert_eq!(read.as_ptr(), whole.as_ptr());
    }

    #[tokio::test]
    async fn a_body_above_the_limit_is_refused_announced_or_not() {
        for error in [
            ReadBody::new(chunks(&["ab", "cd", "e"]), 4).await.unwrap_err(),
            ReadBody::new(Full::new(Bytes::from_static(b"whole")), 4).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::BodyTooLarge { limit: 4 }));
        }
    }

    #[tokio::test]
    async fn what_is_read_is_held_as_it_comes() {
        let memory = BodyMemory::new(4);
        let (held, other) = (memory.begin(), memory.begin());
        let read = ReadBody::new(chunks(&["a", "b"]), 9).holding(Some(held.clone())).await.unwrap();
        assert_eq!((&read[..], memory.held()), (&b"ab"[..], 2));
        let error = ReadBody::new(chunks(&["a", "bcd"]), 9).holding(Some(other)).await.unwrap_err();
        assert!(matches!(error, Error::TooManyBodies));
        assert_eq!(memory.held(), 2, "who is refused holds nothing");
        drop(held);
        assert_eq!(memory.held(), 0);
    }

    #[tokio::test]
    async fn a_body_that_fails_is_an_error_of_the_request() {
        let failing =
            stream::iter([Ok(Frame::data(Bytes::from_static(b"a"))), Err(io::Error::other("reset"))]);
        let error = ReadBody::new(StreamBody::new(failing), 4).await.unwrap_err();
        assert!(matches!(error, Error::BodyRead { .. }));
    }
}
