//! Requests that are given up, wherever they are.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use axum::body::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use nantian_ratelimit::{EstimatedTokens, Limit, RateLimitLayer};
use tokio::task::yield_now;
use tower::{Layer, ServiceExt, service_fn};

use crate::admit::limiter;
use crate::layer::{Log, remaining};

/// A body of three frames that waits before each of them, and before its end.
struct Slow {
    turns: u8,
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.turns += 1;
        match self.turns {
            1 | 3 | 5 | 7 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            2 | 4 | 6 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"frame"))))),
            _ => Poll::Ready(None),
        }
    }
}

#[tokio::test]
async fn a_request_that_is_dropped_at_any_point_is_settled_once_and_leaks_nothing() {
    let mut polls = 0;
    loop {
        let limiter = limiter([Limit::tokens_per_minute(1000)]);
        let log = Log::default();
        let layer = RateLimitLayer::new(limiter.clone()).observer(log.clone());
        let service = layer.layer(service_fn(async |_: Request<()>| {
            for _ in 0..3 {
                yield_now().await;
            }
            Ok::<_, Infallible>(Response::new(Slow { turns: 0 }))
        }));
        let request = Request::builder().extension(EstimatedTokens(600)).body(()).unwrap();
        let mut journey = Box::pin(async {
            let response = service.clone().oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        });
        let mut context = Context::from_waker(Waker::noop());
        let is_over = (0..polls).any(|_| journey.as_mut().poll(&mut context).is_ready());
        drop(journey);
        if polls == 0 {
            assert_eq!((log.entries().len(), remaining(&limiter)), (0, 1000), "nobody has asked");
        } else {
            assert_eq!(log.entries(), ["admitted", "settled 600 of 600"], "after {polls} polls");
            assert_eq!(remaining(&limiter), 400, "after {polls} polls");
        }
        if is_over {
            break;
        }
        polls += 1;
    }
    assert_eq!(polls, 8, "three waits in the service, four in the body, and the end");
}
