//! Responses that come before the client has sent the whole of its request.

use bytes::Bytes;
use futures_util::stream;
use http::{Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use crate::support::{Backend, Wire, World, http2, rule, soon, to};

/// Longer than what sockets hold.
const LONG: usize = 16 << 20;

/// The head of an upload of `length` bytes.
fn head(path: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\n\r\n")
}

/// A backend that looks at heads alone.
async fn hasty(answer: &'static str) -> (Backend, World) {
    let backend = Backend::raw(move |mut wire: Wire| async move {
        if wire.head().await.is_ok() {
            wire.send(answer).await;
            wire.rest().await;
        }
    })
    .await;
    let world = World::new().service("a", &[&backend]).route("r", &[rule("/taken", &to("a"))]);
    (backend, world)
}

#[tokio::test]
async fn the_connection_goes_on_once_the_little_that_was_left_has_come() {
    let (_backend, world) = hasty("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let gateway = world.start().await;
    let mut wire = gateway.connect().await;
    for (path, status) in [("/nobody", 404), ("/taken", 200), ("/nobody", 404), ("/taken", 200)] {
        let reply = wire.ask(head(path, 4096)).await;
        assert_eq!((reply.status(), reply.header("connection")), (status, None), "{path}");
        wire.send(vec![b'x'; 4096]).await;
    }
    assert_eq!(wire.ask(head("/taken", 0)).await.status(), 200);
}

#[tokio::test]
async fn who_sends_all_before_it_reads_gets_its_answer() {
    let (_backend, world) =
        hasty("HTTP/1.1 413 Too Much\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let gateway = world.start().await;
    for (path, status) in [("/nobody", 404), ("/taken", 413)] {
        let mut wire = gateway.connect().await;
        wire.send(head(path, LONG)).await;
        wire.write(&vec![b'x'; LONG]).await.unwrap();
        assert_eq!(wire.reply().await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn who_has_much_more_to_send_is_told_that_it_need_not() {
    let gateway = World::new().route("r", &[]).start().await;
    let mut wire = gateway.connect().await;
    let reply = wire.ask(head("/nobody", LONG)).await;
    assert_eq!((reply.status(), reply.header("connection")), (404, Some("close")));

    let mut wire = gateway.connect().await;
    let waits = "POST /nobody HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\nexpect: 100-continue\r\n\r\n";
    let reply = wire.ask(waits).await;
    assert_eq!((reply.status(), reply.header("connection")), (404, Some("close")), "it is not asked either");
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn who_may_not_send_so_much_hears_of_it() {
    let gateway = World::new().route("r", &[]).options(&["--max-request-body-bytes", "1000"]).start().await;
    let mut wire = gateway.connect().await;
    wire.send(head("/", LONG)).await;
    wire.write(&vec![b'x'; LONG]).await.unwrap();
    let reply = wire.reply().await;
    assert_eq!((reply.status(), reply.header("connection")), (413, Some("close")));
    assert!(wire.is_closed().await);
}

#[tokio::test]
async fn who_sends_all_over_http2_before_it_reads_gets_its_answer_too() {
    let (_backend, world) =
        hasty("HTTP/1.1 413 Too Much\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
    let gateway = world.start().await;
    let client = http2::client(&gateway).await;
    for (path, status) in [("/nobody", StatusCode::NOT_FOUND), ("/taken", StatusCode::PAYLOAD_TOO_LARGE)] {
        let (parts, mut rest) = mpsc::channel::<Bytes>(1);
        let rest = stream::poll_fn(move |cx| rest.poll_recv(cx).map(|part| part.map(Frame::data).map(Ok)));
        let request = Request::post(format!("http://example.org{path}"));
        let request = request.body(StreamBody::new(rest).boxed()).unwrap();
        let reply = tokio::spawn({
            let client = client.clone();
            async move { http2::reply(&client, request).await }
        });
        parts.send(Bytes::from_static(b"first")).await.unwrap();
        assert_eq!(soon(reply).await.unwrap().0, status, "{path}");
        for sent in (0..LONG).step_by(64 << 10) {
            let taken = soon(parts.send(vec![b'x'; 64 << 10].into())).await;
            assert!(taken.is_ok(), "{path}: the stream is reset after {sent} bytes");
        }
    }
}
