//! One exchange, taken through a plugin.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request, response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Failure, Plugin, StreamInfo, WasmLayer,
    body::RequestBody,
    host::{
        CallError, ForeignError, GrpcCall, GrpcReplies, GrpcStream, Host, HttpCall, HttpCallResponse,
        HttpReply,
    },
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::{body::BoxError, policy::call_foreign_function};

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

/// Nobody hears what the plugin sends.
struct Unheard;

/// Takes the exchange through the plugin; waits as long as the plugin holds it.
pub(super) async fn replay(
    plugin: Plugin,
    info: StreamInfo,
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
    let layer = WasmLayer::new([plugin]).stream_info(move |_| info.clone());
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

    fn grpc_call(
        &self,
        _: &str,
        call: GrpcCall,
        replies: GrpcReplies,
    ) -> Result<Box<dyn GrpcStream>, CallError> {
        let GrpcCall { upstream, service, method, message, .. } = call;
        tracing::info!(target: "nantian_wasm::calls", upstream, uri = %format_args!("/{service}/{method}"), "call-out");
        let response = self.0.get(&upstream).ok_or(CallError::UnknownUpstream)?;
        let (parts, body) = response.clone().into_parts();
        let said = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        let status = said("grpc-status").and_then(|status| status.parse().ok()).unwrap_or(0);
        let words = said("grpc-message").unwrap_or_default().to_owned();
        let is_stream = message.is_none();
        if is_stream {
            replies.initial_metadata(Some(parts.status), parts.headers);
        }
        if status == 0 {
            replies.message(body);
        }
        if is_stream {
            replies.trailing_metadata(None, HeaderMap::new());
        }
        replies.close(status, words);
        Ok(Box::new(Unheard))
    }

    fn foreign_function(
        &self,
        _: &str,
        name: &str,
        arguments: &[u8],
    ) -> Option<Result<Vec<u8>, ForeignError>> {
        call_foreign_function(name, arguments)
    }
}

// === impl Unheard ===

impl GrpcStream for Unheard {
    fn send(&mut self, _: Bytes) {}

    fn close(&mut self) {}
}
