use http::{HeaderValue, Request};

use super::*;

#[test]
fn the_query_stays_as_it_is() {
    let mut uri: Uri = "/a/../b%2dc?q=%2e%2e/%zz".parse().unwrap();
    path(&mut uri, Version::HTTP_11).unwrap();
    assert_eq!(uri, "/b-c?q=%2e%2e/%zz");
}

#[test]
fn a_path_that_is_no_ascii_is_spelled_as_it_should_have_been() {
    let mut uri: Uri = "/caf\u{e9}/admin?\u{e9}".parse().unwrap();
    path(&mut uri, Version::HTTP_11).unwrap();
    assert_eq!(uri, "/caf%C3%A9/admin?\u{e9}");
}

#[test]
fn a_target_without_a_path_gets_one_or_is_refused() {
    let mut uri: Uri = "http://example.org?x=1".parse().unwrap();
    path(&mut uri, Version::HTTP_11).unwrap();
    assert_eq!(uri.path_and_query().unwrap().as_str(), "/?x=1");
    for (target, expected) in [
        ("/?x=1", Ok(())),
        ("*", Ok(())),
        ("?x=1", Err(InvalidTarget::NoPath)),
        ("?", Err(InvalidTarget::NoPath)),
    ] {
        let uri = Uri::builder().scheme("http").authority("example.org").path_and_query(target);
        let mut uri = uri.build().unwrap();
        assert_eq!(path(&mut uri, Version::HTTP_2), expected, "{target}");
    }
}

fn host_of(target: &str, hosts: &[&str]) -> Result<String, InvalidTarget> {
    let mut request = Request::get(target);
    for value in hosts {
        request = request.header(header::HOST, HeaderValue::from_str(value).unwrap());
    }
    let request = request.body(()).unwrap();
    one_host(request.headers(), Version::HTTP_11)?;
    host(request.uri(), request.headers(), true).map(Cow::into_owned)
}

#[test]
fn a_host_has_one_spelling() {
    let cases = [
        ("/", "Example.COM", "example.com"),
        ("/", "example.com:8080", "example.com"),
        ("/", "example.com.", "example.com"),
        ("/", "[::1]:80", "[::1]"),
        ("/", "127.0.0.1:80", "127.0.0.1"),
        ("http://a.example/", "b.example", "a.example"),
    ];
    for (target, value, expected) in cases {
        assert_eq!(host_of(target, &[value]).as_deref(), Ok(expected), "{target} {value}");
    }
}

#[test]
fn a_host_that_could_mean_two_things_is_refused() {
    for target in ["/", "http://a.example/"] {
        assert_eq!(host_of(target, &[]), Err(InvalidTarget::NoHost), "{target}");
    }
    assert_eq!(host_of("/", &["a", "b"]), Err(InvalidTarget::ManyHosts));
    let long = "a.".repeat(200);
    for value in [
        long.as_str(),
        "",
        ":80",
        "a%41",
        "a b",
        "user@a",
        "a/b",
        "a:80:80",
        "[::1",
        "[::1]x",
        "a:8a",
        "a]",
        "a[b",
        "a[b]c",
    ] {
        assert_eq!(host_of("/", &[value]), Err(InvalidTarget::Host), "{value}");
    }
}
