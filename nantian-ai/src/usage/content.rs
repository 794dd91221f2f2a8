//! What was asked and answered, for observers that want to know.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use crate::codec::StreamDecoder;
use crate::dialect::{ClientDialect, Dialect};
use crate::edit::Object;
use crate::ir::{Collector, Reply, Request};

/// A request as the client sent it, and the answer as the provider sent it.
///
/// `Debug` shows their lengths only.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Content {
    /// The dialect of the request.
    pub client: ClientDialect,
    /// The body of the request; of a longer one than is [kept](super::UsageObserver::keeps), what fits of the
    /// same form.
    pub request: Bytes,
    /// Whether something of the request has been left out.
    pub partial: bool,
    /// The dialect of the answer.
    pub upstream: Dialect,
    /// The body of the answer, up to what is [kept](super::UsageObserver::keeps) of it.
    pub reply: Bytes,
    /// Whether the answer is a stream.
    pub stream: bool,
}

/// What names that which only a provider has stored, and without which the rest is refused elsewhere.
const STORED: [&str; 4] = ["conversation", "previous_response_id", "prompt", "thread"];

// === impl Content ===

impl Content {
    /// The conversation, if it can be read; what only its provider has stored of it is not there.
    pub fn asked(&self) -> Option<Request> {
        let mut body = self.request.clone();
        for name in STORED {
            let object = Object::parse(&body).ok()?;
            if object.value(name).is_some() {
                body = Bytes::from(object.without(name).concat());
            }
        }
        self.client.decode_request(&body).ok().map(|(request, _)| request)
    }

    /// The answer; of a stream, as much as has been kept of it.
    pub fn answered(&self) -> Option<Reply> {
        if !self.stream {
            return self.upstream.decode_reply(&self.reply, 0).ok().map(|(reply, _)| reply);
        }
        let mut decoder = StreamDecoder::new(self.upstream, 0);
        let mut events = VecDeque::new();
        decoder.push(&self.reply, &mut events);
        let mut collector = Collector::default();
        events.into_iter().for_each(|event| collector.push(event));
        Some(collector.into_partial())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("request", &self.request.len())
            .field("reply", &self.reply.len())
            .finish_non_exhaustive()
    }
}
