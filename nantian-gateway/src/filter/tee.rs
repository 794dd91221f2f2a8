//! A body that is copied while it is read.

use std::{convert::Infallible, task::Poll};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;

use crate::{body::Body, kept::KeptBytes};

/// The most bytes of a body that are copied.
const COPIED: usize = 1 << 20;

/// A body as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BodyCopy {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

/// Its data, and the memory that it takes of what there is for all.
#[derive(Default)]
struct KeptData {
    data: BytesMut,
    kept: KeptBytes,
}

/// Copies what it is shown of a body.
struct Tee<F> {
    copy: KeptData,
    trailers: Option<HeaderMap>,
    is_too_long: bool,
    then: Option<F>,
}

/// Copies a body, and gives the copy to `then` when the body is over; `None` if it was too long,
/// or all were. A body that breaks off is not copied.
pub(super) fn copied(body: Body, then: impl FnOnce(Option<BodyCopy>) + Unpin + 'static) -> Body {
    let copy = KeptData::default();
    let mut tee = Tee { copy, trailers: None, is_too_long: false, then: Some(then) };
    body.inspect(move |polled, is_over| match polled {
        Poll::Ready(Some(Ok(frame))) => {
            tee.see(frame);
            if is_over || frame.is_trailers() {
                tee.end();
            }
        }
        Poll::Ready(None) => tee.end(),
        Poll::Ready(Some(Err(_))) => tee.then = None,
        Poll::Pending => {}
    })
}

// === impl Tee ===

impl<F: FnOnce(Option<BodyCopy>)> Tee<F> {
    fn see(&mut self, frame: &Frame<Bytes>) {
        let Some(data) = frame.data_ref() else {
            self.trailers = frame.trailers_ref().cloned();
            return;
        };
        self.is_too_long |= self.copy.data.len() + data.len() > COPIED;
        if !self.is_too_long {
            self.copy.data.extend_from_slice(data);
            self.is_too_long = !self.copy.kept.set(self.copy.data.capacity());
        }
        if self.is_too_long {
            self.copy = KeptData::default();
        }
    }

    fn end(&mut self) {
        if let Some(then) = self.then.take() {
            let data = Bytes::from_owner(std::mem::take(&mut self.copy));
            let copy = BodyCopy { data, trailers: self.trailers.take() };
            then((!self.is_too_long).then_some(copy));
        }
    }
}

impl From<BodyCopy> for Body {
    fn from(BodyCopy { data, trailers }: BodyCopy) -> Self {
        let Some(trailers) = trailers else { return Self::full(data) };
        // HTTP/1.1 has trailers behind content of unknown length alone.
        let frames = [Frame::data(data), Frame::trailers(trailers)].map(Ok::<_, Infallible>);
        Self::boxed(StreamBody::new(stream::iter(frames)))
    }
}

impl AsRef<[u8]> for KeptData {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use http_body_util::BodyExt as _;

    use super::*;
    use crate::{body::BoxError, kept::tests::all_but};

    /// What is given on when `frames` are read.
    async fn copy_of(frames: Vec<Result<Frame<Bytes>, BoxError>>) -> Option<Option<BodyCopy>> {
        let given = Rc::new(RefCell::new(None));
        let to = Rc::clone(&given);
        let body = Body::boxed(StreamBody::new(stream::iter(frames)));
        let _ = copied(body, move |copy| *to.borrow_mut() = Some(copy)).collect().await;
        given.take()
    }

    fn data(text: impl Into<Bytes>) -> Result<Frame<Bytes>, BoxError> {
        Ok(Frame::data(text.into()))
    }

    #[tokio::test]
    async fn a_body_that_was_read_is_given_on() {
        let copy = |data: &'static str, trailers| Some(Some(BodyCopy { data: data.into(), trailers }));
        assert_eq!(copy_of(vec![data("a"), data("bc")]).await, copy("abc", None));
        let sum = HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("7"))]);
        let trailers = Ok(Frame::trailers(sum.clone()));
        assert_eq!(copy_of(vec![data("a"), trailers]).await, copy("a", Some(sum)));
    }

    #[tokio::test]
    async fn copies_have_a_limit_together_until_nobody_has_them_any_more() {
        let _others = all_but(1000);
        let copy = copy_of(vec![data(vec![0; 900])]).await;
        assert!(matches!(&copy, Some(Some(copy)) if copy.data.len() == 900));
        assert_eq!(copy_of(vec![data(vec![0; 900])]).await, Some(None), "the first is still on its way");
        drop(copy);
        assert!(copy_of(vec![data(vec![0; 900])]).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn one_that_is_too_long_or_breaks_off_is_not() {
        assert_eq!(copy_of(vec![data(vec![0; COPIED]), data("a")]).await, Some(None));
        assert_eq!(copy_of(vec![data("a"), Err("broken".into())]).await, None);
    }
}
