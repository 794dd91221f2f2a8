//! The fields of draft-ietf-httpapi-ratelimit-headers-11, read as any client may: as lists of RFC 9651.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::body::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use nantian_ratelimit::{
    EstimatedTokens, Limit, LimitName, RateLimitLayer, ReservationHandle, Settlement, Unit,
};
use sfv::{BareItem, List, ListEntry, Parser};
use tower::{Layer, ServiceExt, service_fn};

use crate::admit::limiter;

/// Each member of a list of strings: its string, and its parameters.
fn members(headers: &HeaderMap, name: &str) -> Vec<(String, BTreeMap<String, BareItem>)> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap());
    let field = lines.collect::<Vec<_>>().join(", ");
    let list: List = Parser::new(&field).parse().unwrap_or_else(|error| panic!("{field}: {error}"));
    let members = list.into_iter().map(|member| {
        let ListEntry::Item(item) = member else { panic!("{field}: an inner list") };
        let string = item.bare_item.as_string().unwrap_or_else(|| panic!("{field}: no string"));
        let parameters = item.params.into_iter().map(|(key, value)| (key.as_str().to_owned(), value));
        (string.as_str().to_owned(), parameters.collect())
    });
    members.collect()
}

fn integer(parameters: &BTreeMap<String, BareItem>, name: &str) -> Option<i64> {
    parameters.get(name).map(|value| i64::from(value.as_integer().unwrap_or_else(|| panic!("{name}"))))
}

/// Checks what the draft demands of the fields of a response; returns the names of the policies.
fn check(headers: &HeaderMap) -> Vec<String> {
    let policies = members(headers, "ratelimit-policy");
    for (name, parameters) in &policies {
        assert!(integer(parameters, "q").unwrap() >= 0, "{name}");
        assert!(integer(parameters, "w").unwrap() > 0, "{name}");
        let unit = parameters.get("qu").map(|unit| unit.as_string().unwrap().as_str());
        assert_eq!(unit, name.contains("token").then_some("tokens"), "{name}: requests are the default");
        assert!(parameters.keys().all(|key| matches!(&**key, "q" | "qu" | "w")), "{parameters:?}");
    }
    let wait = headers.get("retry-after").map(|wait| wait.to_str().unwrap().parse::<i64>().unwrap());
    let states = members(headers, "ratelimit");
    for (name, parameters) in &states {
        assert!(integer(parameters, "r").unwrap() >= 0, "{name}");
        let window = integer(parameters, "t");
        assert!(window.is_none_or(|window| window >= 0), "{name}");
        assert!(wait.is_none_or(|wait| window <= Some(wait)), "{name}: Retry-After is the later one");
        assert!(parameters.keys().all(|key| matches!(&**key, "r" | "t")), "{parameters:?}");
    }
    let [policies, states] = [policies, states].map(|members| {
        let mut names: Vec<_> = members.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        names
    });
    assert_eq!(policies, states, "each policy has a state");
    policies
}

/// Uses up what it is told by the path.
async fn spend(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
    let used = request.uri().path().trim_start_matches('/').parse().unwrap();
    if let Some(reservation) = request.extensions().get::<ReservationHandle>() {
        reservation.settle(Settlement::Used(used));
    }
    Ok(Response::new(Full::default()))
}

#[tokio::test]
async fn every_response_has_lists_that_any_client_can_read() {
    let longest = LimitName::new("n".repeat(LimitName::MAX_LEN)).unwrap();
    let largest = Limit::MAX_WINDOW.as_secs() * 1_000_000_000;
    for limits in [
        vec![Limit::requests_per_second(1)],
        vec![Limit::requests_per_minute(0)],
        vec![Limit::tokens_per_day(5).with_burst(1.5), Limit::requests_per_minute(7)],
        vec![Limit::requests_per_minute(3).with_name("demo.web-1.requests_per.minute".parse().unwrap())],
        vec![Limit::new(longest, Unit::Requests, largest, Limit::MAX_WINDOW).with_burst(1000.0)],
        vec![Limit::new("tokens".parse().unwrap(), Unit::Tokens, 9, Duration::from_millis(1001))],
    ] {
        let outer = Limit::requests_per_hour(100).with_name("outer".parse().unwrap());
        let inner = RateLimitLayer::new(limiter(limits.clone())).layer(service_fn(spend));
        let service = RateLimitLayer::new(limiter([outer])).layer(inner);
        let mut statuses = Vec::new();
        for used in [2, 90, 1, 1] {
            let request = Request::builder().uri(format!("/{used}")).extension(EstimatedTokens(1));
            let response = service.clone().oneshot(request.body(()).unwrap()).await.unwrap();
            let names = check(response.headers());
            let outer = usize::from(response.status().is_success());
            assert_eq!(names.len(), limits.len() + outer, "{names:?}");
            statuses.push(response.status().as_u16());
        }
        assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    }
}
