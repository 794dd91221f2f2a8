//! Requests that come back.
//!
//! A route may lead back to the gateway, by mistake or on purpose: then a request takes a place among the
//! connections with each round, until no client finds one. So each that leaves names this process in
//! `CDN-Loop` (RFC 8586), and one that has been here often is refused. `Via` would tell as well, but nginx
//! and others compress nothing for who says it.

use std::sync::Arc;

use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Request};

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// How often a request may come by: a route may well lead to another one of the same gateway.
const MOST: usize = 3;

/// This process as a hop; its clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Hop {
    name: Arc<str>,
    value: HeaderValue,
}

/// Where a request has been before. In its extensions, where neither a filter nor a plugin gets at it.
#[derive(Debug, Clone)]
pub(crate) struct Hops(Vec<u8>);

/// A request that has been here too often. Maps to 508.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the route of this request leads back here")]
pub(crate) struct Loop;

impl Default for Hop {
    /// One that no other process is.
    fn default() -> Self {
        let name: Arc<str> = format!("nantian-{:016x}", fastrand::u64(..)).into();
        let value = HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static("nantian"));
        Self { name, value }
    }
}

impl Hop {
    /// Notes in `extensions` where a request with these headers has been.
    ///
    /// # Errors
    /// [`Loop`] if it has been here too often.
    pub(crate) fn note(&self, headers: &HeaderMap, extensions: &mut Extensions) -> Result<(), Loop> {
        let chain: Vec<_> = headers.get_all(CDN_LOOP).iter().map(HeaderValue::as_bytes).collect();
        let chain = chain.join(&b", "[..]);
        let passed = chain.split(|byte| *byte == b',').filter(|hop| self.is_named_by(hop)).count();
        extensions.insert(Hops(chain));
        if passed < MOST { Ok(()) } else { Err(Loop) }
    }

    /// Says in the headers of a request that leaves that it has been here.
    pub(crate) fn write<B>(&self, request: &mut Request<B>) {
        let value = match request.extensions().get::<Hops>() {
            None => self.value.clone(),
            Some(Hops(chain)) => {
                let chain = [chain.as_slice(), self.name.as_bytes()].join(&b", "[..]);
                HeaderValue::from_bytes(&chain).unwrap_or_else(|_| self.value.clone())
            }
        };
        request.headers_mut().insert(CDN_LOOP, value);
    }

    /// A hop may have parameters.
    fn is_named_by(&self, hop: &[u8]) -> bool {
        let name = hop.split(|byte| *byte == b';').next().unwrap_or_default();
        name.trim_ascii() == self.name.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes a request through `hop`, and what a filter does to its headers.
    fn round(hop: &Hop, request: Request<()>, filter: fn(&mut HeaderMap)) -> Result<Request<()>, Loop> {
        let (mut parts, ()) = request.into_parts();
        if parts.headers.contains_key(CDN_LOOP) {
            hop.note(&parts.headers, &mut parts.extensions)?;
        }
        filter(&mut parts.headers);
        let mut request = Request::from_parts(parts, ());
        hop.write(&mut request);
        request.extensions_mut().clear();
        Ok(request)
    }

    #[test]
    fn a_request_that_goes_round_is_refused_whatever_filters_remove() {
        let (hop, other) = (Hop::default(), Hop::default());
        for filter in [|_: &mut HeaderMap| {}, |headers: &mut HeaderMap| headers.clear()] {
            let mut request = Request::new(());
            request.headers_mut().insert(CDN_LOOP, HeaderValue::from_static("cloudflare; loops=1"));
            for _ in 0..MOST {
                request = round(&hop, request, filter).unwrap();
                request = round(&other, request, filter).unwrap();
            }
            let text = request.headers()[CDN_LOOP].to_str().unwrap();
            assert!(text.starts_with("cloudflare; loops=1, nantian-"), "{text}");
            assert_eq!(text.split(", ").count(), 1 + 2 * MOST);
            assert_eq!(round(&hop, request, filter).unwrap_err(), Loop);
        }
    }

    #[test]
    fn what_is_sent_again_has_left_once() {
        let hop = Hop::default();
        let mut request = Request::new(());
        hop.write(&mut request);
        let first = request.headers().clone();
        hop.write(&mut request);
        assert_eq!(*request.headers(), first);
    }
}
