//! HTTP/2 streams that a backend says it has not looked at.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use crate::support::{Backend, Running, Wire, World, post, rule, to};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a backend refuses.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Refusal {
    /// RST_STREAM, REFUSED_STREAM.
    Stream,
    /// GOAWAY that names the stream before.
    Away,
    /// RST_STREAM, INTERNAL_ERROR: something may have happened.
    Broken,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Answers each request with its content, but refuses the one of this number, counted from 0.
async fn refusing(refusal: Refusal, number: usize) -> (Backend, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let backend = Backend::raw(move |mut wire: Wire| {
        let count = Arc::clone(&count);
        async move {
            wire.exactly(24).await.unwrap();
            // Streams and the connection may send a megabyte each.
            wire.send(frame(SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0])).await;
            wire.send(frame(8, 0, 0, &[0, 15, 0, 0])).await;
            let mut body = Vec::new();
            while let Ok(head) = wire.exactly(9).await {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                let payload = wire.exactly(length as usize).await.unwrap();
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                match head[3] {
                    DATA => body.extend(payload),
                    SETTINGS if head[4] == 0 => wire.send(frame(SETTINGS, 1, 0, &[])).await,
                    _ => {}
                }
                if !matches!(head[3], DATA | HEADERS) || head[4] & END_STREAM == 0 {
                    continue;
                }
                let is_refused = count.fetch_add(1, Relaxed) == number;
                let reply = match refusal {
                    Refusal::Stream if is_refused => frame(3, 0, stream, &[0, 0, 0, 7]),
                    Refusal::Broken if is_refused => frame(3, 0, stream, &[0, 0, 0, 2]),
                    Refusal::Away if is_refused => {
                        frame(7, 0, 0, &[&(stream - 2).to_be_bytes()[..], &[0; 4]].concat())
                    }
                    _ => {
                        let status_200 = frame(HEADERS, END_HEADERS, stream, &[0x88]);
                        [status_200, frame(DATA, END_STREAM, stream, &body)].concat()
                    }
                };
                body.clear();
                wire.send(reply).await;
            }
        }
    })
    .await;
    (backend, requests)
}

async fn gateway(backend: &Backend) -> Running {
    let world = World::new().h2c_service("a", backend).route("r", &[rule("/", &to("a"))]);
    world.start().await
}

#[tokio::test]
async fn a_stream_that_a_backend_has_not_looked_at_is_sent_on_another_connection() {
    for (refusal, number) in [(Refusal::Stream, 0), (Refusal::Stream, 1), (Refusal::Away, 1)] {
        let (backend, requests) = refusing(refusal, number).await;
        let gateway = gateway(&backend).await;
        let mut wire = gateway.connect().await;
        for body in ["abc", "de", ""] {
            let reply = wire.ask(post("/", body)).await;
            assert_eq!((reply.status(), reply.text().as_str()), (200, body), "{refusal:?} {number}");
        }
        assert_eq!((requests.load(Relaxed), backend.connections()), (4, 2));
    }
}

#[tokio::test]
async fn a_refused_stream_whose_content_was_not_kept_is_not_sent_again() {
    let (backend, requests) = refusing(Refusal::Stream, 0).await;
    let gateway = gateway(&backend).await;
    let mut wire = gateway.connect().await;
    assert_eq!(wire.ask(post("/", &"x".repeat(200_000))).await.status(), 502);
    assert_eq!(requests.load(Relaxed), 1);
    assert_eq!(wire.ask(post("/", "abc")).await.text(), "abc");
}

#[tokio::test]
async fn a_stream_that_is_broken_off_is_not_sent_again() {
    let (backend, requests) = refusing(Refusal::Broken, 0).await;
    let gateway = gateway(&backend).await;
    assert_eq!(gateway.ask(post("/", "abc")).await.status(), 502);
    assert_eq!(requests.load(Relaxed), 1);
}
