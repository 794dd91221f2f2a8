//! Which headers and parameters of a client reach the upstream, and which of the upstream the client.

use std::borrow::Cow;

use http::header::{
    ALT_SVC, CONNECTION, HeaderMap, HeaderName, HeaderValue, SET_COOKIE, STRICT_TRANSPORT_SECURITY,
};

use crate::dialect::{Dialect, Surface};
use crate::target::Target;

/// In which features are asked for by their names.
pub(crate) const ANTHROPIC_BETA: &str = "anthropic-beta";
pub(crate) const OPENAI_BETA: &str = "openai-beta";

/// What the names of features begin with by which other models may be named, which no provider is told.
const OF_OTHER_MODELS: [&str; 2] = ["fallback-credit-", "server-side-fallback-"];

/// Parameters of the operations that pass, encoded or not, in alphabetical order. All others end here:
/// clients put credentials under any name into a query, and those that a route knows are no business of the
/// provider.
const PARAMETERS: [&str; 15] = [
    "after",
    "after_id",
    "api-version",
    "before",
    "before_id",
    "beta",
    "include",
    "include%5B%5D",
    "include%5b%5d",
    "include[]",
    "include_obfuscation",
    "limit",
    "order",
    "starting_after",
    "stream",
];

/// In which providers name the account that is asked.
const ACCOUNTS: [&str; 4] =
    ["anthropic-organization-id", "anthropic-workspace-id", "openai-organization", "openai-project"];

/// What an upstream says about the answer in any dialect; its other headers are for its own clients.
const KEPT: [&str; 7] = [
    "content-language",
    "date",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "x-amzn-requestid",
    "x-request-id",
];

/// Removes what an upstream says about its own site and the operator's account, not about the answer.
pub(crate) fn clean_response(headers: &mut HeaderMap) {
    for name in [ALT_SVC, SET_COOKIE, STRICT_TRANSPORT_SECURITY] {
        headers.remove(name);
    }
    for name in ACCOUNTS {
        headers.remove(name);
    }
}

/// The headers of a response that has been said anew.
pub(crate) fn kept_headers(headers: &HeaderMap) -> HeaderMap {
    let kept = KEPT.iter().filter_map(|name| {
        let value = headers.get(*name)?;
        Some((HeaderName::from_static(name), value.clone()))
    });
    kept.collect()
}

// === impl Target ===

impl Target {
    /// The names of those headers of a client that the provider must not see, for proxies that edit a head in
    /// place; [`prepare`](Self::prepare) leaves them out by itself.
    ///
    /// They are the client's credentials, cookies, and what identity-aware proxies say of it; what selects an
    /// account; what concerns only its own connection (`host` and `content-length` among them), which the
    /// proxy writes anew; and for a request that is translated what only providers of other dialects know.
    /// Of the query [`passing_query`](Self::passing_query) is left, and of `anthropic-beta` what is not named
    /// `server-side-fallback-…` or `fallback-credit-…`, which are features of other models.
    pub fn withheld_headers(&self, surface: &Surface, client: &HeaderMap) -> Vec<HeaderName> {
        let ends = ending(client);
        let is_translated = !self.speaks(surface);
        let is_withheld = |name: &&HeaderName| ends(name) || (is_translated && self.is_foreign(name));
        client.keys().filter(is_withheld).cloned().collect()
    }

    /// What the provider gets of a client's query, for proxies that edit a head in place and ask in the
    /// client's own dialect; [`prepare`](Self::prepare) leaves out the rest by itself.
    ///
    /// ```
    /// use nantian_ai::Target;
    ///
    /// assert_eq!(Target::passing_query("beta=true&api_key=sk-of-the-client"), "beta=true");
    /// ```
    pub fn passing_query(query: &str) -> Cow<'_, str> {
        let passes = |parameter: &&str| {
            let name = parameter.split('=').next().unwrap_or_default();
            PARAMETERS.binary_search(&name).is_ok()
        };
        if query.split('&').all(|parameter| passes(&parameter)) {
            return Cow::Borrowed(query);
        }
        let kept: Vec<_> = query.split('&').filter(passes).collect();
        Cow::Owned(kept.join("&"))
    }

    /// Whether a header is of another dialect than the provider's.
    pub(super) fn is_foreign(&self, name: &HeaderName) -> bool {
        is_of_a_dialect(name) && !names_features_of(name, self.dialect())
    }
}

/// What of a client's headers the upstream gets.
pub(super) fn upstream_headers(client: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(client.len() + 4);
    let ends = ending(client);
    for (name, value) in client.iter().filter(|(name, _)| !ends(name)) {
        headers.append(name.clone(), value.clone());
    }
    forget_other_models(&mut headers);
    headers
}

/// Takes the features out that are of no use without what has been cut out of the body: Vertex AI refuses
/// names that it does not know.
fn forget_other_models(headers: &mut HeaderMap) {
    let values = headers.get_all(ANTHROPIC_BETA).iter().filter_map(|value| value.to_str().ok());
    let names: Vec<_> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    let is_of_others = |name: &str| OF_OTHER_MODELS.iter().any(|start| name.starts_with(start));
    if !names.iter().any(|name| is_of_others(name)) {
        return;
    }
    let kept: Vec<_> = names.into_iter().filter(|name| !is_of_others(name)).collect();
    match HeaderValue::from_str(&kept.join(",")) {
        Ok(kept) if !kept.is_empty() => headers.insert(ANTHROPIC_BETA, kept),
        _ => headers.remove(ANTHROPIC_BETA),
    };
}

/// Tells of a client's headers those that end here.
fn ending(client: &HeaderMap) -> impl Fn(&HeaderName) -> bool {
    // RFC 9110, 7.6.1: headers that `connection` names concern only the connection.
    let named = client.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named: Vec<_> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    move |name| ends_here(name) || named.iter().any(|named| named.eq_ignore_ascii_case(name.as_str()))
}

/// Whether a header of the client ends here: what selects an account with its credentials; what concerns only
/// its own connection; what only says where it is; and its credentials themselves.
fn ends_here(name: &HeaderName) -> bool {
    let name = name.as_str();
    let is_known = matches!(
        name,
        "accept-encoding"
            | "anthropic-workspace-id"
            | "connection"
            | "content-length"
            | "expect"
            | "forwarded"
            | "host"
            | "keep-alive"
            | "openai-organization"
            | "openai-project"
            | "origin"
            | "proxy-connection"
            | "referer"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "via"
            | "x-amz-content-sha256"
            | "x-amz-date"
            | "x-goog-user-project"
            | "x-nantian-strict"
            | "x-real-ip"
    );
    is_known
        || name.starts_with("x-forwarded-")
        || name.starts_with("sec-")
        || name.starts_with("access-control-")
        || is_credential(name)
}

/// Whether a header holds a credential or what an identity-aware proxy says of the client, by the words of
/// its name: those of ALB (`x-amzn-oidc-accesstoken`), IAP (`x-goog-iap-jwt-assertion`), Cloudflare Access
/// (`cf-access-jwt-assertion`), App Service (`x-ms-client-principal`), oauth2-proxy
/// (`x-auth-request-access-token`) and what is like them.
fn is_credential(name: &str) -> bool {
    let mut before = "";
    name.split(['-', '_']).any(|word| {
        let last = std::mem::replace(&mut before, word);
        match word {
            "apikey" | "assertion" | "auth" | "authenticated" | "authorization" | "cookie" | "credential"
            | "credentials" | "jwt" | "oidc" | "passwd" | "password" | "principal" | "secret" => true,
            "key" => matches!(last, "access" | "api" | "auth" | "subscription"),
            _ => word.ends_with("token"),
        }
    })
}

/// Headers that only providers of one dialect know.
fn is_of_a_dialect(name: &HeaderName) -> bool {
    let name = name.as_str();
    ["anthropic-", "openai-", "x-stainless-"].iter().any(|start| name.starts_with(start))
}

/// Whether a header names features that providers of a dialect know.
fn names_features_of(name: &HeaderName, dialect: Dialect) -> bool {
    match name.as_str() {
        ANTHROPIC_BETA => dialect == Dialect::Anthropic,
        OPENAI_BETA => matches!(dialect, Dialect::OpenAi | Dialect::Responses),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::TargetConfig;

    #[test]
    fn the_list_can_be_searched() {
        assert!(PARAMETERS.is_sorted());
    }

    #[test]
    fn a_proxy_that_edits_a_head_in_place_withholds_what_a_prepared_request_leaves_out() {
        let headers = [
            ("host", "gateway.example.com"),
            ("authorization", "Bearer of-the-client"),
            ("cookie", "session=1"),
            ("x-goog-iap-jwt-assertion", "e30"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("anthropic-version", "2023-06-01"),
            ("content-type", "application/json"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ];
        let query = "beta=true&api_key=sk-of-the-client";
        let mut request = http::Request::post(format!("/v1/messages?{query}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        for (provider, passing) in [
            ("anthropic", &["anthropic-version", "content-type", "traceparent"][..]),
            ("openai", &["content-type", "traceparent"][..]),
        ] {
            let target = Target::new(TargetConfig::new("a/b", provider, "m")).unwrap();
            let surface = target.admit(&head).unwrap();
            let mut edited = head.headers.clone();
            for name in target.withheld_headers(&surface, &head.headers) {
                edited.remove(name);
            }
            let mut names: Vec<_> = edited.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, passing, "{provider}");
            let body = br#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#;
            let prepared = target.prepare(&surface, head.clone(), Bytes::from_static(body)).unwrap();
            assert!(edited.keys().all(|name| prepared.head.headers.contains_key(name)), "{provider}");
            if target.speaks(&surface) {
                assert_eq!(prepared.head.uri.query(), Some(&*Target::passing_query(query)));
            }
        }
    }

    #[test]
    fn credentials_are_told_by_their_names() {
        for name in [
            "authorization",
            "proxy-authorization",
            "cookie",
            "api-key",
            "x-api-key",
            "x-goog-api-key",
            "ocp-apim-subscription-key",
            "x-amz-security-token",
            "x-amzn-oidc-accesstoken",
            "x-amzn-oidc-data",
            "x-goog-iap-jwt-assertion",
            "x-goog-authenticated-user-email",
            "cf-access-jwt-assertion",
            "cf-access-client-secret",
            "x-auth-request-access-token",
            "x-auth-token",
            "x-ms-client-principal",
            "x-ms-token-aad-id-token",
            "private_token",
        ] {
            assert!(is_credential(name), "{name}");
        }
        for name in [
            "accept",
            "anthropic-beta",
            "idempotency-key",
            "openai-beta",
            "user-agent",
            "traceparent",
            "x-claude-code-session-id",
            "x-stainless-lang",
            "author",
        ] {
            assert!(!is_credential(name), "{name}");
        }
    }

    #[test]
    fn features_of_other_models_are_left_out() {
        for (named, left) in [
            (
                &["a-1, server-side-fallback-2026-07-01", "fallback-credit-2026-07-01,b-2"][..],
                &["a-1,b-2"][..],
            ),
            (&["server-side-fallback-2026-07-01"][..], &[][..]),
            (&["a-1, b-2", "c-3"][..], &["a-1, b-2", "c-3"][..]),
        ] {
            let named =
                named.iter().map(|named| (HeaderName::from_static(ANTHROPIC_BETA), named.parse().unwrap()));
            let sent = upstream_headers(&named.collect());
            assert_eq!(sent.get_all(ANTHROPIC_BETA).iter().collect::<Vec<_>>(), left);
        }
    }

    #[test]
    fn only_what_belongs_to_an_operation_is_left_of_a_query() {
        for query in ["beta=true", "include%5B%5D=a&include[]=b&limit=2&order=asc&after=x&stream=true"] {
            assert_eq!(Target::passing_query(query), query);
        }
        assert_eq!(Target::passing_query("beta=true&API_KEY=x&limit=2&key=y"), "beta=true&limit=2");
        for name in [
            "key",
            "apikey",
            "api%5Fkey",
            "x-api-key",
            "subscription-key",
            "token",
            "auth_token",
            "accessToken",
            "code",
            "sig",
            "",
        ] {
            assert_eq!(Target::passing_query(&format!("{name}=y")), "", "{name}");
        }
    }
}
