//! The scope grammar, and who shares a bucket under it.

use std::net::IpAddr;

use http::Request;
use nantian_ratelimit::{InvalidScope, KeyExtractor, Scope, ScopePart, ScopeValues, client_address};
use proptest::prelude::*;

fn parse(text: &str) -> Result<Scope, InvalidScope> {
    text.parse()
}

fn value(part: &str, request: Request<()>) -> Option<Vec<u8>> {
    let part: ScopePart = part.parse().unwrap();
    let (parts, ()) = request.into_parts();
    ScopeValues::new().value(&part, &parts).map(|value| value.into_owned())
}

fn with_header(name: &str, value: &str) -> Request<()> {
    Request::builder().header(name, value).body(()).unwrap()
}

fn from_client(client: &str) -> Request<()> {
    let client: IpAddr = client.parse().unwrap();
    Request::builder().extension(ScopeValues::new().with_client(client)).body(()).unwrap()
}

#[test]
fn every_word_of_the_grammar_is_understood() {
    let text = "global+gateway+route+apiKey+user+ip+model+header:x-tenant";
    let scope = parse(text).unwrap();
    assert_eq!(scope.parts().len(), 8);
    assert_eq!(scope.to_string(), text);
}

#[test]
fn the_order_of_parts_does_not_matter() {
    assert_eq!(parse("header:b+model+header:A+apiKey"), parse("apiKey+header:a+header:B+model"));
}

#[test]
fn a_repeated_part_counts_once() {
    assert_eq!(parse("ip+model+ip"), parse("model+ip"));
    assert_eq!(parse("header:X-A+header:x-a"), parse("header:x-a"));
}

#[test]
fn whatever_is_not_in_the_grammar_is_refused_and_named() {
    let refusals = [
        ("", "scope \"\" has an empty part"),
        ("apiKey+", "scope \"apiKey+\" has an empty part"),
        (
            "apikey",
            "scope part \"apikey\" is none of route, global, gateway, model, apiKey, user, ip, header:<name>",
        ),
        ("header:", "scope part \"header:\" names no HTTP header"),
        ("header:a b", "scope part \"header:a b\" names no HTTP header"),
    ];
    for (text, reason) in refusals {
        assert_eq!(parse(text).unwrap_err().to_string(), reason);
    }
}

#[test]
fn an_api_key_is_the_credential_however_it_is_sent() {
    let key = Some(b"sk-1".to_vec());
    for (name, sent) in [
        ("authorization", "Bearer sk-1"),
        ("authorization", "bearer  sk-1"),
        ("x-api-key", "sk-1"),
        ("api-key", "sk-1"),
        ("x-goog-api-key", "sk-1"),
    ] {
        assert_eq!(value("apiKey", with_header(name, sent)), key, "{name}: {sent}");
    }
    assert_eq!(value("apiKey", Request::new(())), None);
    let asked = |uri: &str| value("apiKey", Request::builder().uri(uri).body(()).unwrap());
    for query in ["alt=sse&key=sk-1", "key=%73k%2d1", "k%65y=sk%2D1&alt"] {
        assert_eq!(asked(&format!("/v1beta/models/x:generateContent?{query}")), key, "{query}");
    }
    assert_eq!(asked("/?monkey=sk-1&keys"), None);
    assert_eq!(asked("/?key=100%&x=%2"), Some(b"100%".to_vec()));
}

#[test]
fn a_credential_has_one_value_however_it_is_spelled() {
    let sent = |text: &str| value("apiKey", with_header("authorization", text)).unwrap();
    for spelled in ["basic dTpw", "bASIC   dTpw", "BASIC dTpw "] {
        assert_eq!(sent(spelled), sent("Basic dTpw"), "{spelled}");
    }
    assert_eq!(sent("TOKEN  abc"), sent("token abc"));
    for other in ["Basic dTpx", "Token dTpw", "Bearer dTpw", "dTpw"] {
        assert_ne!(sent(other), sent("Basic dTpw"), "{other}");
    }
    // Some readers pass over odd letters, missing padding and bits that are left over.
    for loose in [
        "Basic dT*pw",
        "Basic dTpwOg",
        "Basic dTpwOh==",
        "Basic dTpwOmE",
        "Basic dTpwOmF=",
        "Basic dTp=w",
        "Basic =",
    ] {
        assert_eq!(sent(loose), sent("basic ?"), "{loose}");
    }
    for strict in ["Basic dTpwOg==", "Basic dTpwOmE="] {
        assert_ne!(sent(strict), sent("basic ?"), "{strict}");
    }
}

#[test]
fn several_keys_in_a_query_are_as_good_as_one_bucket() {
    let asked = |query: &str| value("apiKey", Request::builder().uri(format!("/?{query}")).body(()).unwrap());
    assert_eq!(asked("key=random-1&key=real"), asked("key=real&k%65y=random-2"));
    assert!(asked("key=random-1&key=real").is_some());
    assert_eq!(asked("key=real&key=real"), asked("key=a&key=b"));
}

#[test]
fn a_client_counts_by_its_address_or_its_network() {
    let same = [("192.0.2.1", "::ffff:192.0.2.1"), ("2001:db8::1", "2001:db8::ffff:1:2:3")];
    for (one, other) in same {
        assert_eq!(value("ip", from_client(one)), value("ip", from_client(other)));
    }
    let different = [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8:0:1::1")];
    for (one, other) in different {
        assert_ne!(value("ip", from_client(one)), value("ip", from_client(other)));
    }
    assert_eq!(value("ip", Request::new(())), None);
}

#[test]
fn the_client_is_the_last_hop_that_is_no_trusted_proxy() {
    let client = |peer: &str, chain: &[&str]| {
        let mut headers = http::HeaderMap::new();
        for part in chain {
            headers.append("x-forwarded-for", part.parse().unwrap());
        }
        let is_trusted = |address: IpAddr| matches!(address, IpAddr::V4(address) if address.is_private());
        client_address(peer.parse().unwrap(), &headers, is_trusted).to_string()
    };
    assert_eq!(client("192.0.2.1", &["203.0.113.1"]), "192.0.2.1", "who is no proxy is not believed");
    assert_eq!(client("10.0.0.1", &["6.6.6.6, 203.0.113.1", "10.0.0.2"]), "203.0.113.1");
    assert_eq!(client("::ffff:10.0.0.1", &["[2001:db8::1]:443"]), "2001:db8::1");
    assert_eq!(client("10.0.0.1", &["é, 203.0.113.1"]), "203.0.113.1", "in whatever a client begins with");
    assert_eq!(
        client("10.0.0.1", &["203.0.113.1, unknown, 10.0.0.2"]),
        "10.0.0.2",
        "nobody knows whom it serves"
    );
    assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
}

#[test]
fn what_a_request_says_overrides_what_its_layer_says() {
    let layer = ScopeValues::new().with_route("layer").with_gateway("layer");
    let own = ScopeValues::new().with_route("request");
    let (parts, ()) = Request::builder().extension(own).body(()).unwrap().into_parts();
    assert_eq!(layer.value(&ScopePart::Route, &parts).unwrap().as_ref(), b"request");
    assert_eq!(layer.value(&ScopePart::Gateway, &parts).unwrap().as_ref(), b"layer");
}

#[test]
fn all_values_of_a_header_count() {
    let one = Request::builder().header("x-t", "a").header("x-t", "b").body(()).unwrap();
    let other = with_header("x-t", "a, b");
    assert_ne!(value("header:x-t", one), value("header:x-t", other));
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same_scope(text in "[a-zA-Z:+ -]{0,40}") {
        if let Ok(scope) = parse(&text) {
            prop_assert_eq!(parse(&scope.to_string()), Ok(scope));
        }
    }

    #[test]
    fn different_parts_never_look_alike(
        a in prop::collection::vec(prop::option::of("[ab]{0,3}"), 0..4),
        b in prop::collection::vec(prop::option::of("[ab]{0,3}"), 0..4),
    ) {
        let limiter = crate::admit::limiter([nantian_ratelimit::Limit::requests_per_minute(1)]);
        let key = |parts: &[Option<String>]| {
            let mut hasher = limiter.hasher();
            for part in parts {
                hasher.value(part.as_ref().map(|part| part.as_bytes()));
            }
            hasher.finish()
        };
        prop_assert_eq!(key(&a) == key(&b), a == b);
    }
}
