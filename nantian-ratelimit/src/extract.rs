//! Whose request it is: the values of a scope's parts, taken from the request.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::request::Parts;

use crate::error::MissingPart;
use crate::key::Key;
use crate::limiter::Limiter;
use crate::policy::{MissingKey, Policy};
use crate::scope::ScopePart;

/// Tells the value of a scope's part for a request.
pub trait KeyExtractor: Send + Sync {
    /// The value of `part`; `None` if the request has none, in which case it shares a bucket with all that have none.
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>>;
}

/// What is known of a request beyond its headers.
///
/// It is the default [`KeyExtractor`], with the values that all requests of a layer have, and it is a request extension
/// that says what is different for one request:
///
/// | part | value |
/// |---|---|
/// | `route` `gateway` `user` `model` | that of the extension, else that of the layer |
/// | `ip` | the extension's client address; an IPv6 address counts by its /64 network, a mapped IPv4 address as IPv4 |
/// | `apiKey` | the bearer token or other credentials of `Authorization`, else `x-api-key`, `api-key`, `x-goog-api-key`, else `key` of the query |
/// | `header:<name>` | all values of the header, in order |
///
/// An API key is taken as sent: authenticate before limiting, or clients choose their buckets. Where one header is checked and others
/// are passed over, count by that one (`header:x-api-key`), or a client adds an `Authorization` of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScopeValues {
    /// The gateway or listener.
    pub gateway: Option<Arc<str>>,
    /// The route.
    pub route: Option<Arc<str>>,
    /// The authenticated user.
    pub user: Option<Arc<str>>,
    /// The model asked for.
    pub model: Option<Arc<str>>,
    /// The client's address: that of the connection, or what a trusted proxy says.
    pub client: Option<IpAddr>,
}

const API_KEY_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("api-key"),
    HeaderName::from_static("x-goog-api-key"),
];

// === impl Limiter ===

impl Limiter {
    /// The key of a request: what `keys` tells of the parts of the policy's scope.
    ///
    /// `None` if the request lacks a part and is not counted then: see [`MissingKey::Skip`].
    ///
    /// # Errors
    ///
    /// [`MissingPart`] if it lacks a part and is refused then: see [`MissingKey::Reject`].
    pub fn key_of(&self, keys: &impl KeyExtractor, request: &Parts) -> Result<Option<Key>, MissingPart> {
        let policy = self.policy();
        if let Some(part) = policy.missing_part(keys, request) {
            return match policy.missing_key() {
                MissingKey::Reject => Err(MissingPart { part: part.clone() }),
                _ => Ok(None),
            };
        }
        let mut hasher = self.hasher();
        for part in policy.scope().parts() {
            hasher.part(part, keys.value(part, request).as_deref());
        }
        Ok(Some(hasher.finish()))
    }
}

// === impl Policy ===

impl Policy {
    /// The first part of the scope that a request lacks, unless all that lack one share a bucket.
    pub(crate) fn missing_part(
        &self,
        keys: &(impl KeyExtractor + ?Sized),
        request: &Parts,
    ) -> Option<&ScopePart> {
        if self.missing_key() == MissingKey::Share {
            return None;
        }
        self.scope().parts().iter().find(|part| keys.value(part, request).is_none())
    }
}

// === impl ScopeValues ===

impl ScopeValues {
    /// No values.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the gateway.
    #[must_use]
    pub fn with_gateway(mut self, gateway: impl Into<Arc<str>>) -> Self {
        self.gateway = Some(gateway.into());
        self
    }

    /// Sets the route.
    #[must_use]
    pub fn with_route(mut self, route: impl Into<Arc<str>>) -> Self {
        self.route = Some(route.into());
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn with_user(mut self, user: impl Into<Arc<str>>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Sets the model.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<Arc<str>>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets the client's address.
    #[must_use]
    pub fn with_client(mut self, client: IpAddr) -> Self {
        self.client = Some(client);
        self
    }
}

impl KeyExtractor for ScopeValues {
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>> {
        let own = request.extensions.get::<Self>();
        let text = |field: fn(&Self) -> Option<&Arc<str>>| {
            let value = own.and_then(field).or_else(|| field(self))?;
            Some(Cow::Borrowed(value.as_bytes()))
        };
        match part {
            ScopePart::Global => Some(Cow::Borrowed(b"")),
            ScopePart::Gateway => text(|values| values.gateway.as_ref()),
            ScopePart::Route => text(|values| values.route.as_ref()),
            ScopePart::User => text(|values| values.user.as_ref()),
            ScopePart::Model => text(|values| values.model.as_ref()),
            ScopePart::ApiKey => {
                let key = api_key(&request.headers).or_else(|| query_key(request.uri.query()?));
                key.map(Cow::Borrowed)
            }
            ScopePart::Ip => {
                let client = own.and_then(|values| values.client).or(self.client)?;
                Some(Cow::Owned(network(client)))
            }
            ScopePart::Header(name) => header(&request.headers, name),
        }
    }
}

/// The credential of a request, without its scheme if that is `Bearer`.
fn api_key(headers: &HeaderMap) -> Option<&[u8]> {
    const BEARER: &[u8] = b"bearer ";
    if let Some(authorization) = headers.get(AUTHORIZATION) {
        let value = authorization.as_bytes();
        return Some(match value.split_at_checked(BEARER.len()) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(BEARER) => token.trim_ascii(),
            _ => value,
        });
    }
    let value = API_KEY_HEADERS.iter().find_map(|name| headers.get(name));
    value.map(|value| value.as_bytes())
}

/// The key in a query, where clients of Gemini put it.
fn query_key(query: &str) -> Option<&[u8]> {
    query.split('&').find_map(|member| member.strip_prefix("key=")).map(str::as_bytes)
}

/// All values of a header, joined by a byte that no value can hold.
fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, [u8]>> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.as_bytes();
    let mut rest = values.peekable();
    if rest.peek().is_none() {
        return Some(Cow::Borrowed(first));
    }
    let mut joined = first.to_vec();
    for value in rest {
        joined.extend_from_slice(b"\n");
        joined.extend_from_slice(value.as_bytes());
    }
    Some(Cow::Owned(joined))
}

/// The network that counts as one client.
fn network(client: IpAddr) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            Ipv6Addr::from(network).octets().to_vec()
        }
    }
}
