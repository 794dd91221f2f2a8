//! RequestHeaderModifier and ResponseHeaderModifier.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::ir;

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

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
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
