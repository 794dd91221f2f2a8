//! Host names in specs.

use std::net::Ipv4Addr;

use crate::ir::HostPattern;

/// Longest host name (RFC 1035 section 2.3.4).
const LONGEST: usize = 253;

/// Longest label of a host name.
const LONGEST_LABEL: usize = 63;

/// Reads a host name with an optional wildcard label in front; `None` if it is neither.
pub(super) fn pattern(text: &str) -> Option<HostPattern> {
    let name = text.strip_prefix("*.").unwrap_or(text);
    is_name(name).then(|| HostPattern::parse(text))
}

/// Whether the text is a host name without a wildcard, and not an IP address.
pub(crate) fn is_name(text: &str) -> bool {
    text.len() <= LONGEST && text.split('.').all(is_label) && text.parse::<Ipv4Addr>().is_err()
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= LONGEST_LABEL
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_ports_and_stray_wildcards_are_no_host_names() {
        for text in ["10.0.0.1", "a.example:80", "*", "a.*.example", "-a.example", "a..b", "", "[::1]", "a_b"]
        {
            assert_eq!(pattern(text), None, "{text:?}");
        }
        assert_eq!(pattern("*.Example.com"), Some(HostPattern::Suffix("example.com".to_owned())));
        assert_eq!(pattern("localhost"), Some(HostPattern::Exact("localhost".to_owned())));
    }
}
