//! Text that means something: durations, scopes, schemes of authentication, backoffs, secrets.

use std::time;

use nantian_crd::{
    AsWritten, AuthType, Backoff, Duration, InvalidDuration, KNOWN_PROVIDERS, Langfuse, NantianKind, Scope,
    ScopePart, crds,
};

#[test]
fn durations_of_the_gep_are_read_and_written_canonically() {
    let vectors = [
        ("0h", "0s"),
        ("0s", "0s"),
        ("00000ms", "0s"),
        ("0h0m0s0ms", "0s"),
        ("1h", "1h"),
        ("30m", "30m"),
        ("10s", "10s"),
        ("500ms", "500ms"),
        ("00042s", "42s"),
        ("2h30m", "2h30m"),
        ("90m", "1h30m"),
        ("150m", "2h30m"),
        ("7230s", "2h30s"),
        ("1h30m10s", "1h30m10s"),
        ("10s30m1h", "1h30m10s"),
        ("100ms200ms300ms", "600ms"),
        ("1h2h20m10m", "3h30m"),
        ("240h", "240h"),
        ("1000ms", "1s"),
        ("99999h59m59s999ms", "99999h59m59s999ms"),
    ];
    for (text, canonical) in vectors {
        let duration: Duration = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(duration.to_string(), canonical, "{text}");
    }
}

#[test]
fn what_the_gep_refuses_is_refused() {
    let vectors = [
        "",
        "1",
        "0",
        "1m1",
        "1d",
        "1h30m10s20ms50h",
        "999999h",
        "1.5h",
        "-15m",
        "+1s",
        "1us",
        "1ns",
        "5 s",
        " 5s",
        "5s ",
        "5S",
        "s",
        "ms",
        "h1",
        "1hm",
        "５s",
    ];
    for text in vectors {
        assert_eq!(text.parse::<Duration>(), Err(InvalidDuration::Malformed(text.to_owned())));
    }
    for text in ["99999h60m", "99999h99999h", "99999h59m59s1000ms"] {
        assert_eq!(text.parse::<Duration>(), Err(InvalidDuration::TooLong(text.to_owned())));
    }
}

#[test]
fn durations_come_from_spans_of_whole_milliseconds() {
    let duration = Duration::try_from(time::Duration::from_millis(90_500)).expect("it can be written");
    assert_eq!(duration.to_string(), "1m30s500ms");
    assert_eq!(time::Duration::from(duration).as_millis(), 90_500);
    assert!(matches!(
        Duration::try_from(time::Duration::from_micros(1)),
        Err(InvalidDuration::TooFine(span)) if span.as_micros() == 1
    ));
    assert!(matches!(Duration::try_from(time::Duration::MAX), Err(InvalidDuration::TooFine(_))));
    assert!(matches!(
        Duration::try_from(time::Duration::from_secs(u64::MAX)),
        Err(InvalidDuration::TooLong(_))
    ));
}

#[test]
fn what_a_user_wrote_is_kept() {
    let timeout: AsWritten<Duration> = serde_json::from_str("\"90m\"").expect("a duration");
    assert_eq!(serde_json::to_string(&timeout).expect("it is JSON"), "\"90m\"");
    assert_eq!(timeout.value().to_string(), "1h30m");
    let scope: AsWritten<Scope> = "user+header:X-Team".parse().expect("a scope");
    assert_eq!((scope.text(), scope.to_string().as_str()), ("user+header:X-Team", "user+header:X-Team"));
    let canonical: AsWritten<Scope> = scope.value().clone().into();
    assert_eq!(canonical.text(), "user+header:x-team");
}

#[test]
fn the_order_and_the_repetition_of_scope_parts_do_not_matter() {
    let one: Scope = "user+model+header:X-Team".parse().expect("a scope");
    let other: Scope = "header:x-team+model+user+model".parse().expect("a scope");
    assert_eq!(one, other);
    assert_eq!(one.parts(), [ScopePart::Model, ScopePart::User, ScopePart::Header("x-team".to_owned())]);
}

#[test]
fn an_unknown_scope_is_named() {
    let error = "user+tenant".parse::<Scope>().expect_err("tenant is no scope");
    assert_eq!(
        error.to_string(),
        "\"tenant\" is not one of route, global, gateway, model, apiKey, user, ip, header:NAME"
    );
}

#[test]
fn schemes_of_authentication_are_read_in_any_case() {
    for (text, scheme) in [
        ("bearer", AuthType::Bearer),
        ("Bearer", AuthType::Bearer),
        ("apiKey", AuthType::ApiKey),
        ("APIKEY", AuthType::ApiKey),
        ("api-key", AuthType::ApiKey),
        ("Basic", AuthType::Basic),
        ("NONE", AuthType::None),
    ] {
        assert_eq!(text.parse(), Ok(scheme));
    }
    assert_eq!(
        "oauth".parse::<AuthType>().expect_err("oauth is no scheme").to_string(),
        "\"oauth\" is not one of bearer, apiKey, basic, aws, azure, gcp, none"
    );
}

#[test]
fn backoff_is_a_pause_or_a_shape() {
    assert_eq!("500ms".parse(), Ok(Backoff::From("500ms".parse().expect("a duration"))));
    for (word, shape) in
        [("exponential", Backoff::Exponential), ("linear", Backoff::Linear), ("fixed", Backoff::Fixed)]
    {
        assert_eq!(word.parse(), Ok(shape));
        assert_eq!(shape.to_string(), word);
    }
    assert!("Linear".parse::<Backoff>().is_err());
}

#[test]
fn a_secret_key_is_not_shown() {
    let langfuse: Langfuse = serde_json::from_str(r#"{"secretKey":"sk-lf-1"}"#).expect("it can be read");
    assert!(!format!("{langfuse:?}").contains("sk-lf-1"), "{langfuse:?}");
    assert_eq!(langfuse.secret_key.as_ref().map(nantian_crd::SecretText::expose), Some("sk-lf-1"));
    assert_eq!(serde_json::to_string(&langfuse).expect("it is JSON"), r#"{"secretKey":"sk-lf-1"}"#);
}

#[test]
fn the_crd_and_the_code_know_the_same_providers() {
    let crd = serde_json::to_string(&crds()).expect("a CRD is JSON");
    let quoted =
        KNOWN_PROVIDERS.iter().map(|provider| format!("'{provider}'")).collect::<Vec<_>>().join(", ");
    assert!(crd.contains(&format!("self.provider.lowerAscii() in [{quoted}]")), "{quoted}");
    assert!(crd.contains(&format!("known: {}", KNOWN_PROVIDERS.join(", "))));
}

#[test]
fn a_kind_is_read_by_its_name() {
    for kind in NantianKind::ALL {
        assert_eq!(kind.to_string().parse(), Ok(kind));
    }
    let unknown = "Cache".parse::<NantianKind>().unwrap_err();
    let known = "AIService, TokenPolicy, WasmPlugin, BackendLBPolicy";
    assert_eq!(unknown.to_string(), format!(r#"unknown kind "Cache", known are {known}"#));
}
