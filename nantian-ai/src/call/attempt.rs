//! What an attempt comes to.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::response::Parts;

use crate::call::chunk_path::ChunkPath;
use crate::call::receive::{Receiving, Rest};
use crate::error::{Awaited, Error};
use crate::ir::Fault;
use crate::target::Target;

/// What a turn of an attempt comes to.
pub(crate) enum Step<B> {
    /// Another attempt, after so long.
    Again(Duration),
    /// The answer, as far as it has come.
    Answer(Box<Answer<B>>),
    /// It failed, and may be repeated.
    Failed(Failed),
    /// The provider has refused, the client gets that as it is, and what it says is known.
    Objected(Box<Answer<B>>, Fault),
    /// The client gets the reply, in whatever pieces it comes.
    Pass(Response<B>),
    /// More of the reply must come first.
    Receive(Receiving<B>),
    /// It failed, and is not repeated: the provider has refused, or there is no time.
    Refused(Failed),
}

/// An attempt without an answer.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// What the upstream said besides.
    pub(crate) headers: Box<HeaderMap>,
}

/// An answer as the client gets it.
pub(crate) struct Answer<B> {
    pub(crate) head: Parts,
    /// What has come of it, as the client gets it.
    pub(crate) held: VecDeque<Bytes>,
    /// What has yet to come, and how it is passed on.
    pub(crate) rest: Option<(Rest<B>, ChunkPath)>,
}

// === impl Failed ===

impl Failed {
    pub(crate) fn of(target: &Target, fault: Fault, headers: &HeaderMap) -> Self {
        let target = target.name().to_owned();
        Self { error: Error::Provider { target, fault }, headers: Box::new(headers.clone()) }
    }

    /// Something has not come in time.
    pub(crate) fn late(target: &Target, (awaited, after): (Awaited, Duration)) -> Self {
        Self::from(Error::Timeout { target: target.name().to_owned(), awaited, after })
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { error, headers: Box::default() }
    }
}

// === impl Answer ===

impl<B> Answer<B> {
    pub(crate) fn whole(head: Parts, body: Bytes) -> Self {
        Self { head, held: VecDeque::from([body]), rest: None }
    }
}

pub(super) fn is_encoded(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_ENCODING).is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let is_json = |value: &HeaderValue| {
        let essence = value.to_str().ok()?.split(';').next()?.trim();
        Some(essence.eq_ignore_ascii_case("application/json"))
    };
    headers.get(CONTENT_TYPE).and_then(is_json).unwrap_or(false)
}
