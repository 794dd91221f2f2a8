use std::{convert::Infallible, io::Write as _};

use http::HeaderValue;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use nantian_ratelimit::EstimatedTokens;
use tower::{ServiceExt, service_fn};

use super::*;

/// As many bytes as are read at most.
const LONG: usize = 1 << 20;

fn asked(body: &str) -> (Option<String>, Option<String>) {
    let asked = BodyFacts::of(Authorized::default(), body.as_bytes());
    (asked.model.map(|model| model.to_string()), asked.user.map(|user| user.to_string()))
}

/// What the inner service sees of a request with these chunks.
async fn seen(layer: BodyFactsLayer, content_type: &str, chunks: Vec<Bytes>) -> (BodyFacts, Bytes) {
    let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk)));
    let body = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    let request = Request::builder().header(CONTENT_TYPE, content_type).body(body).unwrap();
    let inner = service_fn(async |request: Request<Body>| {
        let asked = request.extensions().get::<BodyFacts>().unwrap().clone();
        Ok::<_, BoxError>((asked, request.into_body().collect().await?.to_bytes()))
    });
    layer.layer(inner).oneshot(request).await.unwrap()
}

const BOTH: BodyFactsLayer =
    BodyFactsLayer { model: true, user: true, is_routed_by_model: false, tokens: None, memory: None };

#[test]
fn a_body_says_model_and_user_in_every_dialect() {
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(asked(r#"{"model":"m","messages":[],"user":"u"}"#), (some("m"), some("u")));
    assert_eq!(asked(r#"{"metadata":{"user_id":"u"},"model":"m"}"#), (some("m"), some("u")));
    assert_eq!(asked(r#"{"model":"m","safety_identifier":"s"}"#), (some("m"), some("s")));
    assert_eq!(asked(r#"{"model":7,"user":["u"],"metadata":{"user_id":"u"}}"#), (None, some("u")));
    let odd = r#"{"model":{"user_id":"m"},"user":null,"metadata":{"a":[1,{}],"user_id":"\u0075","b":-1.5}}"#;
    assert_eq!(asked(odd), (None, some("u")));
    assert_eq!(asked(r#"{"mod\u0065l":"m","user":true,"metadata":"u"}"#), (some("m"), None));
    // The last one counts, as where an AIService is chosen.
    assert_eq!(asked(r#"{"model":"a","user":"u","model":"b","user":"v"}"#), (some("b"), some("v")));
    for nothing in ["", "[]", "{", "text"] {
        assert_eq!(asked(nothing), (None, None), "{nothing}");
    }
}

#[test]
fn basic_credentials_name_the_user() {
    let mut headers = HeaderMap::new();
    let encoded = format!("Basic {}", BASE64_STANDARD.encode("alice:secret:more"));
    headers.insert(AUTHORIZATION, HeaderValue::try_from(encoded).unwrap());
    let asked = |headers: &HeaderMap| BodyFacts::of(Authorized::by(headers), br#"{"user":"somebody else"}"#);
    assert_eq!(asked(&headers).user.as_deref(), Some("alice"));
    // The password is Latin-1: alice:geheimnisvöll.
    headers.insert(AUTHORIZATION, HeaderValue::from_static("basic  YWxpY2U6Z2VoZWltbmlzdvZsbA=="));
    assert_eq!(asked(&headers).user.as_deref(), Some("alice"));
    for odd in [
        "Basic ???",
        "Basic",
        "Basic YWxp*Y2U6c2VjcmV0",
        "Basic YWxpY2U6eA",
        "Basic YWxpY2U=",
        "Basic\tYWxpY2U=",
    ] {
        headers.insert(AUTHORIZATION, HeaderValue::from_static(odd));
        assert_eq!(asked(&headers).user, None, "{odd}: whoever reads it may find any name");
    }
    headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer sk-1"));
    assert_eq!(asked(&headers).user.as_deref(), Some("somebody else"));
}

#[tokio::test]
async fn a_json_body_is_read_however_it_comes_and_passes_on_whole() {
    let text = r#"{"model":"m","user":"u"}"#;
    for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/x+json"] {
        for size in [1, 7, text.len()] {
            let chunks = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
            let (asked, body) = seen(BOTH, content_type, chunks).await;
            assert_eq!((asked.model.as_deref(), asked.user.as_deref()), (Some("m"), Some("u")));
            assert_eq!(body, text);
        }
    }
}

#[tokio::test]
async fn the_type_may_be_missing_where_the_length_is_known() {
    let inner = service_fn(async |request: Request<Body>| {
        Ok::<_, BoxError>(request.extensions().get::<BodyFacts>().unwrap().clone())
    });
    let ask = async |content_type| {
        let request = Request::builder().header(CONTENT_TYPE, content_type);
        let request = request.body(Body::full(r#"{"model":"m"}"#)).unwrap();
        BOTH.layer(inner).oneshot(request).await.unwrap().model
    };
    assert_eq!(ask("application/x-www-form-urlencoded").await.as_deref(), Some("m"));
    assert_eq!(ask("application/grpc+json").await, None);
}

#[tokio::test]
async fn a_body_beyond_the_most_says_nothing_and_passes_on_whole() {
    let mut text = format!(r#"{{"model":"m","prompt":"{}"}}"#, "x".repeat(LONG));
    text.push_str(&" ".repeat(LONG));
    let chunks = text.as_bytes().chunks(50_000).map(Bytes::copy_from_slice).collect();
    let (asked, body) = seen(BOTH, "application/json", chunks).await;
    assert_eq!(asked, BodyFacts::default());
    assert!(body == text);
}

fn gzip(plain: &[u8]) -> Bytes {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap().into()
}

/// What is asked where an AIService is chosen by the body.
async fn routed(request: http::request::Builder, body: Body) -> (Option<String>, Bytes) {
    let inner = service_fn(async |request: Request<Body>| {
        let model = request.extensions().get::<BodyFacts>().unwrap().model.as_deref().map(str::to_owned);
        let held = request.extensions().get::<HeldBytes>().map(|HeldBytes(bytes)| *bytes);
        let body = request.into_body().collect().await?.to_bytes();
        assert!(held.is_none_or(|held| held == body.len() as u64));
        Ok::<_, BoxError>((model, body))
    });
    let layer = BodyFactsLayer { is_routed_by_model: true, ..BOTH };
    layer.layer(inner).oneshot(request.body(body).unwrap()).await.unwrap()
}

#[tokio::test]
async fn the_model_is_the_one_that_an_ai_service_is_chosen_by_however_the_body_comes() {
    let chat = || Request::post("/v1/chat/completions");
    let text = r#"{"model":"x","model":"large"}"#;
    let chunked = || {
        let chunks = text
            .as_bytes()
            .chunks(5)
            .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))));
        Body::boxed(StreamBody::new(futures_util::stream::iter(chunks)))
    };
    let large = Some("large".to_owned());
    assert_eq!(
        routed(chat().header(CONTENT_TYPE, "text/plain"), chunked()).await,
        (large.clone(), text.into())
    );
    let padded = format!("{}{text}", " ".repeat(2 * LONG));
    assert_eq!(routed(chat(), Body::full(padded.clone())).await.0, large);
    let packed = gzip(padded.as_bytes());
    let sent = chat().header("content-encoding", "gzip");
    assert_eq!(routed(sent, Body::full(packed)).await, (large, padded.into()), "it is unpacked once");
    let broken = chat().header("content-encoding", "gzip");
    assert_eq!(routed(broken, Body::full(text)).await, (None, text.into()), "the router refuses it");
    assert_eq!(routed(Request::post("/else"), Body::full(text)).await, (None, text.into()));
}

#[tokio::test]
async fn what_is_no_json_or_need_not_be_read_is_decided_on_before_it_ends() {
    let endless = || {
        let first = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
        Body::boxed(StreamBody::new(futures_util::StreamExt::chain(first, futures_util::stream::pending())))
    };
    let decided = service_fn(async |request: Request<Body>| {
        Ok::<_, BoxError>(request.extensions().get::<BodyFacts>().unwrap().clone())
    });
    for content_type in ["application/grpc", "application/grpc+json", "text/plain", "application/ndjson"] {
        let request = Request::builder().header(CONTENT_TYPE, content_type).body(endless()).unwrap();
        assert_eq!(BOTH.layer(decided).oneshot(request).await.unwrap(), BodyFacts::default());
    }
    let request = Request::builder()
        .header(CONTENT_TYPE, "application/json")
        .header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode("alice:secret")))
        .body(endless())
        .unwrap();
    let by_user = BodyFactsLayer { model: false, ..BOTH };
    let asked = by_user.layer(decided).oneshot(request).await.unwrap();
    assert_eq!(asked.user.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_compressed_body_says_as_much_as_a_plain_one_and_passes_on_as_it_came() {
    let expected = Expected::new(Vec::new(), Arc::default(), 100_000);
    let layer = BodyFactsLayer { tokens: Some(Arc::new(expected)), ..BOTH };
    let inner = service_fn(async |request: Request<Body>| {
        let (parts, body) = request.into_parts();
        let asked = parts.extensions.get::<BodyFacts>().unwrap().clone();
        let tokens = parts.extensions.get::<EstimatedTokens>().map(|EstimatedTokens(tokens)| *tokens);
        Ok::<_, BoxError>((asked, tokens, body.collect().await?.to_bytes()))
    });
    let text = format!(r#"{{"model":"m","user":"u","max_tokens":100,"prompt":"{}"}}"#, "word ".repeat(400));
    let packed = gzip(text.as_bytes());
    let bomb = gzip(&vec![b' '; 2 * LONG]);
    let ask = async |encoding: Option<&str>, body: Body| {
        let mut request = Request::post("/v1/completions");
        if let Some(encoding) = encoding {
            request = request.header(CONTENT_ENCODING, encoding);
        }
        layer.layer(inner).oneshot(request.body(body).unwrap()).await.unwrap()
    };
    let frames = text
        .as_bytes()
        .chunks(100)
        .map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(chunk))));
    let frames: Vec<_> = frames.collect();
    let chunked = Body::boxed(StreamBody::new(futures_util::stream::iter(frames)));
    let (asked, plain, _) = ask(None, chunked).await;
    assert_eq!(asked.model.as_deref(), Some("m"), "no type and no length, but the path tells");
    assert!((500..1000).contains(&plain.unwrap()), "{plain:?}");
    let (asked, tokens, passed) = ask(Some("gzip"), Body::full(packed.clone())).await;
    assert_eq!((asked.model.as_deref(), asked.user.as_deref()), (Some("m"), Some("u")));
    assert_eq!((tokens, passed), (plain, packed.clone()));
    let (_, tokens, _) = ask(Some("Identity"), Body::full(text.clone())).await;
    assert_eq!(tokens, plain, "that is no compression");
    assert_eq!(ask(Some("br"), Body::full(packed)).await.1, None);
    let (asked, tokens, passed) = ask(Some("gzip"), Body::full(bomb.clone())).await;
    assert_eq!((asked, tokens), (BodyFacts::default(), None));
    assert!(passed == bomb);
}
