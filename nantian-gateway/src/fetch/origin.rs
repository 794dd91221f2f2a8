//! Who answers at a URL (RFC 6454).

use http::{Uri, uri::Scheme};

/// Who answers at a URL: what one is told is for no other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) is_encrypted: bool,
    /// Without the brackets of an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
}

// === impl Origin ===

impl Origin {
    pub(super) fn of(uri: &Uri) -> Self {
        let is_encrypted = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = uri.port_u16().unwrap_or(if is_encrypted { 443 } else { 80 });
        Self { is_encrypted, host: host.to_ascii_lowercase(), port }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_they_are_meant() {
        let of = |url: &str| Origin::of(&url.parse().unwrap());
        for (url, same) in [
            ("https://A.example/x", true),
            ("https://a.example:443", true),
            ("http://a.example:443/", false),
            ("https://a.example:8443/", false),
            ("https://a.example.evil/", false),
        ] {
            assert_eq!(of("https://a.example/") == of(url), same, "{url}");
        }
        assert_eq!(of("http://[::1]:5000/").host, "::1");
    }
}
