use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};

use super::*;
use crate::body::RequestBody;
use crate::error::BoxError;

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

/// Keeps what it is given.
#[derive(Default)]
struct Client {
    begun: AtomicUsize,
    exchanges: Mutex<Vec<Exchange>>,
}

impl TokenClient for Arc<Client> {
    fn begin(&self, exchange: Exchange) {
        self.begun.fetch_add(1, Relaxed);
        self.exchanges.lock().unwrap().push(exchange);
    }
}

impl Client {
    fn begun(&self) -> usize {
        self.begun.load(Relaxed)
    }
}

fn source() -> (Arc<Source>, Arc<Client>) {
    let client = Arc::new(Client::default());
    let identity = Identity::of_entra(r#"{"tenant":"t","appId":"c","password":"s"}"#).unwrap();
    let form = Form::Bearer(http::header::AUTHORIZATION);
    let source = Source::new(identity, form, Arc::new(Arc::clone(&client)));
    (Arc::new(source), client)
}

fn issued(secret: &str, seconds: u64) -> Result<Issued, TokenError> {
    Ok(Issued { secret: secret.into(), life: Duration::from_secs(seconds) })
}

fn at(seconds: u64) -> SystemTime {
    NOW + Duration::from_secs(seconds)
}

fn shown(source: &Arc<Source>, now: SystemTime) -> String {
    match source.look_at(now) {
        Look::Ready(stamp) => {
            let mut headers = HeaderMap::new();
            stamp.write(&mut headers);
            headers["authorization"].to_str().unwrap().to_owned()
        }
        Look::Waiting => "waiting".to_owned(),
        Look::Failed(error) => error.to_string(),
    }
}

#[test]
fn there_is_one_exchange_at_a_time_whoever_waits() {
    let (source, client) = source();
    for _ in 0..100 {
        assert_eq!(shown(&source, NOW), "waiting");
    }
    assert_eq!(client.begun(), 1);
    source.settle_at(NOW, issued("one", 3600));
    assert_eq!(shown(&source, at(3299)), "Bearer one");
    assert_eq!(client.begun(), 1);
}

#[test]
fn a_token_is_renewed_ahead_of_its_end_while_requests_go_on_with_it() {
    let (source, client) = source();
    shown(&source, NOW);
    source.settle_at(NOW, issued("one", 3600));
    for _ in 0..10 {
        assert_eq!(shown(&source, at(3300)), "Bearer one");
    }
    assert_eq!(client.begun(), 2);
    source.settle_at(at(3301), issued("two", 3600));
    assert_eq!(shown(&source, at(3302)), "Bearer two");
    assert_eq!(client.begun(), 2);
}

#[test]
fn a_token_is_not_shown_in_its_last_seconds() {
    let (source, _) = source();
    shown(&source, NOW);
    source.settle_at(NOW, issued("one", 3600));
    assert_eq!(shown(&source, at(3569)), "Bearer one");
    assert_eq!(shown(&source, at(3570)), "waiting");
}

#[test]
fn a_short_life_has_short_margins_and_an_endless_one_a_day() {
    let (source, client) = source();
    shown(&source, NOW);
    source.settle_at(NOW, issued("short", 20));
    assert_eq!((shown(&source, at(15)), client.begun()), ("Bearer short".to_owned(), 1));
    assert_eq!((shown(&source, at(16)), client.begun()), ("Bearer short".to_owned(), 2));
    source.settle_at(at(16), issued("endless", u64::MAX));
    assert_eq!((shown(&source, at(86_000)), client.begun()), ("Bearer endless".to_owned(), 2));
    shown(&source, at(86_400));
    assert_eq!(client.begun(), 3);
}

#[test]
fn a_failure_is_the_answer_for_a_while_that_doubles() {
    let (source, client) = source();
    let failed = "the exchange was given up";
    shown(&source, NOW);
    let mut now = NOW;
    for (exchanges, pause) in (1..).zip([1, 2, 4, 8, 16, 32, 60, 60]) {
        source.settle_at(now, Err(TokenError::Abandoned));
        assert_eq!(shown(&source, now + Duration::from_secs(pause) - Duration::from_millis(1)), failed);
        assert_eq!(client.begun(), exchanges);
        now += Duration::from_secs(pause);
        assert_eq!(shown(&source, now), "waiting");
        assert_eq!(client.begun(), exchanges + 1);
    }
    source.settle_at(now, issued("one", 3600));
    assert_eq!(shown(&source, now), "Bearer one");
}

#[test]
fn a_renewal_that_fails_leaves_the_token_until_its_end() {
    let (source, client) = source();
    shown(&source, NOW);
    source.settle_at(NOW, issued("one", 3600));
    shown(&source, at(3300));
    source.settle_at(at(3300), Err(TokenError::Abandoned));
    assert_eq!(shown(&source, at(3300)), "Bearer one");
    assert_eq!(client.begun(), 2);
    assert_eq!(shown(&source, at(3301)), "Bearer one");
    assert_eq!(client.begun(), 3);
    source.settle_at(at(3599), Err(TokenError::Abandoned));
    assert_eq!(shown(&source, at(3600)), "the exchange was given up");
}

#[test]
fn a_clock_that_was_set_back_holds_nothing_up() {
    let (source, client) = source();
    shown(&source, at(1000));
    source.settle_at(at(1000), Err(TokenError::Abandoned));
    assert_eq!(shown(&source, NOW), "waiting");
    assert_eq!(client.begun(), 2);
}

#[test]
fn a_token_that_no_header_can_hold_is_none() {
    let (source, _) = source();
    shown(&source, NOW);
    source.settle_at(NOW, issued("to\nken", 3600));
    assert_eq!(shown(&source, NOW), "the token endpoint's answer holds no token that can be used");
}

#[tokio::test]
async fn all_who_wait_are_told() {
    let (source, client) = source();
    let waiting: Vec<_> = (0..10).map(|_| Arc::clone(&source).token()).collect();
    let waiting = futures_util::future::join_all(waiting);
    let answer = async {
        let exchange = client.exchanges.lock().unwrap().pop().unwrap();
        let send = |_: Request<Bytes>| async {
            Ok::<_, BoxError>(Response::new(Bytes::from_static(
                br#"{"access_token":"one","expires_in":"3600"}"#,
            )))
        };
        exchange.through(send).await;
    };
    let (stamps, ()) = tokio::join!(waiting, answer);
    assert!(stamps.iter().all(Result::is_ok));
    assert_eq!(client.begun(), 1);
    let mut request = Request::new(RequestBody::default());
    stamps[0].as_ref().unwrap().sign_at(SystemTime::now(), &mut request);
    assert_eq!(request.headers()["authorization"], "Bearer one");
    assert!(request.headers()["authorization"].is_sensitive());
}

#[tokio::test]
async fn who_waits_is_told_that_the_exchange_was_dropped() {
    let (source, client) = source();
    let waiting = Arc::clone(&source).token();
    let drops = async { client.exchanges.lock().unwrap().clear() };
    let (token, ()) = tokio::join!(waiting, drops);
    assert!(matches!(token, Err(TokenError::Abandoned)));
}

#[tokio::test]
async fn a_client_that_drops_the_exchange_at_once_is_a_failure() {
    let identity = Identity::of_entra(r#"{"tenant":"t","appId":"c","password":"s"}"#).unwrap();
    let form = Form::Bearer(http::header::AUTHORIZATION);
    let source = Arc::new(Source::new(identity, form, Arc::new(drop::<Exchange>)));
    assert!(matches!(source.token().await, Err(TokenError::Abandoned)));
}

#[test]
fn what_an_endpoint_says_of_a_refusal_is_told_by_name() {
    let (source, _) = source();
    for (body, told) in [
        (
            r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid secret s3cr3t."}"#,
            "AADSTS7000215",
        ),
        (r#"{"error":"invalid_grant","error_description":"Bad s3cr3t"}"#, "invalid_grant"),
        ("<html>s3cr3t</html>", "no reason given"),
    ] {
        let response = Response::builder().status(401).body(Bytes::from(body)).unwrap();
        let error = source.identity().read_at(NOW, &response).unwrap_err().to_string();
        assert!(error.ends_with(told) && !error.contains("s3cr3t"), "{error}");
    }
    let large =
        Response::new(Bytes::from(format!(r#"{{"access_token":"{}","expires_in":1}}"#, "x".repeat(70_000))));
    assert!(matches!(source.identity().read_at(NOW, &large), Err(TokenError::Unreadable)));
    for body in [r#"{"access_token":"x"}"#, r#"{"access_token":"x","expires_in":0}"#, "{}", ""] {
        let response = Response::new(Bytes::from(body));
        assert!(matches!(source.identity().read_at(NOW, &response), Err(TokenError::Unreadable)), "{body}");
    }
}
