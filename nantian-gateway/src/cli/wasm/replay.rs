//! One exchange, taken through a plugin.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use crate::body::BoxError;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, request, response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Failure, Plugin, WasmLayer,
    body::RequestBody,
    host::{CallError, Host, HttpCall, HttpCallResponse, HttpReply},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// What both ends saw.
pub(super) struct Replay {
    /// The request that left for the upstream, and its body or why it broke off.
    pub(super) sent: Option<(request::Parts, Result<Bytes, String>)>,
    /// The response that the client got.
    pub(super) received: (response::Parts, Result<Bytes, String>),
    /// Why the plugin failed the stream.
    pub(super) failure: Option<Failure>,
}

/// A body in pieces.
pub(super) struct Pieces(VecDeque<Bytes>);

/// Answers calls to each upstream with one response.
pub(super) struct Replies(HashMap<String, Response<Bytes>>);

/// Takes the exchange through the plugin; waits as long as the plugin holds it.
pub(super) async fn replay(
    plugin: Plugin,
    request: Request<Pieces>,
    response: Response<Pieces>,
) -> Result<Replay, BoxError> {
    let sent = RefCell::new(None);
    let answer = RefCell::new(Some(response));
    let upstream = service_fn(|request: Request<RequestBody<Pieces>>| {
        let (sent, answer) = (&sent, &answer);
        async move {
            let (parts, body) = request.into_parts();
            let body = collect(body).await;
            let broken = body.clone().err();
            *sent.borrow_mut() = Some((parts, body));
            match (broken, answer.borrow_mut().take()) {
                (None, Some(response)) => Ok(response),
                (broken, _) => Err(broken.unwrap_or_default()),
            }
        }
    });
    let layer = WasmLayer::new([plugin]);
    let (mut parts, body) = layer.layer(upstream).oneshot(request).await?.into_parts();
    let failure = parts.extensions.remove();
    let body = collect(body).await;
    Ok(Replay { sent: sent.take(), received: (parts, body), failure })
}

async fn collect<B: Body<Data = Bytes>>(body: B) -> Result<Bytes, String>
where
    B::Error: ToString,
{
    body.collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string())
}

// === impl Pieces ===

impl Pieces {
    /// These bytes, in pieces of `size` or whole.
    pub(super) fn new(mut bytes: Bytes, size: Option<usize>) -> Self {
        let mut pieces = VecDeque::new();
        while !bytes.is_empty() {
            pieces.push_back(bytes.split_to(size.unwrap_or(usize::MAX).min(bytes.len())));
        }
        Self(pieces)
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

// === impl Replies ===

impl Replies {
    pub(super) fn new(replies: HashMap<String, Response<Bytes>>) -> Self {
        Self(replies)
    }
}

impl Host for Replies {
    fn http_call(&self, _: &str, call: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        tracing::info!(target: "nantian_wasm::calls", upstream = call.upstream, uri = %call.request.uri(), "call-out");
        let response = self.0.get(&call.upstream).ok_or(CallError::UnknownUpstream)?;
        reply.send(Ok(HttpCallResponse::new(response.clone(), HeaderMap::new())));
        Ok(())
    }
}
