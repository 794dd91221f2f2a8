//! What clients are told about limits.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use nantian_ratelimit::{
    Cost, EstimatedTokens, Limit, Limiter, OnLimit, Policy, RateLimitLayer, ScopeValues, Settlement,
    clock::ManualClock,
};
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::admit::policy;

fn limiter(clock: &ManualClock, limits: impl IntoIterator<Item = Limit>) -> Limiter {
    Limiter::builder(policy(limits)).clock(clock.clone()).build()
}

fn ok(_: Request<()>) -> Ready<Result<Response<Full<Bytes>>, Infallible>> {
    let response = Response::builder()
        .header("x-ratelimit-remaining-tokens", "7")
        .header("ratelimit", "\"upstream\";r=1")
        .header("x-ratelimit-remaining-tokens-day", "7")
        .header("ratelimit-reset", "7")
        .header("x-ratelimitbysize-remaining-minute", "7")
        .header("x-rate-limit-remaining", "7")
        .header("anthropic-ratelimit-input-tokens-remaining", "7")
        .header("anthropic-priority-input-tokens-remaining", "7")
        .header("anthropic-fast-output-tokens-remaining", "7")
        .header("x-other", "kept");
    ready(Ok(response.body(Full::default()).unwrap()))
}

async fn answer<S, B>(service: S, tokens: u64) -> HeaderMap
where
    S: Service<Request<()>, Response = Response<B>, Error = Infallible>,
{
    let request = Request::builder().extension(EstimatedTokens(tokens)).body(()).unwrap();
    service.oneshot(request).await.unwrap().headers().clone()
}

fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn an_admitted_caller_learns_where_every_limit_stands_tightest_first() {
    let clock = ManualClock::new();
    let limits =
        [Limit::requests_per_minute(60), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(6000)];
    let service = RateLimitLayer::new(limiter(&clock, limits)).layer(service_fn(ok));
    let headers = answer(service, 300).await;
    assert_eq!(
        all(&headers, "ratelimit"),
        [concat!(
            r#""tokens-per-minute";r=700;t=1, "requests-per-minute";r=59;t=1, "#,
            r#""tokens-per-hour";r=5700;t=1"#
        )]
    );
    assert_eq!(
        all(&headers, "ratelimit-policy"),
        [concat!(
            r#""requests-per-minute";q=60;w=60, "tokens-per-minute";q=1000;qu="tokens";w=60, "#,
            r#""tokens-per-hour";q=6000;qu="tokens";w=3600"#
        )]
    );
    let openai = [
        ("x-ratelimit-limit-requests", "60"),
        ("x-ratelimit-remaining-requests", "59"),
        ("x-ratelimit-reset-requests", "1s"),
        ("x-ratelimit-limit-tokens", "1000"),
        ("x-ratelimit-remaining-tokens", "700"),
        ("x-ratelimit-reset-tokens", "18s"),
    ];
    for (name, value) in openai {
        assert_eq!(all(&headers, name), [value], "{name}");
    }
    assert_eq!(all(&headers, "x-other"), ["kept"]);
    assert_eq!(headers.len(), 3 + openai.len(), "nothing is left of what the upstream says: {headers:?}");
    assert!(!headers.contains_key("retry-after"));
}

#[tokio::test]
async fn a_refused_caller_learns_when_to_come_back_and_no_reset_beyond() {
    let clock = ManualClock::new();
    let limits = [Limit::requests_per_minute(10), Limit::tokens_per_hour(100)];
    let service = RateLimitLayer::new(limiter(&clock, limits)).layer(service_fn(ok));
    answer(service.clone(), 100).await;
    clock.advance(Duration::from_millis(100));
    let headers = answer(service, 10).await;
    let expected = [
        ("retry-after", "360"),
        ("retry-after-ms", "359900"),
        ("x-should-retry", "false"),
        ("cache-control", "no-store"),
        ("ratelimit", r#""tokens-per-hour";r=0;t=360, "requests-per-minute";r=9;t=6"#),
        ("x-ratelimit-reset-tokens", "1h0m0s"),
        ("x-ratelimit-reset-requests", "6s"),
    ];
    for (name, value) in expected {
        assert_eq!(all(&headers, name), [value], "{name}");
    }
}

#[tokio::test]
async fn retry_after_is_at_least_a_second_and_rounded_up() {
    let clock = ManualClock::new();
    let limiter = limiter(&clock, [Limit::requests_per_minute(600)]);
    let service = RateLimitLayer::new(limiter).layer(service_fn(ok));
    for _ in 0..600 {
        answer(service.clone(), 0).await;
    }
    let headers = answer(service, 0).await;
    assert_eq!(all(&headers, "retry-after"), ["1"]);
    assert_eq!(all(&headers, "retry-after-ms"), ["100"]);
}

/// Clients wait as long as they are told without a way to stop them, or ask again at once.
#[tokio::test]
async fn a_wait_that_no_client_sits_out_is_for_whoever_asked_it() {
    let name = nantian_ratelimit::LimitName::new("slow").unwrap();
    let every = |seconds| {
        Limit::new(name.clone(), nantian_ratelimit::Unit::Requests, 1, Duration::from_secs(seconds))
    };
    for (limit, retried) in [(every(60), true), (every(120), true), (every(121), false)] {
        let service = RateLimitLayer::new(limiter(&ManualClock::new(), [limit])).layer(service_fn(ok));
        while !answer(service.clone(), 0).await.contains_key("retry-after") {}
        let headers = answer(service, 0).await;
        assert_eq!(headers.contains_key("x-should-retry"), !retried, "{headers:?}");
    }
}

#[tokio::test]
async fn an_admitted_caller_learns_when_more_is_to_be_had() {
    let clock = ManualClock::new();
    let service = RateLimitLayer::new(limiter(&clock, [Limit::requests_per_minute(4)])).layer(service_fn(ok));
    for (later, told) in [(0, "r=3;t=15"), (6, "r=2;t=9"), (0, "r=1;t=9"), (0, "r=0;t=9"), (9, "r=0;t=15")] {
        clock.advance(Duration::from_secs(later));
        let headers = answer(service.clone(), 0).await;
        assert_eq!(all(&headers, "ratelimit"), [format!("\"requests-per-minute\";{told}")]);
    }
    let limiter = limiter(&clock, [Limit::tokens_per_minute(60)]);
    let key = limiter.key_of(&ScopeValues::new(), &Request::new(()).into_parts().0).unwrap().unwrap();
    let reservation = limiter.admit(key, Cost::tokens(10)).unwrap().reserve();
    reservation.settle(Settlement::Used(90));
    let headers = answer(RateLimitLayer::new(limiter).layer(service_fn(ok)), 0).await;
    assert_eq!(all(&headers, "ratelimit"), [r#""tokens-per-minute";r=0;t=31"#], "what is owed comes first");
}

#[tokio::test]
async fn a_limit_of_zero_tells_no_time_to_come_back() {
    let before = limiter(&ManualClock::new(), [Limit::requests_per_minute(2)]);
    answer(RateLimitLayer::new(before.clone()).layer(service_fn(ok)), 0).await;
    let policy = Policy::builder().limit(Limit::requests_per_minute(0)).build().unwrap();
    let lowered = before.successor(policy);
    for limiter in [limiter(&ManualClock::new(), [Limit::requests_per_minute(0)]), lowered] {
        let service = RateLimitLayer::new(limiter).layer(service_fn(ok));
        let headers = answer(service, 0).await;
        assert_eq!(all(&headers, "ratelimit"), [r#""requests-per-minute";r=0"#]);
        assert_eq!(all(&headers, "x-ratelimit-remaining-requests"), ["0"]);
        for name in ["retry-after", "x-ratelimit-reset-requests"] {
            assert!(!headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn of_a_limit_of_zero_and_others_it_is_the_tightest() {
    let limits = [Limit::tokens_per_minute(1000), Limit::requests_per_minute(9), Limit::tokens_per_hour(0)];
    let service = RateLimitLayer::new(limiter(&ManualClock::new(), limits)).layer(service_fn(ok));
    let headers = answer(service, 5).await;
    assert!(all(&headers, "ratelimit")[0].starts_with(r#""tokens-per-hour";r=0, "#), "{headers:?}");
    assert_eq!(all(&headers, "x-ratelimit-limit-tokens"), ["0"]);
    assert_eq!(all(&headers, "x-ratelimit-remaining-tokens"), ["0"]);
}

#[tokio::test]
async fn limiters_around_one_another_tell_all_their_limits_and_the_least_that_is_left() {
    let clock = ManualClock::new();
    let outer = limiter(&clock, [Limit::requests_per_minute(60), Limit::tokens_per_minute(400)]);
    let inner = limiter(&clock, [Limit::requests_per_minute(6), Limit::tokens_per_hour(4000)]);
    let service = RateLimitLayer::new(outer).layer(RateLimitLayer::new(inner).layer(service_fn(ok)));
    let headers = answer(service, 100).await;
    assert_eq!(
        all(&headers, "ratelimit"),
        [
            r#""requests-per-minute";r=5;t=10, "tokens-per-hour";r=3900;t=1"#,
            r#""tokens-per-minute";r=300;t=1, "requests-per-minute";r=59;t=1"#,
        ]
    );
    assert_eq!(all(&headers, "ratelimit-policy").len(), 2);
    assert_eq!(all(&headers, "x-ratelimit-remaining-requests"), ["5"]);
    assert_eq!(all(&headers, "x-ratelimit-remaining-tokens"), ["300"]);
    assert_eq!(all(&headers, "x-ratelimit-limit-tokens"), ["400"]);
}

#[tokio::test]
async fn clients_of_anthropic_are_told_in_its_fields_too() {
    let clock = ManualClock::new();
    let limits =
        [Limit::requests_per_minute(60), Limit::tokens_per_minute(1000), Limit::tokens_per_hour(1500)];
    let service = RateLimitLayer::new(limiter(&clock, limits)).layer(service_fn(ok));
    let ask = async || {
        let request = Request::builder().header("anthropic-version", "2023-06-01");
        let request = request.extension(EstimatedTokens(900)).body(()).unwrap();
        let response = service.clone().oneshot(request).await.unwrap();
        (response.status().as_u16(), response.headers().clone())
    };
    for (status, requests) in [(200, "59"), (429, "59")] {
        let (answered, headers) = ask().await;
        assert_eq!(answered, status);
        let told = [
            ("anthropic-ratelimit-requests-limit", "60"),
            ("anthropic-ratelimit-requests-remaining", requests),
            ("anthropic-ratelimit-tokens-limit", "1000"),
            ("anthropic-ratelimit-tokens-remaining", "100"),
        ];
        for (name, value) in told {
            assert_eq!(all(&headers, name), [value], "{name}");
        }
        assert!(all(&headers, "anthropic-ratelimit-input-tokens-remaining").is_empty(), "an upstream's");
    }
    let mut headers = HeaderMap::new();
    let limiter = limiter(&clock, [Limit::tokens_per_hour(60)]);
    let levels = limiter.admit(limiter.key(b"k"), Cost::tokens(1)).unwrap().levels();
    let new_year = SystemTime::UNIX_EPOCH + Duration::from_millis(1_735_689_599_001);
    levels.write_anthropic_fields(&mut headers, new_year);
    assert_eq!(all(&headers, "anthropic-ratelimit-tokens-reset"), ["2025-01-01T00:01:00Z"]);
    assert!(!headers.contains_key("anthropic-ratelimit-requests-limit"));
}

#[tokio::test]
async fn a_short_reset_is_told_in_milliseconds() {
    let clock = ManualClock::new();
    let service = RateLimitLayer::new(limiter(&clock, [Limit::requests_per_minute(6000)]));
    let headers = answer(service.layer(service_fn(ok)), 0).await;
    assert_eq!(all(&headers, "x-ratelimit-reset-requests"), ["10ms"]);
}

#[tokio::test]
async fn where_limits_stand_that_only_warn_is_told_to_nobody() {
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).on_limit(OnLimit::Warn);
    let limiter = Limiter::builder(policy.build().unwrap()).clock(ManualClock::new()).build();
    let rehearsal = RateLimitLayer::new(limiter);
    let service = rehearsal.layer(service_fn(ok));
    for within in [true, false] {
        let headers = answer(service.clone(), 0).await;
        assert_eq!(all(&headers, "x-other"), ["kept"]);
        assert_eq!(headers.len(), 1, "nor is what the upstream says, {within}: {headers:?}");
    }
}

#[tokio::test]
async fn a_rehearsal_hides_nothing_of_limits_in_force_around_it_or_within() {
    let clock = ManualClock::new();
    let rehearsal = || {
        let policy = Policy::builder().limit(Limit::requests_per_minute(10)).on_limit(OnLimit::Warn);
        RateLimitLayer::new(Limiter::builder(policy.build().unwrap()).clock(clock.clone()).build())
    };
    let in_force = || RateLimitLayer::new(limiter(&clock, [Limit::requests_per_minute(60)]));
    let around = in_force().layer(rehearsal().layer(service_fn(ok)));
    let within = rehearsal().layer(in_force().layer(service_fn(ok)));
    for headers in [answer(around, 0).await, answer(within, 0).await] {
        assert_eq!(all(&headers, "ratelimit"), [r#""requests-per-minute";r=59;t=1"#]);
        assert_eq!(all(&headers, "x-ratelimit-remaining-requests"), ["59"]);
    }
}

#[tokio::test]
async fn a_layer_that_does_not_report_says_only_when_to_come_back() {
    let limiter = limiter(&ManualClock::new(), [Limit::requests_per_minute(1)]);
    let service = RateLimitLayer::new(limiter).report_levels(false).layer(service_fn(ok));
    let admitted = answer(service.clone(), 0).await;
    assert_eq!(all(&admitted, "ratelimit"), ["\"upstream\";r=1"], "an upstream's stay");
    assert!(!admitted.contains_key("ratelimit-policy"));
    let refused = answer(service, 0).await;
    let mut names: Vec<&str> = refused.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["cache-control", "content-type", "retry-after", "retry-after-ms"]);
}

/// What a proxy of callbacks does itself is what the layer does.
#[tokio::test]
async fn the_core_writes_the_fields_of_the_layer() {
    let clock = ManualClock::new();
    let policy = Policy::builder().limit(Limit::requests_per_minute(1)).scope("apiKey".parse().unwrap());
    let limiter = Limiter::builder(policy.build().unwrap()).clock(clock).build();
    let (request, ()) = Request::builder().header("x-api-key", "alice").body(()).unwrap().into_parts();
    let key = limiter.key_of(&ScopeValues::new(), &request).unwrap().unwrap();

    let mut by_core = HeaderMap::new();
    by_core.insert("ratelimit", "\"upstream\";r=1".parse().unwrap());
    let reservation = limiter.admit(key, Cost::REQUEST).unwrap().reserve();
    reservation.levels().write_fields(&mut by_core);
    reservation.cancel();

    let service = RateLimitLayer::new(limiter.clone()).layer(service_fn(ok));
    let admitted = service.clone().oneshot(Request::from_parts(request.clone(), ())).await.unwrap();
    for name in ["ratelimit", "ratelimit-policy", "x-ratelimit-remaining-requests"] {
        assert_eq!(all(&by_core, name), all(admitted.headers(), name), "{name}");
    }

    let mut by_core = HeaderMap::new();
    limiter.admit(key, Cost::REQUEST).unwrap_err().write_fields(&mut by_core);
    let refused = service.oneshot(Request::from_parts(request, ())).await.unwrap();
    for name in ["ratelimit", "ratelimit-policy", "retry-after", "retry-after-ms", "cache-control"] {
        assert_eq!(all(&by_core, name), all(refused.headers(), name), "{name}");
    }
}

#[tokio::test]
async fn no_number_has_more_digits_than_a_structured_field_may() {
    let clock = ManualClock::new();
    let per_second = 1_000_000_000;
    let name = || nantian_ratelimit::LimitName::new("a").unwrap();
    let longest = Limit::MAX_WINDOW;
    let most = per_second * longest.as_secs();
    for limit in [
        Limit::tokens_per_hour(3_600_000_000_000).with_burst(1000.0),
        Limit::new(name(), nantian_ratelimit::Unit::Tokens, most, longest),
    ] {
        let service = RateLimitLayer::new(limiter(&clock, [limit])).layer(service_fn(ok));
        let headers = answer(service, 1).await;
        for name in ["ratelimit", "ratelimit-policy"] {
            let field = all(&headers, name)[0].to_owned();
            let longest = field.split(|letter: char| !letter.is_ascii_digit()).map(str::len).max();
            assert!(longest.is_some_and(|digits| digits <= 15), "{field}");
        }
    }
}
