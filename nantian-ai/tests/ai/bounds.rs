//! What the types promise about threads, and to those who look into a stack.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use nantian_ai::AiLayer;
use nantian_ai::body::RequestBody;
use nantian_ai::future::ResponseFuture;
use nantian_ai::usage::UsageLayer;
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Upstream, chat, layer, openai};

#[tokio::test]
async fn neither_futures_nor_bodies_of_the_inner_service_need_be_send() {
    type Local = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>>>>;
    let local = Rc::new("{}");
    let inner = service_fn(move |_: Request<RequestBody>| -> Local {
        let local = Rc::clone(&local);
        Box::pin(async move { Ok(Response::new(Full::from(*local))) })
    });
    let response = layer(openai()).layer(inner).oneshot(chat()).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "{}");
}

#[test]
fn everything_is_send_when_the_inner_service_is() {
    fn shared<T: Clone + Send + Sync>(_: &T) {}
    fn send<T: Send>() {}
    let layer: AiLayer = layer(openai());
    shared(&layer);
    shared(&layer.layer(Upstream::new()));
    send::<ResponseFuture<Upstream, Full<Bytes>, Full<Bytes>, ()>>();
    send::<nantian_ai::body::ResponseBody<Full<Bytes>, ()>>();
}

#[test]
fn services_give_back_what_they_wrap() {
    let mut service = UsageLayer::new(()).layer(layer(openai()).layer("a client"));
    assert_eq!(*service.get_ref().get_ref(), "a client");
    *service.get_mut().get_mut() = "another client";
    assert_eq!(service.into_inner().into_inner(), "another client");
}
