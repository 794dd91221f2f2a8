//! Whose GatewayClasses are served.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

/// The longest name of a controller.
const MAX: usize = 253;

/// The name of a controller of the Gateway API: `spec.controllerName` of the GatewayClasses that are its own,
/// with which it signs what it says in statuses.
///
/// Default: `gateway.nantian.dev/gateway-controller`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerName(Arc<str>);

/// A text is not the name of a controller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a domain and a path such as example.com/controller, of at most {MAX} bytes")]
pub struct InvalidControllerName(String);

// === impl ControllerName ===

impl ControllerName {
    /// The name as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for ControllerName {
    fn default() -> Self {
        Self("gateway.nantian.dev/gateway-controller".into())
    }
}

impl FromStr for ControllerName {
    type Err = InvalidControllerName;

    fn from_str(text: &str) -> Result<Self, InvalidControllerName> {
        let is_label = |label: &str| {
            let is_known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !label.is_empty()
                && label.bytes().all(is_known)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte);
        let is_name = text.split_once('/').is_some_and(|(domain, path)| {
            domain.split('.').all(is_label) && !path.is_empty() && path.bytes().all(is_of_path)
        });
        let is_name = is_name && text.len() <= MAX;
        is_name.then(|| Self(text.into())).ok_or_else(|| InvalidControllerName(text.to_owned()))
    }
}

impl fmt::Display for ControllerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ControllerName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_what_a_class_may_name() {
        let default = ControllerName::default();
        for name in [default.as_str(), "example.com/a", "a/B-c/d", "1.example/~%!$&'()*+,;=:_."] {
            assert_eq!(name.parse::<ControllerName>().unwrap().as_str(), name);
        }
        let long = format!("example.com/{}", "a".repeat(242));
        for name in
            ["", "nantian", "example.com/", "/a", "Example.com/a", "-a.com/a", "a..com/a", "a.com/ä", &long]
        {
            assert_eq!(name.parse::<ControllerName>(), Err(InvalidControllerName(name.to_owned())));
        }
    }
}
