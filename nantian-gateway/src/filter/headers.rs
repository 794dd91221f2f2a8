//! RequestHeaderModifier and ResponseHeaderModifier.

use http::{HeaderMap, header};

use crate::{
    ir::HeaderModifier,
    listen::{Order, join_cookies},
};

impl HeaderModifier {
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
            if name == header::HOST {
                // There is one at most (RFC 9112, section 3.2).
                headers.insert(name, value.clone());
            } else {
                headers.append(name, value.clone());
            }
        }
        Order::Kept.remove(headers, |name| self.remove.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn pair(name: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
        (HeaderName::from_static(name), HeaderValue::from_static(value))
    }

    #[test]
    fn what_cgi_takes_for_a_header_that_is_set_or_removed_goes_with_it() {
        let changes = HeaderModifier {
            set: vec![pair("x-auth-user", "a"), pair("x_own", "b")],
            add: vec![pair("x-added", "c")],
            remove: vec![HeaderName::from_static("x-internal")],
        };
        let names = ["x_auth_user", "x-auth_user", "x_internal", "x-own", "x_added", "x_authuser"];
        let sent = names.map(|name| pair(name, "client"));
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
        let add = vec![pair("cookie", "b=2"), pair("x-b", "2")];
        let changes = HeaderModifier { add, ..HeaderModifier::default() };
        let mut request = HeaderMap::from_iter([pair("cookie", "a=1"), pair("x-b", "1")]);
        changes.apply_to_request(&mut request);
        let of = |name| request.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(of("cookie"), ["a=1; b=2"]);
        assert_eq!(of("x-b"), ["1", "2"]);
    }

    #[test]
    fn a_host_that_is_added_takes_the_place_of_the_one_there_is() {
        let changes = HeaderModifier { add: vec![pair("host", "b")], ..HeaderModifier::default() };
        let mut request = HeaderMap::from_iter([pair("host", "a")]);
        changes.apply_to_request(&mut request);
        assert_eq!(request.get_all(header::HOST).iter().collect::<Vec<_>>(), ["b"]);
    }
}
