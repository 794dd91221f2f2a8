//! Credentials that are exchanged for tokens.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use nantian_ai::route::{Choice, ModelRoute};
use nantian_ai::token::{Exchange, TokenClient};
use nantian_ai::usage::Outcome;
use nantian_ai::{
    AiLayer, Credential, InvalidCredential, InvalidTarget, Target, TargetConfig, Timeouts, retry::RetryPolicy,
};
use serde_json::Value;
use tower::{Layer as _, ServiceExt as _};

use crate::support::{Reports, Upstream, chat, json, send};

const ANSWER: &str = r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#;
const TOKEN: &str = r#"{"token_type":"Bearer","access_token":"eyJ","expires_in":3599}"#;
const REFUSAL: &str =
    r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret"}"#;

/// A token endpoint with a script, one answer for each exchange, and none at its end.
#[derive(Clone, Default)]
struct TokenEndpoint {
    script: Arc<Mutex<Vec<(u16, &'static str)>>>,
    asked: Arc<AtomicUsize>,
}

impl TokenEndpoint {
    fn of<const N: usize>(mut script: [(u16, &'static str); N]) -> Self {
        script.reverse();
        Self { script: Arc::new(Mutex::new(script.to_vec())), ..Self::default() }
    }

    fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

impl TokenClient for TokenEndpoint {
    fn begin(&self, exchange: Exchange) {
        self.asked.fetch_add(1, Relaxed);
        let answer = self.script.lock().unwrap().pop();
        drop(tokio::spawn(exchange.through(async move |request: Request<Bytes>| {
            assert_eq!(request.uri(), "https://login.microsoftonline.com/t/oauth2/v2.0/token");
            let Some((status, body)) = answer else { return std::future::pending().await };
            Ok::<_, Infallible>(Response::builder().status(status).body(Bytes::from(body)).unwrap())
        })));
    }
}

fn azure() -> TargetConfig {
    TargetConfig::new("demo/gpt", "azure-openai", "gpt-4o")
        .with_endpoint("https://demo.openai.azure.com")
        .with_credential(Credential::azure(r#"{"tenant":"t","appId":"c","password":"s"}"#))
}

fn layer(config: TargetConfig, endpoint: &TokenEndpoint) -> AiLayer {
    AiLayer::new(Arc::new(Target::with_tokens(config, Arc::new(endpoint.clone())).unwrap()))
}

#[tokio::test]
async fn the_provider_is_shown_the_token_and_never_the_account() {
    let endpoint = TokenEndpoint::of([(200, TOKEN)]);
    let layer = layer(azure(), &endpoint);
    for _ in 0..2 {
        let upstream = Upstream::new().replies(json(200, ANSWER));
        let (head, _) = send(layer.clone(), &upstream, chat()).await;
        assert_eq!(head.status, 200);
        let (head, _) = upstream.request();
        assert_eq!(head.headers["authorization"], "Bearer eyJ");
        assert!(head.headers["authorization"].is_sensitive());
    }
    assert_eq!(endpoint.asked(), 1);
}

#[tokio::test]
async fn many_requests_at_once_wait_for_one_exchange() {
    let endpoint = TokenEndpoint::of([(200, TOKEN)]);
    let layer = layer(azure(), &endpoint);
    let upstream = (0..50).fold(Upstream::new(), |upstream, _| upstream.replies(json(200, ANSWER)));
    let requests = (0..50).map(|_| send(layer.clone(), &upstream, chat()));
    let answers = futures_util::future::join_all(requests).await;
    assert!(answers.iter().all(|(head, _)| head.status == 200));
    assert_eq!(endpoint.asked(), 1);
    assert!(upstream.all().iter().all(|(head, _)| head.headers["authorization"] == "Bearer eyJ"));
}

#[tokio::test]
async fn a_refused_account_is_this_sides_fault_and_costs_nothing() {
    let endpoint = TokenEndpoint::of([(401, REFUSAL)]);
    let reports = Reports::default();
    let config = azure().with_retry(RetryPolicy::new(3, Duration::ZERO));
    let (upstream, layer) = (Upstream::new(), layer(config, &endpoint).observer(reports.clone()));
    for _ in 0..2 {
        let (head, body) = send(layer.clone(), &upstream, chat()).await;
        assert_eq!(head.status, 502);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["error"]["code"], "upstream_auth");
        let message = "provider of `demo/gpt` was not asked, for the configured credential got no token";
        assert_eq!(body["error"]["message"], message);
    }
    assert_eq!((upstream.requests(), endpoint.asked()), (0, 1));
    assert!(reports.all().iter().all(|report| report.outcome == Outcome::NotServed));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_does_not_come_is_bounded_by_the_time_of_an_attempt() {
    let endpoint = TokenEndpoint::of([]);
    let reports = Reports::default();
    let config = azure().with_timeouts(Timeouts::uniform(Duration::from_secs(5)));
    let (upstream, layer) = (Upstream::new(), layer(config, &endpoint).observer(reports.clone()));
    let started = tokio::time::Instant::now();
    let (head, _) = send(layer, &upstream, chat()).await;
    assert_eq!((head.status.as_u16(), started.elapsed()), (502, Duration::from_secs(5)));
    assert_eq!(reports.only().outcome, Outcome::NotServed);
}

#[tokio::test]
async fn where_there_is_no_token_another_model_is_asked() {
    let endpoint = TokenEndpoint::of([(401, REFUSAL)]);
    let (azure_side, openai) = (Upstream::new(), Upstream::new().replies(json(200, ANSWER)));
    let choice = |name: &str, layer: AiLayer, upstream: &Upstream| {
        Choice::new(name, "m", layer.layer(upstream.clone()))
    };
    let other = TargetConfig::new("demo/other", "openai", "gpt-4o");
    let route = ModelRoute::new([
        choice("any", layer(azure(), &endpoint), &azure_side),
        choice("other", AiLayer::new(Arc::new(Target::new(other).unwrap())), &openai),
    ]);
    let response = route.oneshot(chat()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!((azure_side.requests(), openai.requests(), endpoint.asked()), (0, 1, 1));
}

#[tokio::test]
async fn an_account_without_a_client_is_refused_before_any_request() {
    let refused = Target::new(azure()).unwrap_err();
    assert!(matches!(refused, InvalidTarget::Credential(InvalidCredential::NoClient { .. })), "{refused}");
    let empty = azure().with_credential(Credential::azure(""));
    assert!(Target::with_tokens(empty, Arc::new(TokenEndpoint::default())).is_err());
}

#[tokio::test]
async fn a_proxy_without_tower_waits_until_the_credential_is_ready() {
    let endpoint = TokenEndpoint::of([(200, TOKEN)]);
    let target = Target::with_tokens(azure(), Arc::new(endpoint.clone())).unwrap();
    target.ready(0).await.unwrap();
    let (head, ()) = Request::post("/v1/chat/completions").body(()).unwrap().into_parts();
    let surface = target.admit(&head).unwrap();
    let prepared = target.prepare(&surface, head, Bytes::from(r#"{"messages":[]}"#)).unwrap();
    let mut request = prepared.into_request();
    assert!(request.headers().get("authorization").is_none());
    target.sign_at(std::time::SystemTime::now(), 0, &mut request);
    assert_eq!(request.headers()["authorization"], "Bearer eyJ");
}
