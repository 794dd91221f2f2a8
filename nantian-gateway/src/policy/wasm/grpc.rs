//! gRPC calls of plugins: messages in frames over HTTP/2.

use std::pin::pin;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use nantian_lb::{AttemptTimeout, Balancer};
use nantian_wasm::host::{GrpcCall, GrpcReplies, GrpcStream};
use tokio::{
    sync::{
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    time::timeout,
};

use super::host;
use crate::{
    body::{Body, BoxError},
    runtime::CallThreads,
    upstream::{Client, Destination},
};

const OK: u32 = 0;
const UNKNOWN: u32 = 2;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// Largest message that is read, in bytes.
const MAX_MESSAGE: usize = 4 << 20;
/// A flag and a length stand in front of each message.
const PREFIX: usize = 5;
/// How many messages of a guest may wait to be sent.
const MAX_WAITING: usize = 16;

/// The guest's end of a call. Dropping it cancels the call.
struct Sending {
    messages: Option<mpsc::Sender<Bytes>>,
    /// Told when more messages wait than may.
    overflow: Option<oneshot::Sender<()>>,
}

impl GrpcStream for Sending {
    fn send(&mut self, message: Bytes) {
        let Some(messages) = &self.messages else { return };
        if let Err(TrySendError::Full(_)) = messages.try_send(message) {
            self.messages = None;
            if let Some(overflow) = self.overflow.take() {
                // The call may have ended by now.
                let _ = overflow.send(());
            }
        }
    }

    fn close(&mut self) {
        self.messages = None;
    }
}

/// How a call ended.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    status: u32,
    message: String,
}

/// Opens a call on a thread of call-outs.
pub(super) fn open(
    calls: &CallThreads,
    balancer: Balancer<Destination>,
    mut call: GrpcCall,
    replies: GrpcReplies,
) -> Box<dyn GrpcStream> {
    let (messages, outgoing) = mpsc::channel(MAX_WAITING);
    let (overflow, cancelled) = oneshot::channel::<()>();
    let is_unary = call.message.is_some();
    if let Some(message) = call.message.take() {
        drop(messages.try_send(message));
    }
    calls.run(move |client| async move {
        let (limit, attempt) = (call.timeout, AttemptTimeout::new());
        let mut request = request(call, outgoing);
        request.extensions_mut().insert(attempt.clone());
        let timed = async {
            let mut exchange = pin!(exchange(client, &balancer, request, &replies, is_unary));
            let Some(limit) = limit else { return exchange.await };
            timeout(limit, exchange.as_mut()).await.unwrap_or_else(|_| {
                attempt.expire();
                // As in Envoy: plugins ask whether it is unavailable.
                failed(UNAVAILABLE, "upstream request timeout".to_owned())
            })
        };
        let (ended, (status, trailers)) = tokio::select! {
            ended = timed => ended,
            overflow = cancelled => match overflow {
                Ok(()) => failed(RESOURCE_EXHAUSTED, format!("more than {MAX_WAITING} messages wait to be sent")),
                Err(_) => return,
            },
        };
        // As in Envoy, a stream that ends without trailers is told of empty ones before it ends.
        if !is_unary {
            replies.trailing_metadata(status, trailers);
        }
        replies.close(ended.status, ended.message);
    });
    Box::new(Sending { messages: (!is_unary).then_some(messages), overflow: Some(overflow) })
}

/// How a call ended, its trailers, and the status of the response that they are the whole of, if they are.
type Outcome = (Ended, (Option<StatusCode>, HeaderMap));

/// The end of a call that failed before its trailers.
fn failed(status: u32, message: String) -> Outcome {
    (Ended { status, message }, (None, HeaderMap::new()))
}

/// The end of a call that nobody answered. As in Envoy, guests see it as an answer that says so.
fn unanswered(message: String, replies: &GrpcReplies, is_unary: bool) -> Outcome {
    if !is_unary {
        replies.initial_metadata(None, HeaderMap::new());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    trailers.insert("grpc-status", UNAVAILABLE.into());
    if let Ok(message) = HeaderValue::try_from(&message) {
        trailers.insert("grpc-message", message);
    }
    (Ended { status: UNAVAILABLE, message }, (Some(StatusCode::OK), trailers))
}

/// Makes a call.
async fn exchange(
    client: Client,
    balancer: &Balancer<Destination>,
    request: Request<Body>,
    replies: &GrpcReplies,
    is_unary: bool,
) -> Outcome {
    let response = match host::send(client, balancer, request).await {
        Ok(Some(response)) => response,
        Ok(None) => return unanswered("no endpoint is ready".to_owned(), replies, is_unary),
        Err(error) => return unanswered(error.to_string(), replies, is_unary),
    };
    let (parts, mut body) = response.into_parts();
    if let Some(ended) = status(&parts.headers) {
        if !is_unary {
            replies.initial_metadata(None, HeaderMap::new());
        }
        return (concluded(ended, is_unary, None, replies), (Some(parts.status), parts.headers));
    }
    let refused = refusal(parts.status);
    if !is_unary {
        replies.initial_metadata(Some(parts.status), parts.headers);
    }
    if let Some(refused) = refused {
        return (refused, (None, HeaderMap::new()));
    }
    let (mut buffer, mut message) = (BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = match frame.map(Frame::into_data) {
            Ok(Ok(data)) => {
                buffer.extend_from_slice(&data);
                if buffer.len() > MAX_MESSAGE + PREFIX {
                    return failed(RESOURCE_EXHAUSTED, "message too large".to_owned());
                }
                loop {
                    let next = match next_message(&mut buffer) {
                        Ok(Some(next)) => next,
                        Ok(None) => break,
                        Err(ended) => return (ended, (None, HeaderMap::new())),
                    };
                    match is_unary {
                        true => message = Some(next),
                        false => replies.message(next),
                    }
                }
                if !replies.holds(buffer.len() + message.as_ref().map_or(0, Bytes::len)) {
                    return failed(RESOURCE_EXHAUSTED, "too much is read for the plugin".to_owned());
                }
                continue;
            }
            Ok(Err(frame)) => frame,
            Err(error) => return failed(UNAVAILABLE, error.to_string()),
        };
        let Ok(trailers) = frame.into_trailers() else { continue };
        let ended = status(&trailers);
        let ended = ended.unwrap_or(Ended { status: UNKNOWN, message: "no grpc-status".to_owned() });
        return (concluded(ended, is_unary, message, replies), (None, trailers));
    }
    failed(INTERNAL, "the stream ended without trailers".to_owned())
}

/// How a call has ended: as in Envoy, a unary one that succeeds brings a message, or it has failed.
fn concluded(ended: Ended, is_unary: bool, message: Option<Bytes>, replies: &GrpcReplies) -> Ended {
    match message {
        _ if !is_unary || ended.status != OK => ended,
        Some(message) => {
            replies.message(message);
            ended
        }
        None => Ended { status: INTERNAL, message: String::new() },
    }
}

fn request(call: GrpcCall, outgoing: mpsc::Receiver<Bytes>) -> Request<Body> {
    let mut request = Request::new(Body::boxed(StreamBody::new(frames(outgoing))));
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    let path = format!("/{}/{}", call.service, call.method);
    *request.uri_mut() = http::Uri::try_from(path).unwrap_or_default();
    *request.headers_mut() = call.metadata;
    let headers = request.headers_mut();
    if let Ok(host) = HeaderValue::try_from(call.upstream.rsplit('|').next().unwrap_or_default()) {
        headers.insert(header::HOST, host);
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    let timeout = call.timeout.map(|timeout| HeaderValue::try_from(format!("{}m", timeout.as_millis())));
    if let Some(Ok(timeout)) = timeout {
        headers.insert("grpc-timeout", timeout);
    }
    request
}

/// Each message behind its prefix. None is copied: its bytes are counted as long as they are there.
fn frames(outgoing: mpsc::Receiver<Bytes>) -> impl Stream<Item = Result<Frame<Bytes>, BoxError>> {
    let messages =
        stream::unfold(outgoing, |mut outgoing| async move { Some((outgoing.recv().await?, outgoing)) });
    messages.flat_map(|message| {
        let parts = [prefix(&message), message].into_iter().filter(|part| !part.is_empty());
        stream::iter(parts.map(|part| Ok(Frame::data(part))))
    })
}

fn prefix(message: &Bytes) -> Bytes {
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u8(0);
    prefix.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    prefix.freeze()
}

/// Takes a whole message from the front, if there is one.
///
/// No compression is offered: a message that has another flag than that of plain bytes ends the call.
fn next_message(buffer: &mut BytesMut) -> Result<Option<Bytes>, Ended> {
    let Some(&[flag, a, b, c, d]) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    if flag != 0 {
        return Err(Ended { status: INTERNAL, message: format!("message with flag {flag}") });
    }
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if buffer.len() - PREFIX < length {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(buffer.split_to(length).freeze()))
}

/// What an answer means that is not of a gRPC server, by its HTTP status, as the gRPC protocol has it.
fn refusal(status: StatusCode) -> Option<Ended> {
    let code = match status.as_u16() {
        200 => return None,
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    };
    Some(Ended { status: code, message: format!("HTTP status {}", status.as_u16()) })
}

fn status(headers: &HeaderMap) -> Option<Ended> {
    let status = headers.get("grpc-status")?.to_str().ok().and_then(|status| status.parse().ok());
    let message = headers.get("grpc-message").and_then(|message| message.to_str().ok());
    Some(Ended { status: status.unwrap_or(UNKNOWN), message: message.unwrap_or_default().to_owned() })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_guest_that_sends_faster_than_the_network_is_cut_off() {
        let (messages, mut outgoing) = mpsc::channel(MAX_WAITING);
        let (overflow, mut cancelled) = oneshot::channel();
        let mut sending = Sending { messages: Some(messages), overflow: Some(overflow) };
        for _ in 0..MAX_WAITING {
            sending.send(Bytes::from_static(b"message"));
        }
        assert!(cancelled.try_recv().is_err(), "as many as may wait do");
        sending.send(Bytes::from_static(b"one too many"));
        assert_eq!(cancelled.try_recv(), Ok(()));
        let mut waiting = 0;
        while outgoing.try_recv().is_ok() {
            waiting += 1;
        }
        assert_eq!(waiting, MAX_WAITING);
    }

    /// The parts of what is sent for these messages.
    fn sent(messages: &[Bytes]) -> Vec<Bytes> {
        let (sender, outgoing) = mpsc::channel(MAX_WAITING);
        messages.iter().for_each(|message| sender.try_send(message.clone()).unwrap());
        drop(sender);
        let frames: Vec<_> = frames(outgoing).collect().now_or_never().unwrap();
        frames.into_iter().map(|frame| frame.unwrap().into_data().unwrap()).collect()
    }

    #[test]
    fn message_is_sent_without_a_copy_that_nobody_counts() {
        let message = Bytes::from(vec![7; 1 << 20]);
        let sent = sent(std::slice::from_ref(&message));
        assert_eq!((sent.len(), &sent[0][..]), (2, &[0, 0, 16, 0, 0][..]));
        assert_eq!((sent[1].as_ptr(), sent[1].len()), (message.as_ptr(), message.len()));
    }

    #[test]
    fn messages_are_cut_at_their_lengths() {
        let mut buffer = BytesMut::from(&sent(&["one", "", "three"].map(Bytes::from)).concat()[..]);
        buffer.extend_from_slice(&[0, 0, 0]);
        let mut messages = Vec::new();
        while let Some(message) = next_message(&mut buffer).unwrap() {
            messages.push(message);
        }
        assert_eq!(messages, ["one", "", "three"]);
        assert_eq!(&buffer[..], [0, 0, 0]);
    }

    #[test]
    fn answer_of_a_proxy_is_told_by_its_http_status_and_not_read_as_messages() {
        let code = |status| refusal(StatusCode::from_u16(status).unwrap()).map(|ended| ended.status);
        let told = [200, 400, 401, 403, 404, 418, 429, 500, 502, 503, 504].map(code);
        let expected = [None, Some(13), Some(16), Some(7), Some(12), Some(2), Some(14), Some(2)];
        assert_eq!((&told[..8], &told[8..]), (&expected[..], &[Some(14); 3][..]));
        let ended = next_message(&mut BytesMut::from("<html><body>")).unwrap_err();
        assert_eq!((ended.status, &*ended.message), (INTERNAL, "message with flag 60"));
    }
}
