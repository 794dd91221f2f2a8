//! RequestRedirect.

use std::{
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{HeaderValue, Request, Response, header, request::Parts};
use nantian_wasm::respond::LocalReply;
use percent_encoding::{CONTROLS, utf8_percent_encode};
use tower::{Layer, Service};

use super::rewrite::rewritten;
use crate::{body::Body, ir, listen::RequestInfo, respond};

/// Answers with a redirect, in place of a backend.
#[derive(Debug, Clone)]
pub(crate) struct RedirectLayer {
    redirect: Arc<ir::Redirect>,
}

/// The service of [`RedirectLayer`].
#[derive(Debug, Clone)]
pub(crate) struct RedirectService<S> {
    inner: S,
    redirect: Arc<ir::Redirect>,
}

// === impl RedirectLayer ===

impl RedirectLayer {
    /// The layer for the redirect among `filters`, if there is one.
    pub(crate) fn new(filters: &[ir::Filter]) -> Option<Self> {
        filters.iter().find_map(|filter| match filter {
            ir::Filter::Redirect(redirect) => Some(Self { redirect: Arc::new(redirect.clone()) }),
            _ => None,
        })
    }
}

impl<S> Layer<S> for RedirectLayer {
    type Service = RedirectService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RedirectService { inner, redirect: Arc::clone(&self.redirect) }
    }
}

// === impl RedirectService ===

impl<S> Service<Request<Body>> for RedirectService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<Ready<Result<Response<Body>, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        match parts.extensions.get::<RequestInfo>() {
            Some(info) => Either::Left(ready(Ok(redirect(&self.redirect, &parts, info)))),
            None => Either::Right(self.inner.call(Request::from_parts(parts, body))),
        }
    }
}

/// The answer to `request`: a redirect whose absent parts are those of the request.
///
/// The port follows Gateway API: the filter's, else the well-known one of its scheme, else the listener's; a
/// port that is the scheme's own is left out. Nobody knows the port of a proxy that ends TLS in front of the
/// listener, which is that of its scheme then.
fn redirect(redirect: &ir::Redirect, request: &Parts, info: &RequestInfo) -> Response<Body> {
    let tls = redirect.scheme.map_or(info.is_secure, |scheme| scheme == ir::RedirectScheme::Https);
    let (scheme, own_port) = if tls { ("https", 443) } else { ("http", 80) };
    let host = redirect.hostname.as_deref().unwrap_or(&info.host);
    if host.is_empty() {
        // No URI has an empty host (RFC 9110, section 4.2.1). Balancers that ask so, by HTTP/1.0, look at the
        // status alone.
        return respond::plain(redirect.status, "the request names no host to be redirected to");
    }
    let is_elsewhere = redirect.scheme.is_some() || info.is_secure != info.tls;
    let port = redirect.port.unwrap_or(if is_elsewhere { own_port } else { info.port });
    // The server as a whole has no path that could follow a host (RFC 9112, section 3.2.4).
    let asked = match request.uri.path() {
        "*" => "/",
        path => path,
    };
    let path = match &redirect.path {
        Some(rewrite) => rewritten(rewrite, asked),
        None => asked.to_owned(),
    };
    let mut location = format!("{scheme}://{host}");
    if port != own_port {
        location.push_str(&format!(":{port}"));
    }
    location.push_str(&path);
    if let Some(query) = request.uri.query() {
        location.push('?');
        location.push_str(query);
    }
    // A URI is ASCII (RFC 9110, section 10.2.2), and a query may have come that is not.
    let location = utf8_percent_encode(&location, CONTROLS).to_string();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = redirect.status;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response.extensions_mut().insert(LocalReply::new("direct_response", 0));
    response
}

#[cfg(test)]
mod tests {
    use http::{Request, StatusCode};

    use super::*;

    fn location(filter: &ir::Redirect, target: &str, tls: bool, port: u16) -> String {
        let answer = answer(filter, target, tls, port, "example.org");
        answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
    }

    fn answer(filter: &ir::Redirect, target: &str, tls: bool, port: u16, host: &str) -> Response<Body> {
        let (parts, ()) = Request::get(target).body(()).unwrap().into_parts();
        let info = RequestInfo {
            client: [127, 0, 0, 1].into(),
            peer: ([127, 0, 0, 1], 4000).into(),
            destination: ([127, 0, 0, 1], port).into(),
            connection: 1,
            tls,
            is_secure: tls,
            session: None,
            port,
            host: host.into(),
            upstream: None,
            filter_state: None,
        };
        redirect(filter, &parts, &info)
    }

    fn filter() -> ir::Redirect {
        ir::Redirect { scheme: None, hostname: None, path: None, port: None, status: StatusCode::FOUND }
    }

    #[test]
    fn what_is_absent_is_that_of_the_request() {
        assert_eq!(location(&filter(), "/a?b=c", false, 80), "http://example.org/a?b=c");
        assert_eq!(location(&filter(), "/a", false, 8080), "http://example.org:8080/a");
        assert_eq!(location(&filter(), "/a", true, 443), "https://example.org/a");
    }

    #[test]
    fn who_asks_about_the_server_as_a_whole_is_sent_to_a_uri() {
        assert_eq!(location(&filter(), "*", false, 80), "http://example.org/");
    }

    #[test]
    fn what_is_not_ascii_is_sent_in_escapes() {
        assert_eq!(
            location(&filter(), "/%c3%a9?q=\u{e9}%20\u{20ac}", false, 80),
            "http://example.org/%c3%a9?q=%C3%A9%20%E2%82%AC"
        );
    }

    #[test]
    fn the_port_follows_the_scheme_unless_it_is_given() {
        let https = ir::Redirect { scheme: Some(ir::RedirectScheme::Https), ..filter() };
        assert_eq!(location(&https, "/", false, 8080), "https://example.org/");
        let port = ir::Redirect { port: Some(8443), ..https };
        assert_eq!(location(&port, "/", false, 80), "https://example.org:8443/");
        let plain = ir::Redirect { port: Some(80), ..filter() };
        assert_eq!(location(&plain, "/", false, 8080), "http://example.org/");
    }

    #[test]
    fn nobody_is_sent_to_a_host_without_a_name() {
        let https = ir::Redirect { scheme: Some(ir::RedirectScheme::Https), ..filter() };
        let refused = answer(&https, "/x", false, 80, "");
        assert_eq!(refused.status(), StatusCode::FOUND);
        assert!(!refused.headers().contains_key(header::LOCATION));
        let named = ir::Redirect { hostname: Some("other.org".to_owned()), ..https };
        let sent = answer(&named, "/x", false, 80, "");
        assert_eq!(sent.headers()[header::LOCATION], "https://other.org/x");
    }

    #[test]
    fn host_and_path_are_replaced() {
        let path = ir::PathRewrite::Prefix { matched: "/old".to_owned(), replacement: "/new".to_owned() };
        let path = Some(path);
        let filter = ir::Redirect { hostname: Some("other.org".to_owned()), path, ..filter() };
        assert_eq!(location(&filter, "/old/x?y", false, 80), "http://other.org/new/x?y");
    }
}
