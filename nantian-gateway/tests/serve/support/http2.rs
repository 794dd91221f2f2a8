//! A client that speaks HTTP/2 with prior knowledge.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, StreamBody, combinators::BoxBody};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc};

use super::{Running, soon};

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
