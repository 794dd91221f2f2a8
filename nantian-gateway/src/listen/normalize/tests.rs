use http::{HeaderValue, Request};

use super::*;

fn path_of(target: &str) -> Result<String, InvalidTarget> {
    let mut uri: Uri = target.parse().unwrap();
    path(&mut uri)?;
    Ok(uri.to_string())
}

#[test]
fn a_path_has_one_spelling() {
    let cases = [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a//b", "/a/b"),
        ("//a", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/%61dmin", "/admin"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E/b", "/a/b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/a/..b/c", "/a/..b/c"),
        ("/a%2fb", "/a%2Fb"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a%20b?q=%2e%2e/%zz", "/a%20b?q=%2e%2e/%zz"),
        ("/a/../b?x=1", "/b?x=1"),
        ("/a%0d%0ab%09%7f", "/a%0D%0Ab%09%7F"),
    ];
    for (target, expected) in cases {
        assert_eq!(path_of(target).as_deref(), Ok(expected), "{target}");
    }
}

#[test]
fn a_path_that_could_mean_two_things_is_refused() {
    let cases = [
        ("/..", InvalidTarget::AboveRoot),
        ("/a/../../b", InvalidTarget::AboveRoot),
        ("/a/%2e%2e/%2e%2e/b", InvalidTarget::AboveRoot),
        ("/a/..%2fb", InvalidTarget::HiddenDots),
        ("/a/x%2f..%2fb", InvalidTarget::HiddenDots),
        ("/a/%2e%2e%5cb", InvalidTarget::HiddenDots),
        ("/a/..;/b", InvalidTarget::HiddenDots),
        ("/a/.;x=1/b", InvalidTarget::HiddenDots),
        ("/a\\b", InvalidTarget::Character),
        ("/a%00b", InvalidTarget::Character),
        ("/a%zz", InvalidTarget::Escape),
        ("/a%2", InvalidTarget::Escape),
        ("/a%+1", InvalidTarget::Escape),
    ];
    for (target, expected) in cases {
        assert_eq!(path_of(target), Err(expected), "{target}");
    }
}

#[test]
fn normalizing_twice_changes_nothing() {
    for target in ["/a//b/%41/../c%2fd/.", "/%7euser/%E2%82%AC", "/a/b/c/../../d//"] {
        let once = path_of(target).unwrap();
        assert_eq!(path_of(&once).as_deref(), Ok(once.as_str()));
    }
}

fn host_of(target: &str, hosts: &[&str]) -> Result<String, InvalidTarget> {
    let mut request = Request::get(target);
    for value in hosts {
        request = request.header(header::HOST, HeaderValue::from_str(value).unwrap());
    }
    let request = request.body(()).unwrap();
    one_host(request.headers())?;
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
    assert_eq!(host_of("/", &[]), Err(InvalidTarget::NoHost));
    assert_eq!(host_of("/", &["a", "b"]), Err(InvalidTarget::ManyHosts));
    let long = "a.".repeat(200);
    for value in
        [long.as_str(), "", ":80", "a%41", "a b", "user@a", "a/b", "a:80:80", "[::1", "[::1]x", "a:8a"]
    {
        assert_eq!(host_of("/", &[value]), Err(InvalidTarget::Host), "{value}");
    }
}
