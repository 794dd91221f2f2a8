//! What becomes of one message of a stream when a plugin ends the stream in a callback of the other one.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Action, Engine, FailurePolicy, Plugin, StreamContext, StreamInfo, WasmLayer,
    body::{BodyError, RequestBody},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Frames, ThenSilent, data, frames, guest, plugin_of};

const HOLDS: u8 = 1;
const ANSWERS: u8 = 0x10;
const CONTINUES_REQUEST: u8 = 0x20;
const TRAPS: u8 = 0x80;

fn scripted(script: &[u8], failure_policy: FailurePolicy) -> Plugin {
    let plugin = plugin_of(&Engine::new().unwrap().0, &guest("scripted"), |config| {
        config.configuration = Bytes::copy_from_slice(script);
        config.failure_policy = failure_policy;
    });
    plugin.unwrap()
}

fn poll_request(stream: &mut StreamContext) -> Poll<()> {
    stream.poll_request(&mut Context::from_waker(Waker::noop()))
}

fn poll_response(stream: &mut StreamContext) -> Poll<()> {
    stream.poll_response(&mut Context::from_waker(Waker::noop()))
}

/// A stream whose guest holds the first part of the request's body.
fn held(script: &[u8], failure_policy: FailurePolicy) -> StreamContext {
    let mut stream = StreamContext::new([scripted(script, failure_policy)].into(), StreamInfo::default());
    let mut request = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Continue));
    let mut chunk = Bytes::from_static(b"secret");
    assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue));
    assert_eq!((chunk.len(), poll_request(&mut stream)), (0, Poll::Pending), "held");
    stream
}

fn show_response(stream: &mut StreamContext) -> Action {
    stream.on_response_headers(&mut Response::new(()).into_parts().0, false)
}

/// Nothing more of the request may go on, whatever the embedder shows.
fn assert_request_is_over(stream: &mut StreamContext, failed: bool) {
    let assert_broken_off = |action| {
        let Action::BreakOff(end) = action else { panic!("{action:?}") };
        assert_eq!(matches!(end, BodyError::Failed(_)), failed, "{end:?}");
        assert!(failed || end == BodyError::Answered, "{end:?}");
    };
    assert_eq!(poll_request(stream), Poll::Ready(()), "whoever reads the request learns that it is over");
    assert_broken_off(stream.on_request_body(&mut Bytes::new(), false));
    assert_broken_off(stream.on_request_body(&mut Bytes::from_static(b"the rest"), false));
    assert_broken_off(stream.on_request_body(&mut Bytes::new(), true));
    let mut trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    assert_broken_off(stream.on_request_trailers(&mut Bytes::new(), &mut trailers));
    assert_broken_off(stream.take_request(&mut Request::new(()).into_parts().0));
}

#[test]
fn rest_of_a_request_does_not_go_on_when_its_response_is_answered() {
    for answers in [ANSWERS, ANSWERS | CONTINUES_REQUEST] {
        let mut stream = held(&[0, HOLDS, answers], FailurePolicy::FailClosed);
        assert!(matches!(show_response(&mut stream), Action::Respond(_)));
        assert_request_is_over(&mut stream, false);
    }
}

#[test]
fn rest_of_a_request_does_not_go_on_when_its_response_fails() {
    for fails in [TRAPS, TRAPS | CONTINUES_REQUEST] {
        let mut stream = held(&[0, HOLDS, fails], FailurePolicy::FailClosed);
        assert!(matches!(show_response(&mut stream), Action::Fail(_)));
        assert_request_is_over(&mut stream, true);
        let mut stream = held(&[0, HOLDS, 0, fails], FailurePolicy::FailClosed);
        assert!(matches!(show_response(&mut stream), Action::Continue));
        let broken = stream.on_response_body(&mut Bytes::from_static(b"part"), false);
        assert!(matches!(broken, Action::Fail(_)));
        assert_request_is_over(&mut stream, true);
    }
}

#[test]
fn rest_of_a_response_does_not_go_on_when_its_request_fails_or_is_refused() {
    for ends in [TRAPS, ANSWERS] {
        let mut stream = held(&[0, HOLDS, 0, ends], FailurePolicy::FailClosed);
        assert!(matches!(show_response(&mut stream), Action::Continue));
        assert_eq!(poll_response(&mut stream), Poll::Pending);
        let action = stream.on_request_body(&mut Bytes::from_static(b"more"), false);
        assert!(matches!(action, Action::Fail(_)), "nobody gets an answer behind a response's headers");
        assert_eq!(poll_response(&mut stream), Poll::Ready(()));
        let action = stream.on_response_body(&mut Bytes::from_static(b"unseen"), true);
        assert!(matches!(action, Action::BreakOff(BodyError::Failed(_))), "{action:?}");
    }
}

#[test]
fn what_a_plugin_held_goes_on_at_once_when_it_fails_open_elsewhere() {
    for fails in [TRAPS, TRAPS | CONTINUES_REQUEST] {
        let mut stream = held(&[0, HOLDS, fails], FailurePolicy::FailOpen);
        assert!(matches!(show_response(&mut stream), Action::Continue));
        assert_eq!(poll_request(&mut stream), Poll::Ready(()));
        let mut chunk = Bytes::new();
        assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue));
        assert_eq!((&chunk[..], poll_request(&mut stream)), (&b"secret"[..], Poll::Pending), "and once");
    }
}

#[tokio::test]
async fn request_body_that_a_task_of_its_own_reads_ends_with_the_stream() {
    for ends in [ANSWERS | CONTINUES_REQUEST, TRAPS | CONTINUES_REQUEST, ANSWERS] {
        let body: Arc<Mutex<Option<RequestBody<ThenSilent>>>> = Arc::default();
        let kept = Arc::clone(&body);
        let inner = service_fn(move |request: Request<RequestBody<ThenSilent>>| {
            let mut body = request.into_body();
            let kept = Arc::clone(&kept);
            async move {
                // It has read the part, and waits for more while its answer is under way.
                let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut body).poll_frame(cx))).await;
                assert!(first.is_pending(), "held");
                *kept.lock().unwrap() = Some(body);
                Ok::<_, Infallible>(Response::new(frames([data("early")])))
            }
        });
        let plugin = scripted(&[0, HOLDS, ends], FailurePolicy::FailClosed);
        let request = Request::post("/").body(ThenSilent(Some(data("secret")))).unwrap();
        let service = WasmLayer::new([plugin]).layer(inner);
        let _response: Response<nantian_wasm::body::ResponseBody<Frames>> =
            service.oneshot(request).await.unwrap();
        let mut body = pin!(body.lock().unwrap().take().unwrap());
        let ended = body.frame().await.unwrap();
        assert!(ended.unwrap_err().is::<BodyError>());
        assert!(body.frame().await.is_none());
    }
}
