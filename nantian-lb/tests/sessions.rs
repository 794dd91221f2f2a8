//! Clients stay with their endpoints.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of tests are tests too")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Request, Response};
use nantian_lb::clock::ManualClock;
use nantian_lb::health::OutlierConfig;
use nantian_lb::session::{
    CookieConfig, CookieLifetime, InvalidSession, SameSite, SessionCarrier, SessionConfig, SessionKeys,
    SessionName, Sessions,
};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Endpoint, HashKey, Outcome, PickContext, Readiness, Routed,
    Strategy,
};
use tower::{Layer, Service, ServiceExt, service_fn};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn at(seconds: u64) -> SystemTime {
    NOW + Duration::from_secs(1_700_000_000 + seconds)
}

fn name() -> SessionName {
    SessionName::new("stay").unwrap()
}

fn keys(keys: &[u8]) -> SessionKeys {
    SessionKeys::new(keys.iter().map(|&key| [key; 32])).unwrap()
}

fn sessions(config: SessionConfig) -> Sessions {
    Sessions::new(config, "shop/1", &keys(&[1])).unwrap()
}

fn endpoints() -> Vec<Endpoint<&'static str>> {
    ["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|address| Endpoint::new(address, address)).into()
}

fn balancer() -> Balancer<&'static str> {
    Balancer::new(endpoints(), &BalanceConfig::default())
}

/// A client that keeps one cookie, and the balancer at the other end.
struct Client {
    sessions: Sessions,
    cookie: Option<String>,
}

impl Client {
    fn new(sessions: &Sessions) -> Self {
        Self { sessions: sessions.clone(), cookie: None }
    }

    fn headers(&self) -> HeaderMap {
        self.cookie.iter().map(|cookie| (COOKIE, HeaderValue::from_str(cookie).unwrap())).collect()
    }

    /// Asks, and gives the target and the `Set-Cookie` of the response.
    fn ask(&mut self, balancer: &Balancer<&'static str>, now: SystemTime) -> (&'static str, Option<String>) {
        let session = self.sessions.find(&self.headers(), now);
        let mut context = PickContext::new();
        if let Some(session) = &session {
            context = context.with_session(session);
        }
        let picked = balancer.pick(&context).unwrap();
        let mut response = HeaderMap::new();
        self.sessions.write(&mut response, now, session.as_ref(), picked.in_flight());
        let set = response.get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned());
        if let Some(set) = &set {
            self.cookie = set.split(';').next().map(str::to_owned);
        }
        (*picked.target(), set)
    }
}

/// P11, its first part.
#[test]
fn a_client_stays_with_its_endpoint_and_new_ones_are_spread() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::cookie(name())));
    let mut firsts = BTreeMap::<_, usize>::new();
    for _ in 0..30 {
        let mut client = Client::new(&sessions);
        let (first, set) = client.ask(&balancer, at(0));
        assert!(set.is_some());
        for _ in 0..50 {
            assert_eq!(
                client.ask(&balancer, at(1_000_000)),
                (first, None),
                "without a timeout it never ends"
            );
        }
        *firsts.entry(first).or_default() += 1;
    }
    assert_eq!(firsts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn the_attributes_are_those_of_a_careful_cookie() {
    let balancer = balancer();
    let set = |cookie: CookieConfig, absolute: u64| {
        let config = SessionConfig::new(name(), SessionCarrier::Cookie(cookie));
        let config = config.with_absolute_timeout(Duration::from_secs(absolute));
        let set = Client::new(&sessions(config)).ask(&balancer, at(0)).1.unwrap();
        set.split_once("; ").unwrap().1.to_owned()
    };
    assert_eq!(set(CookieConfig::default(), 60), "Path=/; HttpOnly; SameSite=Strict");
    let permanent = CookieConfig::default().with_lifetime(CookieLifetime::Permanent).with_secure(true);
    assert_eq!(set(permanent.clone(), 60), "Path=/; Max-Age=60; HttpOnly; SameSite=Strict; Secure");
    let other = permanent.with_path("/shop").with_same_site(SameSite::Lax);
    assert_eq!(set(other.clone(), 7200), "Path=/shop; Max-Age=7200; HttpOnly; SameSite=Lax; Secure");
    assert!(set(other.with_same_site(SameSite::None), 1).ends_with("SameSite=None; Secure"));
}

#[test]
fn a_configuration_that_cannot_be_kept_is_refused() {
    let refused = |config: SessionConfig| Sessions::new(config, "", &keys(&[1])).unwrap_err();
    let cookie = |cookie| SessionConfig::new(name(), SessionCarrier::Cookie(cookie));
    let permanent = CookieConfig::default().with_lifetime(CookieLifetime::Permanent);
    assert_eq!(refused(cookie(permanent)), InvalidSession::Endless);
    for path in ["", "shop", "/a;b", "/a b"] {
        let error = refused(cookie(CookieConfig::default().with_path(path)));
        assert_eq!(error, InvalidSession::Path { path: path.to_owned() });
    }
    let none = CookieConfig::default().with_same_site(SameSite::None);
    assert_eq!(refused(cookie(none)), InvalidSession::NotSecure);
    let (idle, absolute) = (Duration::from_secs(2), Duration::from_secs(1));
    let config = SessionConfig::header(name()).with_idle_timeout(idle).with_absolute_timeout(absolute);
    assert_eq!(refused(config), InvalidSession::IdleForTooLong { idle, absolute });
    for name in ["", "a b", "ä", "a=b", "a;b"] {
        assert!(SessionName::new(name).is_err(), "{name}");
    }
    assert_eq!("stay".parse::<SessionName>().unwrap().to_string(), "stay");
    assert!(SessionKeys::new([]).is_err());
}

#[test]
fn no_token_shows_an_address_or_a_name() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::cookie(name())));
    let mut client = Client::new(&sessions);
    let (_, set) = client.ask(&balancer, at(0));
    let set = set.unwrap();
    assert!(!set.contains("10.0.0") && !set.contains("shop"), "{set}");
    // The same endpoint looks different to every client.
    let mut tokens: Vec<_> =
        (0..30).map(|_| Client::new(&sessions).ask(&balancer, at(0)).1.unwrap()).collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 30);
}

#[test]
fn a_session_ends_at_its_age_however_busy_it_is() {
    let config = SessionConfig::cookie(name())
        .with_absolute_timeout(Duration::from_secs(100))
        .with_idle_timeout(Duration::from_secs(40));
    let (balancer, sessions) = (balancer(), sessions(config));
    let mut client = Client::new(&sessions);
    let (first, _) = client.ask(&balancer, at(0));
    for now in (5..100).step_by(5) {
        let (target, set) = client.ask(&balancer, at(now));
        assert_eq!(target, first);
        assert_eq!(set.is_some(), now % 15 == 0, "renewed when a quarter of the idle timeout is over: {now}");
    }
    let renewed = client.ask(&balancer, at(100)).1;
    assert!(renewed.is_some(), "a new session");
    assert!(sessions.find(&client.headers(), at(139)).is_some());
    assert!(sessions.find(&client.headers(), at(140)).is_none(), "idle for too long");
}

#[test]
fn the_maximum_age_of_a_permanent_cookie_is_what_is_left_of_the_session() {
    let cookie = CookieConfig::default().with_lifetime(CookieLifetime::Permanent);
    let config = SessionConfig::new(name(), SessionCarrier::Cookie(cookie))
        .with_absolute_timeout(Duration::from_secs(100))
        .with_idle_timeout(Duration::from_secs(40));
    let (balancer, mut client) = (balancer(), Client::new(&sessions(config)));
    client.ask(&balancer, at(0));
    let set = client.ask(&balancer, at(30)).1.unwrap();
    assert!(set.contains("; Max-Age=70;"), "{set}");
}

#[test]
fn clocks_of_replicas_may_differ_by_less_than_a_day() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::cookie(name())));
    let mut client = Client::new(&sessions);
    client.ask(&balancer, at(100_000));
    assert!(sessions.find(&client.headers(), at(99_000)).is_some());
    assert!(sessions.find(&client.headers(), at(100_000 - 24 * 3600 - 1)).is_none());
}

#[test]
fn a_token_of_another_place_name_or_key_is_no_token() {
    let (balancer, config) = (balancer(), SessionConfig::cookie(name()));
    let place = |scope, key| Sessions::new(config.clone(), scope, &keys(&[key])).unwrap();
    let mut client = Client::new(&place("shop/1", 1));
    client.ask(&balancer, at(0));
    assert!(place("shop/1", 1).find(&client.headers(), at(0)).is_some());
    for (scope, key) in [("shop/2", 1), ("shop", 1), ("shop/1", 2)] {
        assert!(place(scope, key).find(&client.headers(), at(0)).is_none(), "{scope} {key}");
    }
    let other = SessionConfig::cookie(SessionName::new("other").unwrap());
    let other = Sessions::new(other, "shop/1", &keys(&[1])).unwrap();
    client.cookie = client.cookie.map(|cookie| cookie.replace("stay=", "other="));
    assert!(other.find(&client.headers(), at(0)).is_none());
}

#[test]
fn of_several_cookies_of_the_name_the_first_valid_one_counts() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::cookie(name())));
    let mut client = Client::new(&sessions);
    let (first, _) = client.ask(&balancer, at(0));
    let token = client.cookie.unwrap();
    client.cookie = Some(format!("stay=forged; stay=; a=b; {token}; stay=old"));
    assert_eq!(client.ask(&balancer, at(0)), (first, None));
    let mut headers = client.headers();
    sessions.strip(&mut headers);
    assert_eq!(headers[COOKIE], "a=b");
}

#[test]
fn a_session_outlives_weight_0_and_draining_and_no_more() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::cookie(name())));
    let mut client = Client::new(&sessions);
    let (first, _) = client.ask(&balancer, at(0));
    let config = BalanceConfig::new(Strategy::ConsistentHash(HashKey::SourceIp));
    let with = |change: &dyn Fn(Endpoint<&'static str>) -> Endpoint<&'static str>| {
        endpoints()
            .into_iter()
            .map(|one| if one.target == first { change(one) } else { one })
            .collect::<Vec<_>>()
    };
    balancer.update(with(&|one| one.with_weight(0)), &config);
    assert_eq!(client.ask(&balancer, at(0)), (first, None));
    balancer.update(with(&|one| one.with_readiness(Readiness::Draining)), &config);
    assert_eq!(client.ask(&balancer, at(0)), (first, None));
    balancer.update(with(&|one| one.with_readiness(Readiness::NotReady)), &config);
    let (second, set) = client.ask(&balancer, at(0));
    assert!(second != first && set.is_some());
    balancer.update(endpoints(), &config);
    assert_eq!(client.ask(&balancer, at(0)), (second, None), "the session has moved");
    balancer.update(endpoints().into_iter().filter(|one| one.target != second), &config);
    let (third, set) = client.ask(&balancer, at(0));
    assert!(third != second && set.is_some());
}

#[test]
fn a_full_endpoint_is_passed_over_without_losing_the_session() {
    let config = BalanceConfig::default().with_max_inflight_requests(std::num::NonZeroU32::MIN);
    let (balancer, sessions) = (Balancer::new(endpoints(), &config), sessions(SessionConfig::cookie(name())));
    let mut client = Client::new(&sessions);
    let (first, _) = client.ask(&balancer, at(0));
    let mut service = service(&balancer, &sessions);
    let session = sessions.find(&client.headers(), at(0)).unwrap();
    let held = balancer.pick(&PickContext::new().with_session(&session)).unwrap();
    assert_eq!(*held.target(), first);
    let response = send(&mut service, client.headers());
    assert_ne!(response.headers()["x-target"], first);
    assert!(response.headers().get(SET_COOKIE).is_none());
    drop(held);
    assert_eq!(client.ask(&balancer, at(0)), (first, None));
}

#[test]
fn an_endpoint_that_wants_to_be_spared_is_passed_over_without_losing_the_session() {
    let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
    let clock = ManualClock::new();
    let balancer = Balancer::with_clock(endpoints(), &config, clock.clone());
    let sessions = sessions(SessionConfig::cookie(name()));
    let mut client = Client::new(&sessions);
    let (first, _) = client.ask(&balancer, at(0));
    let session = sessions.find(&client.headers(), at(0)).unwrap();
    let (_, mut in_flight) = balancer.pick(&PickContext::new().with_session(&session)).unwrap().into_parts();
    in_flight.record(Outcome::Busy { retry_after: Some(Duration::from_secs(2)) });
    let response = send(&mut service(&balancer, &sessions), client.headers());
    assert_ne!(response.headers()["x-target"], first);
    assert!(response.headers().get(SET_COOKIE).is_none());
    clock.advance(Duration::from_secs(2));
    assert_eq!(client.ask(&balancer, at(2)), (first, None));
}

#[test]
fn a_session_whose_endpoint_is_passed_over_is_renewed_by_whoever_answers() {
    let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
    let clock = ManualClock::new();
    let balancer = Balancer::with_clock(endpoints(), &config, clock.clone());
    let sessions = sessions(SessionConfig::cookie(name()).with_idle_timeout(Duration::from_secs(60)));
    let mut client = Client::new(&sessions);
    let now = SystemTime::now();
    let (first, _) = client.ask(&balancer, now - Duration::from_secs(30));
    let session = sessions.find(&client.headers(), now).unwrap();
    let (_, mut in_flight) = balancer.pick(&PickContext::new().with_session(&session)).unwrap().into_parts();
    in_flight.record(Outcome::Busy { retry_after: Some(Duration::from_secs(50)) });
    let response = send(&mut service(&balancer, &sessions), client.headers());
    assert_ne!(response.headers()["x-target"], first);
    let renewed = response.headers()[SET_COOKIE].to_str().unwrap();
    client.cookie = renewed.split(';').next().map(str::to_owned);
    clock.advance(Duration::from_secs(50));
    assert_eq!(client.ask(&balancer, now + Duration::from_secs(50)).0, first);
}

#[test]
fn a_header_carries_a_session_as_well() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::header(name())));
    let mut service = service(&balancer, &sessions);
    let first = send(&mut service, HeaderMap::new());
    let token = first.headers()["stay"].clone();
    for _ in 0..9 {
        let next = send(&mut service, HeaderMap::from_iter([(name_of_header(), token.clone())]));
        assert_eq!(next.headers()["x-target"], first.headers()["x-target"]);
        assert!(next.headers().get("stay").is_none());
        assert_eq!(next.headers()["x-saw"], "", "the endpoint does not see it");
    }
}

#[test]
fn the_service_starts_sessions_and_keeps_them_from_the_endpoints() {
    let (balancer, sessions) = (balancer(), sessions(SessionConfig::cookie(name())));
    let mut service = service(&balancer, &sessions);
    let first = send(&mut service, HeaderMap::new());
    let set = first.headers()[SET_COOKIE].to_str().unwrap();
    let cookie = format!("a=1; {}; b=2", set.split(';').next().unwrap());
    let next = send(&mut service, HeaderMap::from_iter([(COOKIE, cookie.parse().unwrap())]));
    assert_eq!(next.headers()["x-target"], first.headers()["x-target"]);
    assert_eq!(next.headers()["x-saw"], "a=1; b=2");
    assert!(next.headers().get(SET_COOKIE).is_none());
}

#[test]
fn sessions_of_several_sets_are_told_apart() {
    let base = sessions(SessionConfig::cookie(name()));
    let (one, other) = (base.of_backend("one"), base.of_backend("other"));
    let mut client = Client::new(&one);
    client.ask(&balancer(), at(0));
    let session = other.find(&client.headers(), at(0)).unwrap();
    assert!(one.owns(&session) && !other.owns(&session));
}

fn name_of_header() -> http::HeaderName {
    http::HeaderName::from_static("stay")
}

fn service(
    balancer: &Balancer<&'static str>,
    sessions: &Sessions,
) -> impl Service<
    Request<String>,
    Response = Response<nantian_lb::body::ResponseBody<String>>,
    Error = Infallible,
    Future: Send,
> + Clone
+ use<> {
    let upstream = service_fn(|Routed { target, request, .. }: Routed<&'static str, Request<String>>| {
        let saw =
            [COOKIE, name_of_header()].into_iter().find_map(|name| request.headers().get(name).cloned());
        let mut response = Response::new(String::new());
        response.headers_mut().insert("x-target", HeaderValue::from_static(target));
        response.headers_mut().insert("x-saw", saw.unwrap_or(HeaderValue::from_static("")));
        std::future::ready(Ok(response))
    });
    BalanceLayer::new(balancer.clone()).sessions(sessions.clone()).layer(upstream)
}

fn send<S>(service: &mut S, headers: HeaderMap) -> S::Response
where
    S: Service<Request<String>, Error = Infallible> + Clone,
{
    let mut request = Request::new(String::new());
    *request.headers_mut() = headers;
    let response = service.clone().oneshot(request);
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(response).poll(&mut cx) {
        std::task::Poll::Ready(response) => response.unwrap(),
        std::task::Poll::Pending => panic!("the upstream answers at once"),
    }
}
