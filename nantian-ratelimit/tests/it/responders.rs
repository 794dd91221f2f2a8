//! What refused clients read.

use std::convert::Infallible;

use axum::body::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use nantian_ratelimit::{
    Limit, Limiter, MissingKey, MissingPart, OnLimit, Policy, RateLimitLayer, ScopePart, respond::Refusal,
};
use tower::{Layer, ServiceExt, service_fn};

use crate::layer::echo;

async fn second_answer(limit: Limit, request: impl Fn() -> http::request::Builder) -> (Response<()>, String) {
    let limiter = Limiter::new(Policy::builder().limit(limit).build().unwrap());
    let service = RateLimitLayer::new(limiter).layer(service_fn(echo));
    let _ = service.clone().oneshot(request().body(()).unwrap()).await.unwrap();
    read(service.oneshot(request().body(()).unwrap()).await.unwrap()).await
}

async fn read<B>(response: Response<B>) -> (Response<()>, String)
where
    B: http_body::Body<Data = Bytes, Error = Infallible>,
{
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn a_refusal_is_in_the_words_of_the_clients_api() {
    let requests = || Limit::requests_per_minute(1);
    let post = Request::post::<&str>;
    let (response, body) = second_answer(requests(), || post("/v1/chat/completions")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert!(body.starts_with(
        r#"{"error":{"message":"rate limit reached: requests-per-minute exhausted, retry after "#
    ));
    assert!(body.ends_with(r#"","type":"requests","param":null,"code":"rate_limit_exceeded"}}"#), "{body}");
    let (_, body) = second_answer(Limit::tokens_per_minute(1), || post("/openai/v1/responses")).await;
    assert!(body.contains(r#""type":"tokens""#));

    for anthropic in [
        second_answer(requests(), || post("/v1/messages")).await,
        second_answer(requests(), || post("/v1/messages/count_tokens")).await,
        second_answer(requests(), || post("/").header("anthropic-version", "2023-06-01")).await,
        second_answer(requests(), || post("/any/messages/")).await,
    ] {
        assert_eq!(anthropic.0.status(), 429);
        assert!(
            anthropic
                .1
                .starts_with(r#"{"type":"error","error":{"type":"rate_limit_error","message":"rate limit"#)
        );
    }
    for path in [
        "/chat/completions",
        "/openai/deployments/x/chat/completions/",
        "/embeddings",
        "/v1/threads/thread_1/messages",
        "/v1/threads/thread_1/messages/msg_1",
        "/v1/chat/completions/chatcmpl-1/messages",
    ] {
        let (_, body) = second_answer(requests(), || post(path)).await;
        assert!(body.starts_with(r#"{"error":{"message":"rate limit"#), "{path}: {body}");
    }
    let (_, body) = second_answer(requests(), || post("/api/chat")).await;
    assert!(body.starts_with(r#"{"error":"rate limit reached"#));
    let (response, body) = second_answer(requests(), || post("/anything/v12")).await;
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert!(body.contains(r#""status":429"#));
}

#[tokio::test]
async fn a_grpc_client_gets_its_own_status() {
    let call = || Request::post("/shop.Cart/Add").header("content-type", "application/grpc+proto");
    let (response, body) = second_answer(Limit::requests_per_minute(1), call).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert_eq!(response.headers()["grpc-status"], "8");
    assert!(response.headers()["grpc-message"].to_str().unwrap().contains("requests-per-minute"));
    let pushback: u64 = response.headers()["grpc-retry-pushback-ms"].to_str().unwrap().parse().unwrap();
    assert!((59_000..=60_000).contains(&pushback));
    assert_eq!(body, "");
    let web = || Request::post("/").header("content-type", "application/grpc-web");
    assert_eq!(second_answer(Limit::requests_per_minute(1), web).await.0.status(), 429);
}

#[tokio::test]
async fn what_never_passes_is_not_to_be_tried_again() {
    let (response, _) = second_answer(Limit::requests_per_minute(0), || Request::post("/v1/messages")).await;
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert!(!response.headers().contains_key("retry-after"));
}

#[tokio::test]
async fn a_request_that_lacks_its_key_shares_passes_or_is_refused() {
    let ask = async |missing_key: MissingKey, scope: &str, path: &str| {
        let policy = Policy::builder().limit(Limit::requests_per_minute(1));
        let policy = policy.missing_key(missing_key).scope(scope.parse().unwrap()).build().unwrap();
        let service = RateLimitLayer::new(Limiter::new(policy)).layer(service_fn(echo));
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let response = service.clone().oneshot(Request::get(path).body(()).unwrap()).await.unwrap();
            statuses.push(response.status().as_u16());
        }
        statuses
    };
    assert_eq!(ask(MissingKey::Share, "apiKey", "/").await, [200, 429]);
    assert_eq!(ask(MissingKey::Skip, "global+apiKey", "/").await, [200, 200]);
    assert_eq!(ask(MissingKey::Skip, "global", "/").await, [200, 429], "nothing is missing");
    assert_eq!(ask(MissingKey::Reject, "apiKey", "/v1/models").await, [401, 401]);
    assert_eq!(ask(MissingKey::Reject, "user", "/").await, [401, 401]);
    assert_eq!(ask(MissingKey::Reject, "header:x-tenant", "/").await, [400, 400]);
}

#[tokio::test]
async fn who_lacks_a_credential_is_told_which_unless_the_responder_says_it() {
    let layer = |scope: &str| {
        let policy = Policy::builder().limit(Limit::requests_per_minute(1)).scope(scope.parse().unwrap());
        let policy = policy.missing_key(MissingKey::Reject).build().unwrap();
        RateLimitLayer::new(Limiter::new(policy))
    };
    let challenge = async |layer: RateLimitLayer, request: http::request::Builder| {
        let service = layer.layer(service_fn(echo));
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        response.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned())
    };
    let (get, bearer) = (|| Request::get("/v1/models"), r#"Bearer realm="rate limit""#);
    assert_eq!(challenge(layer("apiKey"), get()).await.as_deref(), Some(bearer));
    assert_eq!(challenge(layer("user"), get()).await.as_deref(), Some(r#"Basic realm="rate limit""#));
    assert_eq!(challenge(layer("header:x-tenant"), get()).await, None, "it is no 401");
    let grpc = get().header("content-type", "application/grpc");
    assert_eq!(challenge(layer("apiKey"), grpc).await, None, "nor is this");
    let own = layer("apiKey").responder(|refusal: Refusal<'_>, _: &http::request::Parts| {
        let response = Response::builder().status(refusal.status()).header("www-authenticate", "DPoP");
        response.body(Bytes::new()).unwrap()
    });
    assert_eq!(challenge(own, get()).await.as_deref(), Some("DPoP"));
}

#[tokio::test]
async fn a_policy_that_warns_refuses_nobody_who_lacks_its_key() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).scope("apiKey".parse().unwrap());
    let policy = policy.missing_key(MissingKey::Reject).on_limit(OnLimit::Warn).build().unwrap();
    let service = RateLimitLayer::new(Limiter::new(policy)).layer(service_fn(echo));
    assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_closure_writes_all_refusals() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(0)).scope("apiKey".parse().unwrap());
    let policy = policy.missing_key(MissingKey::Reject).build().unwrap();
    let layer = RateLimitLayer::new(Limiter::new(policy)).responder(
        |refusal: Refusal<'_>, _: &http::request::Parts| {
            let mut response = Response::new(Bytes::from(refusal.to_string()));
            *response.status_mut() = refusal.status();
            response
        },
    );
    let service = layer.layer(service_fn(|_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::default())))
    }));
    let known = Request::builder().header("x-api-key", "alice").body(()).unwrap();
    for (request, status, text) in [
        (known, 429, "requests-per-minute exhausted, it admits nothing"),
        (Request::new(()), 401, "the request lacks what its rate limit counts by: apiKey"),
    ] {
        let (response, body) = read(service.clone().oneshot(request).await.unwrap()).await;
        assert_eq!((response.status().as_u16(), body.as_str()), (status, text));
        let missing = response.extensions().get::<MissingPart>().map(|missing| &missing.part);
        assert_eq!(missing, Some(&ScopePart::ApiKey).filter(|_| status == 401));
    }
}
