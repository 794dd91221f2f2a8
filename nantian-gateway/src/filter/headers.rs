//! RequestHeaderModifier and ResponseHeaderModifier.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::{
    ir,
    listen::{Order, join_cookies},
};

/// A header name or value that HTTP does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no valid header, or its value is none")]
pub(crate) struct InvalidHeader(pub(crate) String);

/// Header changes, ready to be applied.
#[derive(Debug, Clone)]
pub(super) struct HeaderChanges {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderChanges {
    pub(super) fn new(modifier: &ir::HeaderModifier) -> Result<Self, InvalidHeader> {
        Ok(Self {
            set: pairs(&modifier.set)?,
            add: pairs(&modifier.add)?,
            remove: modifier.remove.iter().map(|name| header_name(name)).collect::<Result<_, _>>()?,
        })
    }

    /// Changes a request. Whatever it has in place of what is set or removed goes, too: CGI and its heirs do
    /// not tell `X_User` from `X-User`.
    pub(super) fn apply_to_request(&self, headers: &mut HeaderMap) {
        Order::Kept.remove(headers, |name| self.decides(name.as_str()));
        self.apply(headers);
        if self.add.iter().any(|(name, _)| name == header::COOKIE) {
            join_cookies(headers);
        }
    }

    /// Whether a name would be set or removed with `-` in place of its `_`.
    fn decides(&self, name: &str) -> bool {
        name.contains('_') && {
            let name = name.replace('_', "-");
            let mut decided = self.set.iter().map(|(name, _)| name).chain(&self.remove);
            decided.any(|decided| *decided == *name)
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        Order::Kept.remove(headers, |name| self.remove.contains(name));
    }
}

fn pairs(pairs: &[(String, String)]) -> Result<Vec<(HeaderName, HeaderValue)>, InvalidHeader> {
    let pair = |(name, value): &(String, String)| {
        // The value may be a credential.
        let value = HeaderValue::from_str(value).map_err(|_| InvalidHeader(name.clone()))?;
        Ok((header_name(name)?, value))
    };
    pairs.iter().map(pair).collect()
}

/// The framing of a message is not a filter's to change.
fn header_name(name: &str) -> Result<HeaderName, InvalidHeader> {
    HeaderName::from_bytes(name.as_bytes())
        .ok()
        .filter(|name| {
            !matches!(*name, header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::CONNECTION)
        })
        .ok_or_else(|| InvalidHeader(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cgi_takes_for_a_header_that_is_set_or_removed_goes_with_it() {
        let text = str::to_owned;
        let modifier = ir::HeaderModifier {
            set: vec![(text("x-auth-user"), text("a")), (text("x_own"), text("b"))],
            add: vec![(text("x-added"), text("c"))],
            remove: vec![text("x-internal")],
        };
        let changes = HeaderChanges::new(&modifier).unwrap();
        let names = ["x_auth_user", "x-auth_user", "x_internal", "x-own", "x_added", "x_authuser"];
        let sent = names.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("client")));
        let mut request = HeaderMap::from_iter(sent.clone());
        changes.apply_to_request(&mut request);
        let mut left: Vec<_> = request.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["x-added", "x-auth-user", "x-own", "x_added", "x_authuser", "x_own"]);

        let mut response = HeaderMap::from_iter(sent);
        changes.apply(&mut response);
        assert!(response.contains_key("x_internal"), "no CGI reads responses");
    }

    #[test]
    fn a_cookie_that_is_added_joins_those_of_the_client() {
        let add = vec![("cookie".to_owned(), "b=2".to_owned()), ("x-b".to_owned(), "2".to_owned())];
        let changes = HeaderChanges::new(&ir::HeaderModifier { add, ..ir::HeaderModifier::default() });
        let sent = [(header::COOKIE, "a=1"), (HeaderName::from_static("x-b"), "1")];
        let mut request: HeaderMap =
            sent.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
        changes.unwrap().apply_to_request(&mut request);
        let of = |name| request.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(of("cookie"), ["a=1; b=2"]);
        assert_eq!(of("x-b"), ["1", "2"]);
    }
}
