//! A client that speaks HTTP/2 with prior knowledge.

use std::{convert::Infallible, io};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use super::{Running, Wire, soon};

/// The body of a request.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// A client that knows beforehand that HTTP/2 is spoken.
pub(crate) async fn client(gateway: &Running) -> SendRequest<Body> {
    client_of(gateway, &http2::Builder::new(TokioExecutor::new())).await
}

/// A client with these settings.
pub(crate) async fn client_of(
    gateway: &Running,
    settings: &http2::Builder<TokioExecutor>,
) -> SendRequest<Body> {
    let stream = soon(TcpStream::connect(gateway.address())).await.unwrap();
    let (sender, connection) = soon(settings.handshake(TokioIo::new(stream))).await.unwrap();
    tokio::spawn(connection);
    sender
}

pub(crate) fn get(path: &str) -> Request<Body> {
    Request::get(format!("http://example.org{path}")).body(Empty::new().boxed()).unwrap()
}

/// A request whose parts are sent one by one.
pub(crate) fn upload(path: &str) -> (mpsc::UnboundedSender<&'static str>, Request<Body>) {
    let (sender, mut parts) = mpsc::unbounded_channel::<&str>();
    let parts = stream::poll_fn(move |cx| {
        parts.poll_recv(cx).map(|part| part.map(|part| Ok(Frame::data(Bytes::from(part)))))
    });
    let request = Request::post(format!("http://example.org{path}"));
    (sender, request.body(BoxBody::new(StreamBody::new(parts))).unwrap())
}

/// The status and the content of a response.
pub(crate) async fn reply(client: &SendRequest<Body>, request: Request<Body>) -> (StatusCode, Bytes) {
    let response = soon(client.clone().send_request(request)).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let status = response.status();
    (status, soon(response.collect()).await.unwrap().to_bytes())
}

/// The head of `GET http://example.org/` in HPACK: three entries of the static table, one literal.
pub(crate) const GET: &[u8] = b"\x82\x86\x84\x41\x0bexample.org";

/// What a client begins with (RFC 9113, section 3.4).
pub(crate) const PREFACE: &str = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose frames are written by hand, after its preface.
pub(crate) async fn raw(gateway: &Running) -> Wire {
    let mut wire = gateway.connect().await;
    wire.send(PREFACE).await;
    wire.send(frame(SETTINGS, 0, 0, &[])).await;
    wire
}

/// A frame (RFC 9113, section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The kind, flags and stream of the next frame.
pub(crate) async fn next_frame(wire: &mut Wire) -> io::Result<(u8, u8, u32)> {
    let head = wire.exactly(9).await?;
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    wire.exactly(usize::try_from(number(&head[..3])).unwrap()).await?;
    Ok((head[3], head[4], number(&head[5..])))
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
/// The same of SETTINGS and PING.
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
