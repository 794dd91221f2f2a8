//! The body of a request that may be sent more than once.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};

use crate::{
    body::{Body, BoxError},
    kept::KeptBytes,
};

/// Shorter pieces are copied to be kept: what is read is a slice of a buffer, all of which it would keep.
const COPIED: usize = 4096;

/// A body that is kept while it is sent, so that it can be sent again.
pub(crate) struct ReplayBuffer(Rc<RefCell<KeptBody>>);

struct KeptBody {
    source: Body,
    /// What was read of the source so far, or what is left to send of it if it will not be sent again.
    parts: VecDeque<Part>,
    /// The part that the present attempt sends next.
    next: usize,
    /// How many bytes may be kept, counting what it takes to keep them.
    limit: usize,
    /// How many are.
    size: usize,
    kept: KeptBytes,
    /// Whether `parts` is all that was read.
    is_whole: bool,
    /// The number of the attempt that may read.
    attempt: u32,
}

#[derive(Clone)]
enum Part {
    Data(Bytes),
    /// Rare, and larger than the others.
    Trailers(Box<HeaderMap>),
}

/// The body of one attempt.
struct AttemptBody {
    kept: Rc<RefCell<KeptBody>>,
    number: u32,
}

// === impl ReplayBuffer ===

impl ReplayBuffer {
    /// Keeps up to `limit` bytes of `source`, in which each part counts for what it takes to keep it, lest
    /// clients make a lot of small ones; there is nothing to keep if it is empty.
    pub(crate) fn of(source: Body, limit: usize) -> Option<Self> {
        let (parts, kept) = (VecDeque::new(), KeptBytes::default());
        let kept = KeptBody { source, parts, next: 0, limit, size: 0, kept, is_whole: true, attempt: 0 };
        (!kept.source.is_end_stream()).then(|| Self(Rc::new(RefCell::new(kept))))
    }

    /// Whether it can be sent from its beginning.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.borrow().is_whole
    }

    /// The body of the next attempt; those of earlier ones break off.
    pub(crate) fn next(&self) -> Body {
        let mut kept = self.0.borrow_mut();
        kept.attempt += 1;
        kept.next = 0;
        Body::boxed(AttemptBody { kept: Rc::clone(&self.0), number: kept.attempt })
    }
}

impl Drop for ReplayBuffer {
    /// There is no further attempt, and the present one may last long without anything more to send.
    fn drop(&mut self) {
        if let Ok(mut kept) = self.0.try_borrow_mut() {
            kept.keep_rest();
        }
    }
}

// === impl KeptBody ===

impl KeptBody {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if !self.is_whole {
            return;
        }
        self.size += frame.data_ref().map_or(0, Bytes::len) + size_of::<Part>();
        if self.size > self.limit || !self.kept.set(self.size) {
            self.forget();
            return;
        }
        if let Some(data) = frame.data_ref() {
            let is_short = data.len() < COPIED;
            let data = if is_short { Bytes::copy_from_slice(data) } else { data.clone() };
            self.parts.push_back(Part::Data(data));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.parts.push_back(Part::Trailers(Box::new(trailers.clone())));
        }
        self.next = self.parts.len();
    }

    /// What was kept and the present attempt has yet to send; it stays only if it may be sent again.
    fn next_part(&mut self) -> Option<Part> {
        if self.is_whole {
            let part = self.parts.get(self.next)?.clone();
            self.next += 1;
            return Some(part);
        }
        let part = self.parts.pop_front()?;
        self.size = self.size.saturating_sub(part.len() + size_of::<Part>());
        if self.parts.is_empty() {
            self.forget();
        } else {
            // Less finds room.
            let _ = self.kept.set(self.size);
        }
        Some(part)
    }

    /// Keeps no more than what the present attempt has yet to send.
    fn keep_rest(&mut self) {
        self.is_whole = false;
        for _ in 0..std::mem::take(&mut self.next) {
            drop(self.next_part());
        }
        self.parts.shrink_to_fit();
    }

    fn forget(&mut self) {
        self.is_whole = false;
        self.parts = VecDeque::new();
        self.next = 0;
        self.kept = KeptBytes::default();
    }
}

// === impl Part ===

impl Part {
    /// Bytes of the content.
    fn len(&self) -> usize {
        match self {
            Self::Data(data) => data.len(),
            Self::Trailers(_) => 0,
        }
    }
}

// === impl AttemptBody ===

impl http_body::Body for AttemptBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kept = self.kept.borrow_mut();
        if kept.attempt != self.number {
            return Poll::Ready(Some(Err("the request is sent anew".into())));
        }
        if let Some(part) = kept.next_part() {
            return Poll::Ready(Some(Ok(match part {
                Part::Data(data) => Frame::data(data),
                Part::Trailers(trailers) => Frame::trailers(*trailers),
            })));
        }
        let polled = Pin::new(&mut kept.source).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => kept.keep(frame),
            // A source may say of its error once, and that it is over from then on.
            Poll::Ready(Some(Err(_))) => kept.forget(),
            Poll::Ready(None) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        let kept = self.kept.borrow();
        kept.attempt == self.number && kept.next >= kept.parts.len() && kept.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let kept = self.kept.borrow();
        let ahead: u64 = kept.parts.iter().skip(kept.next).map(|part| part.len() as u64).sum();
        let source = kept.source.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = source.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint.set_lower(source.lower().saturating_add(ahead));
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;
    use crate::kept::tests::all_but;

    const KEPT: usize = 1000;

    fn source(parts: &[&'static str]) -> Body {
        let parts: Vec<_> =
            parts.iter().map(|part| Ok::<_, BoxError>(Frame::data(Bytes::from(*part)))).collect();
        Body::boxed(StreamBody::new(stream::iter(parts)))
    }

    #[tokio::test]
    async fn each_attempt_sends_all_of_it() {
        let replay = ReplayBuffer::of(source(&["a", "b", "c"]), KEPT).unwrap();
        let mut first = replay.next();
        assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "a");
        let second = replay.next();
        assert!(first.frame().await.unwrap().is_err(), "an earlier one breaks off");
        assert_eq!(second.collect().await.unwrap().to_bytes(), "abc");
        assert!(replay.is_whole());
        assert_eq!(replay.next().collect().await.unwrap().to_bytes(), "abc");
    }

    #[tokio::test]
    async fn bodies_have_a_limit_together_and_pass_without_being_kept_over_it() {
        let _others = all_but(150);
        let replay = ReplayBuffer::of(Body::full(vec![b'a'; 100]), KEPT).unwrap();
        assert_eq!(replay.next().collect().await.unwrap().to_bytes().len(), 100);
        let second = ReplayBuffer::of(Body::full(vec![b'b'; 100]), KEPT).unwrap();
        assert_eq!(second.next().collect().await.unwrap().to_bytes().len(), 100, "it is sent all the same");
        assert!(replay.is_whole() && !second.is_whole());
        drop(replay);
        let third = ReplayBuffer::of(Body::full(vec![b'c'; 100]), KEPT).unwrap();
        third.next().collect().await.unwrap();
        assert!(third.is_whole());
    }

    #[tokio::test]
    async fn the_size_is_that_of_what_is_left() {
        let replay = ReplayBuffer::of(Body::full("abc"), KEPT).unwrap();
        for _ in 0..2 {
            let mut attempt = replay.next();
            assert_eq!(attempt.size_hint().exact(), Some(3));
            attempt.frame().await.unwrap().unwrap();
            assert_eq!(attempt.size_hint().exact(), Some(0));
            assert!(attempt.is_end_stream());
        }
        assert!(ReplayBuffer::of(Body::empty(), KEPT).is_none());
    }

    #[tokio::test]
    async fn nothing_is_kept_that_will_not_be_sent_again() {
        let replay = ReplayBuffer::of(source(&["a", "b"]), KEPT).unwrap();
        let mut attempt = replay.next();
        attempt.frame().await.unwrap().unwrap();
        let kept = Rc::downgrade(&replay.0);
        drop(replay);
        attempt.frame().await.unwrap().unwrap();
        assert!(kept.upgrade().unwrap().borrow().parts.is_empty());
        assert!(attempt.frame().await.is_none());
    }

    #[tokio::test]
    async fn what_was_sent_is_given_back_though_nothing_more_comes() {
        let _others = all_but(150);
        let part = Ok::<_, BoxError>(Frame::data(Bytes::from(vec![b'a'; 100])));
        let silent = Body::boxed(StreamBody::new(stream::iter([part]).chain(stream::pending())));
        let replay = ReplayBuffer::of(silent, KEPT).unwrap();
        let mut attempt = replay.next();
        attempt.frame().await.unwrap().unwrap();
        let mut more = KeptBytes::default();
        assert!(!more.set(100), "it may be sent again");
        drop(replay);
        assert!(more.set(150));
    }

    #[tokio::test]
    async fn what_the_last_attempt_has_yet_to_send_is_kept_until_then() {
        let _others = all_but(150);
        let replay = ReplayBuffer::of(Body::full(vec![b'a'; 100]), KEPT).unwrap();
        replay.next().frame().await.unwrap().unwrap();
        let mut last = replay.next();
        drop(replay);
        let mut more = KeptBytes::default();
        assert!(!more.set(100) && !last.is_end_stream());
        assert_eq!(last.size_hint().exact(), Some(100));
        assert_eq!(last.frame().await.unwrap().unwrap().into_data().unwrap().len(), 100);
        assert!(more.set(150) && last.is_end_stream());
        assert!(last.frame().await.is_none());
    }

    #[tokio::test]
    async fn short_pieces_do_not_keep_what_they_were_read_into() {
        let read = Bytes::from(vec![b'a'; 65_536]);
        let parts = [0, 1, 2].map(|at| Ok::<_, BoxError>(Frame::data(read.slice(at..=at))));
        let source = Body::boxed(StreamBody::new(stream::iter(parts)));
        let replay = ReplayBuffer::of(source, KEPT).unwrap();
        assert_eq!(replay.next().collect().await.unwrap().to_bytes(), "aaa");
        assert!(replay.is_whole() && read.is_unique());
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_whole() {
        let parts = [Ok(Frame::data(Bytes::from("a"))), Err(BoxError::from("broken"))];
        let source = Body::boxed(StreamBody::new(stream::iter(parts)));
        let replay = ReplayBuffer::of(source, KEPT).unwrap();
        assert!(replay.next().collect().await.is_err());
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn small_parts_count_for_what_it_takes_to_keep_them() {
        let replay = ReplayBuffer::of(source(&["x"; KEPT / 2]), KEPT).unwrap();
        let mut attempt = replay.next();
        for _ in 0..KEPT / 2 {
            attempt.frame().await.unwrap().unwrap();
            let kept = replay.0.borrow();
            assert!(kept.parts.len() * size_of::<Part>() <= KEPT, "{} parts", kept.parts.len());
        }
        assert!(!replay.is_whole());
    }

    #[tokio::test]
    async fn what_is_too_long_is_sent_once() {
        let long: &'static str = "x".repeat(KEPT / 2).leak();
        let replay = ReplayBuffer::of(source(&[long, long, "y"]), KEPT).unwrap();
        let sent = replay.next().collect().await.unwrap().to_bytes();
        assert_eq!(sent.len(), KEPT + 1);
        assert!(!replay.is_whole());
    }
}
