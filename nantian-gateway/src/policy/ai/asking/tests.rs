use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use http::StatusCode;
use http_body_util::BodyExt as _;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::kept::tests::all_but;

const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n";
const REFUSAL: &str = r#"{"error":{"message":"Unknown parameter: 'stream_options'"}}"#;
const STREAMS: &str = r#"{"model":"m","stream":true,"messages":[]}"#;

/// A Service behind its meter, whose models other than `new` know no `stream_options` unless it takes them.
struct Metered {
    usage: ServiceUsage,
    /// What it was sent.
    seen: Rc<RefCell<Vec<String>>>,
    takes: Rc<Cell<bool>>,
}

impl Metered {
    fn new() -> Self {
        Self { usage: ServiceUsage::of(&"demo/models:80"), seen: Rc::default(), takes: Rc::default() }
    }

    fn service(&self) -> BackendService {
        let (seen, takes) = (Rc::clone(&self.seen), Rc::clone(&self.takes));
        LocalService::new(service_fn(move |request: Request<Body>| {
            let (seen, takes) = (Rc::clone(&seen), takes.get());
            async move {
                let length = request.headers()[CONTENT_LENGTH].clone();
                let body = request.into_body().collect().await?.to_bytes();
                assert_eq!(length, HeaderValue::from(body.len()));
                let body = String::from_utf8(body.to_vec()).unwrap();
                let takes = takes || body.contains("new") || !body.contains("stream_options");
                let (status, kind, answer) = match &*body {
                    body if body.contains("bad") => (422, "application/json", r#"{"error":"bad"}"#),
                    _ if takes => (200, "text/event-stream", STREAM),
                    _ => (400, "application/json", REFUSAL),
                };
                seen.borrow_mut().push(body);
                let response = Response::builder().status(status).header(CONTENT_TYPE, kind);
                Ok::<_, BoxError>(response.body(Body::full(answer))?)
            }
        }))
    }

    async fn send(&self, body: &'static str) -> (StatusCode, Bytes) {
        let request = Request::post("/v1/chat/completions").header(CONTENT_LENGTH, body.len());
        let request = request.body(Body::full(body)).unwrap();
        let layer = self.usage.within(&BodyMemory::new(1 << 20));
        let response = layer.layer(self.service()).oneshot(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    }

    /// Whether each of the requests since the last time was asked for usage.
    fn asked(&self) -> Vec<bool> {
        self.seen.take().iter().map(|body| body.contains("stream_options")).collect()
    }
}

fn streamed() -> (StatusCode, Bytes) {
    (StatusCode::OK, Bytes::from(STREAM))
}

#[tokio::test]
async fn a_service_that_refuses_to_be_asked_is_asked_without_and_then_no_more() {
    let metered = Metered::new();
    for (asked, last) in [(2, "once it has refused"), (3, "it is asked no more")] {
        assert_eq!(metered.send(STREAMS).await, streamed(), "{last}");
        assert_eq!(metered.seen.borrow().len(), asked, "{last}");
        assert_eq!(metered.seen.borrow().last().unwrap(), STREAMS, "{last}");
    }
}

#[tokio::test]
async fn what_is_refused_for_another_reason_is_not_sent_twice() {
    let metered = Metered::new();
    let (status, body) = metered.send(r#"{"model":"bad","stream":true,"messages":[]}"#).await;
    assert_eq!((status.as_u16(), &*body), (422, &br#"{"error":"bad"}"#[..]));
    assert_eq!(metered.asked(), [true]);
    const ITS_OWN: &str =
        r#"{"model":"m","stream":true,"stream_options":{"include_usage":false},"messages":[]}"#;
    assert_eq!(metered.send(ITS_OWN).await, (StatusCode::BAD_REQUEST, Bytes::from(REFUSAL)));
    assert_eq!(metered.asked(), [true], "the client has said it");
    metered.send(STREAMS).await;
    assert_eq!(metered.asked(), [true, false], "nothing is learnt of what a client has said");
}

#[tokio::test]
async fn a_service_that_may_refuse_is_not_asked_where_the_request_cannot_be_kept() {
    let metered = Metered::new();
    let _others = all_but(STREAMS.len() - 1);
    assert_eq!(metered.send(STREAMS).await, streamed());
    assert_eq!(metered.asked(), [false]);
}

#[tokio::test]
async fn nothing_is_kept_for_a_service_that_takes_it_until_it_refuses() {
    let metered = Metered::new();
    metered.takes.set(true);
    assert_eq!(metered.send(STREAMS).await, streamed());
    let others = all_but(0);
    assert_eq!(metered.send(STREAMS).await, streamed());
    assert_eq!(metered.asked(), [true, true]);
    drop(others);

    metered.takes.set(false);
    assert_eq!(metered.send(STREAMS).await, (StatusCode::BAD_REQUEST, Bytes::from(REFUSAL)));
    metered.takes.set(true);
    assert_eq!(metered.send(STREAMS).await, streamed());
    assert_eq!(metered.asked(), [true, true]);
    // Only one of its endpoints has learnt it.
    metered.takes.set(false);
    assert_eq!(metered.send(STREAMS).await, streamed());
    assert_eq!(metered.asked(), [true, false]);
}

#[tokio::test]
async fn one_model_that_refuses_is_not_all_models_of_its_service() {
    const NEW: &str = r#"{"model":"new","stream":true,"messages":[]}"#;
    let metered = Metered::new();
    for (body, asked) in [(STREAMS, &[true, false][..]), (NEW, &[true]), (STREAMS, &[false]), (NEW, &[true])]
    {
        assert_eq!(metered.send(body).await, streamed());
        assert_eq!(metered.asked(), asked, "{body}");
    }
}

#[tokio::test]
async fn an_event_that_has_not_ended_counts_with_the_bodies() {
    let event = Bytes::from(format!("data: {}", "x".repeat(1 << 20)));
    let service = LocalService::new(service_fn(move |_: Request<Body>| {
        let response = Response::builder().header(CONTENT_TYPE, "text/event-stream");
        std::future::ready(Ok::<_, BoxError>(response.body(Body::full(event.clone())).unwrap()))
    }));
    let request = Request::post("/v1/chat/completions").header(CONTENT_LENGTH, STREAMS.len());
    let request = request.body(Body::full(STREAMS)).unwrap();
    let memory = BodyMemory::new(8 << 20);
    let layer = ServiceUsage::of(&"demo/models:80").within(&memory);
    let mut response = layer.layer(service).oneshot(request).await.unwrap();
    response.body_mut().frame().await.unwrap().unwrap();
    assert_eq!(memory.held() >> 20, 1);
    drop(response);
    assert_eq!(memory.held(), 0);
}
