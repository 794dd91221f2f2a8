//! A base URL.

use std::str::FromStr;

use http::Uri;
use http::header::HeaderValue;
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};

use crate::dialect::Dialect;

/// A base URL: everything before the path of an operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    scheme: UriScheme,
    authority: Authority,
    host: HeaderValue,
    prefix: String,
}

/// A base URL that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("endpoint `{endpoint}` {reason}")]
#[non_exhaustive]
pub struct InvalidEndpoint {
    /// The URL as given; cut before the host if it held user information.
    pub endpoint: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

// === impl Endpoint ===

impl Endpoint {
    /// Reads a base URL. Without a path, the customary prefix of the dialect is used: `/v1` or `/api`.
    ///
    /// # Errors
    /// [`InvalidEndpoint`] for anything but an absolute `http` or `https` URL without query and user info,
    /// with a port from 1 to 65535 if with any.
    pub fn parse(endpoint: &str, dialect: Dialect) -> Result<Self, InvalidEndpoint> {
        Self::below(endpoint, dialect.prefix())
    }

    /// Reads a base URL. Without a path, it has this prefix.
    pub(crate) fn below(endpoint: &str, customary: &str) -> Result<Self, InvalidEndpoint> {
        let refuse = |endpoint: &str, reason| InvalidEndpoint { endpoint: endpoint.to_owned(), reason };
        let uri = Uri::from_str(endpoint.trim()).map_err(|_| refuse(endpoint, "is not a URL"))?;
        let parts = uri.into_parts();
        let authority = parts.authority.ok_or_else(|| refuse(endpoint, "has no host"))?;
        if authority.as_str().contains('@') {
            let scheme = endpoint.split("://").next().unwrap_or_default();
            return Err(refuse(scheme, "holds user information"));
        }
        if !has_valid_port(&authority) {
            return Err(refuse(endpoint, "has a port that is no number from 1 to 65535"));
        }
        let scheme = parts
            .scheme
            .filter(|scheme| *scheme == UriScheme::HTTP || *scheme == UriScheme::HTTPS)
            .ok_or_else(|| refuse(endpoint, "is neither http nor https"))?;
        let path = parts.path_and_query.as_ref();
        if path.is_some_and(|path| path.query().is_some()) {
            return Err(refuse(endpoint, "has a query"));
        }
        let prefix = match path.map_or("", |path| path.path()).trim_end_matches('/') {
            "" => customary,
            prefix => prefix,
        };
        Ok(Self {
            host: HeaderValue::from_str(without_default_port(&scheme, &authority))
                .map_err(|_| refuse(endpoint, "has no usable host"))?,
            prefix: prefix.to_owned(),
            scheme,
            authority,
        })
    }

    /// The scheme: `http` or `https`.
    pub fn scheme(&self) -> &UriScheme {
        &self.scheme
    }

    /// Host and port.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// The path before that of an operation.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The value of the `host` header.
    pub(crate) fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// The absolute URL of an operation; `None` if the path or the query cannot be part of one.
    pub(crate) fn uri(&self, path: &str, query: Option<&str>) -> Option<Uri> {
        let mut target = String::with_capacity(self.prefix.len() + path.len() + 16);
        target.push_str(&self.prefix);
        target.push_str(path);
        if let Some(query) = query {
            target.push('?');
            target.push_str(query);
        }
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(PathAndQuery::try_from(target).ok()?)
            .build()
            .ok()
    }
}

/// Whether there is no port, or one that can be connected to.
fn has_valid_port(authority: &Authority) -> bool {
    match authority.as_str().strip_prefix(authority.host()) {
        Some("") => true,
        _ => authority.port_u16().is_some_and(|port| port > 0),
    }
}

fn without_default_port<'a>(scheme: &UriScheme, authority: &'a Authority) -> &'a str {
    let suffix = if *scheme == UriScheme::HTTPS { ":443" } else { ":80" };
    authority.as_str().strip_suffix(suffix).unwrap_or(authority.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(endpoint: &str, dialect: Dialect, path: &str) -> String {
        Endpoint::parse(endpoint, dialect).unwrap().uri(path, None).unwrap().to_string()
    }

    #[test]
    fn the_path_of_an_endpoint_comes_before_the_operation() {
        for (endpoint, dialect, path, expected) in [
            (
                "https://api.groq.com/openai/v1/",
                Dialect::OpenAi,
                "/chat/completions",
                "https://api.groq.com/openai/v1/chat/completions",
            ),
            ("http://vllm:8000", Dialect::OpenAi, "/embeddings", "http://vllm:8000/v1/embeddings"),
            ("http://ollama:11434/", Dialect::Ollama, "/chat", "http://ollama:11434/api/chat"),
            ("http://[::1]:9000", Dialect::Anthropic, "/messages", "http://[::1]:9000/v1/messages"),
        ] {
            assert_eq!(uri(endpoint, dialect, path), expected);
        }
    }

    #[test]
    fn an_endpoint_that_cannot_be_a_base_url_is_refused() {
        for endpoint in [
            "",
            "api.openai.com/v1",
            "/v1",
            "ftp://host/v1",
            "https://host/v1?key=1",
            "https://user:password@host/v1",
        ] {
            let error = Endpoint::parse(endpoint, Dialect::OpenAi).unwrap_err();
            assert!(!error.to_string().contains("password"), "{error}");
        }
    }

    #[test]
    fn a_port_that_is_none_is_refused_and_named() {
        for endpoint in [
            "http://host:99999",
            "http://host:65536/v1",
            "https://host:80x/v1",
            "http://host:",
            "http://host:0",
            "http://[::1]:x",
        ] {
            let error = Endpoint::parse(endpoint, Dialect::OpenAi).unwrap_err().to_string();
            assert!(error.contains(endpoint) && error.contains("port"), "{error}");
        }
        for endpoint in ["http://host:65535", "http://[::1]:1/v1", "https://[::1]/v1", "http://host"] {
            Endpoint::parse(endpoint, Dialect::OpenAi).unwrap();
        }
    }
}
