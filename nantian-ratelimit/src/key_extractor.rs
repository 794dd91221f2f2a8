//! Whose request it is: the values of a scope's parts, taken from the request.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use http::header::{AUTHORIZATION, HeaderMap, HeaderName};
use http::request::Parts;

use crate::error::MissingPart;
use crate::key::{Key, KeyHasher};
use crate::limiter::Limiter;
use crate::policy::{MissingKey, Policy};
use crate::scope::ScopePart;

/// Tells the value of a scope's part for a request.
///
/// It is asked for every part of the scope; [`ScopeValues`] has an answer for those that one does not care
/// about. What the scope has no word for, such as a tenant, is told for a part that is near, as `user`; what
/// a header says needs no extractor (`header:x-tenant`).
///
/// ```
/// use std::borrow::Cow;
/// use http::request::Parts;
/// use nantian_ratelimit::{KeyExtractor, Limit, Limiter, Policy, RateLimitLayer, ScopePart, ScopeValues};
///
/// /// A request extension, of whoever checks tokens.
/// #[derive(Clone)]
/// struct Claims {
///     tenant: String,
/// }
///
/// struct ByTenant(ScopeValues);
///
/// impl KeyExtractor for ByTenant {
///     fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>> {
///         match part {
///             ScopePart::User => Some(Cow::Borrowed(request.extensions.get::<Claims>()?.tenant.as_bytes())),
///             part => self.0.value(part, request),
///         }
///     }
/// }
///
/// let policy = Policy::builder().limit(Limit::requests_per_second(10)).scope(ScopePart::User.into()).build()?;
/// let layer = RateLimitLayer::new(Limiter::new(policy)).key_extractor(ByTenant(ScopeValues::new()));
/// # Ok::<_, nantian_ratelimit::InvalidPolicy>(())
/// ```
pub trait KeyExtractor: Send + Sync {
    /// The value of `part`; `None` if the request has none: see [`MissingKey`].
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>>;
}

/// What is known of a request beyond its headers.
///
/// It is the default [`KeyExtractor`], with the values that all requests of a layer have, and it is a request
/// extension that says what is different for one request:
///
/// | part | value |
/// |---|---|
/// | `route` `gateway` `user` `model` | that of the extension, else that of the layer |
/// | `ip` | the extension's client address, unless the layer finds it ([`client_ip`](crate::RateLimitLayer::client_ip)); without either all share one bucket; an IPv6 address counts by its /64 network, a mapped IPv4 address as IPv4 |
/// | `apiKey` | the bearer token or other credentials of `Authorization`, else `x-api-key`, `api-key`, `x-goog-api-key`, else the only `key` of the query |
/// | `header:<name>` | all values of the header, in order |
///
/// An API key is not checked: authenticate before limiting, or clients choose their buckets. One key has one
/// value however its scheme is spelled; Basic credentials that readers take differently count as one, and so
/// do several keys in a query. Credentials that are made anew for each request (Digest, signatures) are no
/// keys, and a token that is renewed every hour (OAuth, JWT) has a bucket that is new every hour: count by
/// something else, such as a header of whoever verifies them. Where one header is checked and others are
/// passed over, count by that one (`header:x-api-key`), or a client adds an `Authorization` of its own.
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
    pub fn key_of(
        &self,
        keys: &(impl KeyExtractor + ?Sized),
        request: &Parts,
    ) -> Result<Option<Key>, MissingPart> {
        let policy = self.policy();
        if !policy.counts_request(keys, request)? {
            return Ok(None);
        }
        let mut hasher = self.hasher();
        policy.write_key(keys, request, &mut hasher);
        Ok(Some(hasher.finish()))
    }
}

// === impl Policy ===

impl Policy {
    /// Whether a request is counted, as far as it has the parts of the scope.
    pub(crate) fn counts_request(
        &self,
        keys: &(impl KeyExtractor + ?Sized),
        request: &Parts,
    ) -> Result<bool, MissingPart> {
        if self.missing_key() == MissingKey::Share {
            return Ok(true);
        }
        let missing = self.scope().parts().iter().find(|part| keys.value(part, request).is_none());
        match (missing, self.missing_key()) {
            (Some(part), MissingKey::Reject) => Err(MissingPart { part: part.clone() }),
            (missing, _) => Ok(missing.is_none()),
        }
    }

    /// Adds the values of the scope's parts.
    pub(crate) fn write_key(
        &self,
        keys: &(impl KeyExtractor + ?Sized),
        request: &Parts,
        hasher: &mut KeyHasher,
    ) {
        for part in self.scope().parts() {
            hasher.part(part, keys.value(part, request).as_deref());
        }
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
            ScopePart::ApiKey => api_key(&request.headers).or_else(|| query_key(request.uri.query()?)),
            ScopePart::Ip => {
                let client = own.and_then(|values| values.client).or(self.client)?;
                Some(Cow::Owned(client_network(client, IPV6_PREFIX)))
            }
            ScopePart::Header(name) => header(&request.headers, name),
        }
    }
}

impl<K: KeyExtractor + ?Sized> KeyExtractor for Arc<K> {
    fn value<'a>(&'a self, part: &ScopePart, request: &'a Parts) -> Option<Cow<'a, [u8]>> {
        (**self).value(part, request)
    }
}

/// The credential of a request.
fn api_key(headers: &HeaderMap) -> Option<Cow<'_, [u8]>> {
    if let Some(authorization) = headers.get(AUTHORIZATION) {
        return Some(credential(authorization.as_bytes().trim_ascii()));
    }
    let value = API_KEY_HEADERS.iter().find_map(|name| headers.get(name));
    value.map(|value| Cow::Borrowed(value.as_bytes()))
}

/// The token of `Bearer`; of other schemes the one spelling of all that mean the same (RFC 9110, section
/// 11.4).
fn credential(written: &[u8]) -> Cow<'_, [u8]> {
    let Some(end) = written.iter().position(u8::is_ascii_whitespace) else { return Cow::Borrowed(written) };
    let (scheme, rest) = written.split_at(end);
    let rest = rest.trim_ascii();
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Cow::Borrowed(rest);
    }
    let mut one = scheme.to_ascii_lowercase();
    if one != b"basic" || is_strict_base64(rest) {
        one.push(b' ');
        one.extend_from_slice(rest);
    }
    Cow::Owned(one)
}

/// Whether base64 is written in the only way that every reader takes: some pass over other letters, missing
/// padding, or bits that are left over.
fn is_strict_base64(written: &[u8]) -> bool {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let padding = written.iter().rev().take_while(|byte| **byte == b'=').count();
    let left_over = match padding {
        0 => 0,
        1 => 0b11,
        2 => 0b1111,
        _ => return false,
    };
    let digits = written.iter().take(written.len() - padding);
    let mut values = digits.map(|byte| DIGITS.iter().position(|digit| digit == byte));
    let last = values.try_fold(0, |_, value| value);
    written.len().is_multiple_of(4) && last.is_some_and(|last| last & left_over == 0)
}

/// The key in a query, where clients of Gemini put it. Of several nobody knows which one counts: they are as
/// good as none of them.
fn query_key(query: &str) -> Option<Cow<'_, [u8]>> {
    let members = query.split('&').filter_map(|member| member.split_once('='));
    let mut keys = members.filter(|(name, _)| *decoded(name) == *b"key").map(|(_, key)| decoded(key));
    let key = keys.next()?;
    Some(if keys.next().is_none() { key } else { Cow::Borrowed(b"") })
}

/// A part of a query without its percent-encoding.
fn decoded(written: &str) -> Cow<'_, [u8]> {
    let mut rest = written.as_bytes();
    if !rest.contains(&b'%') {
        return Cow::Borrowed(rest);
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut plain = Vec::with_capacity(rest.len());
    while let Some((first, after)) = rest.split_first() {
        let code = match after {
            [high, low, ..] if *first == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        plain.push(code.map_or(*first, |(high, low)| high << 4 | low));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    Cow::Owned(plain)
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

/// The bits of an IPv6 address that count, unless a [`KeyExtractor`] has other ones: what most clients are
/// given at least.
pub(crate) const IPV6_PREFIX: u8 = 64;

/// The network that counts as one client, for a [`KeyExtractor`] that finds addresses itself: the whole
/// address, or so many of the first bits of one of IPv6. Sites are given 48 to 56 of them, and can have each
/// network of 64 below that for a client.
///
/// ```
/// use nantian_ratelimit::client_network;
///
/// let [one, other] = ["2001:db8:0:1200::1", "2001:db8:0:12ff::2"].map(|client| client.parse().unwrap());
/// assert_ne!(client_network(one, 64), client_network(other, 64));
/// assert_eq!(client_network(one, 56), client_network(other, 56));
/// ```
pub fn client_network(client: IpAddr, ipv6_prefix: u8) -> Vec<u8> {
    match client.to_canonical() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => {
            let rest = 128_u32.saturating_sub(ipv6_prefix.into());
            let network = u128::from(address) & u128::MAX.checked_shl(rest).unwrap_or_default();
            Ipv6Addr::from(network).octets().to_vec()
        }
    }
}
