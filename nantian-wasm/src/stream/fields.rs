//! Header fields of a message that later callbacks may look at.

use std::ops::Deref;
use std::sync::OnceLock;

use http::{HeaderMap, HeaderName, HeaderValue};

/// The fields of a message, or a copy of those of one that has left.
///
/// Few guests look at what has left. So a copy is bytes in one piece, and a map only when somebody looks at
/// it: that of a map costs several times as much, and as much again when it is dropped.
#[derive(Debug, Clone)]
pub(crate) enum HeaderFields {
    Here(HeaderMap),
    Copied {
        map: OnceLock<HeaderMap>,
        /// What the map is made of: of each field the lengths of its name and its value, and both.
        packed: Vec<u8>,
    },
}

// === impl HeaderFields ===

impl HeaderFields {
    pub(crate) fn copy_of(map: &HeaderMap) -> Self {
        Self::Copied { map: OnceLock::new(), packed: pack(map.iter(), map.len()) }
    }

    /// A copy without one that says how the message came.
    pub(crate) fn copy_without(map: &HeaderMap, left_out: &HeaderName) -> Self {
        let fields = map.iter().filter(|(name, _)| *name != left_out);
        Self::Copied { map: OnceLock::new(), packed: pack(fields, map.len()) }
    }

    /// Takes the map out, which leaves an empty one.
    pub(crate) fn take(&mut self) -> HeaderMap {
        self.map_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The map, to be changed; it is always there.
    pub(crate) fn map_mut(&mut self) -> Option<&mut HeaderMap> {
        let _: &HeaderMap = self;
        match self {
            Self::Here(map) => Some(map),
            Self::Copied { map, .. } => map.get_mut(),
        }
    }
}

impl Default for HeaderFields {
    fn default() -> Self {
        Self::Here(HeaderMap::new())
    }
}

impl From<HeaderMap> for HeaderFields {
    fn from(map: HeaderMap) -> Self {
        Self::Here(map)
    }
}

impl Deref for HeaderFields {
    type Target = HeaderMap;

    fn deref(&self) -> &HeaderMap {
        match self {
            Self::Here(map) => map,
            Self::Copied { map, packed } => map.get_or_init(|| unpack(packed)),
        }
    }
}

fn pack<'a>(fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>, count: usize) -> Vec<u8> {
    // Room for most requests.
    let mut packed = Vec::with_capacity(count.saturating_mul(64));
    for (name, value) in fields {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        let lengths = (length(value) << 32) | length(name);
        packed.extend_from_slice(&lengths.to_le_bytes());
        packed.extend_from_slice(name);
        packed.extend_from_slice(value);
    }
    packed
}

/// A length in 32 bits; the map has none that is greater.
fn length(bytes: &[u8]) -> u64 {
    u64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX))
}

fn unpack(mut packed: &[u8]) -> HeaderMap {
    let mut map = HeaderMap::new();
    while let Some((name, value, rest)) = field(packed) {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            // As many as there were fit again.
            map.append(name, value);
        }
        packed = rest;
    }
    map
}

/// The first field and what is behind it.
fn field(packed: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (name, rest) = packed.split_first_chunk::<4>()?;
    let (value, rest) = rest.split_first_chunk::<4>()?;
    let [name, value] = [name, value].map(|length| usize::try_from(u32::from_le_bytes(*length)).ok());
    let (name, rest) = rest.split_at_checked(name?)?;
    let (value, rest) = rest.split_at_checked(value?)?;
    Some((name, value, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn a_copy_has_the_fields_of_its_map_in_their_order(
            fields in prop::collection::vec(("[a-c]{1,2}|accept|x-[a-z]{1,60}", prop::collection::vec(32_u8..127, 0..60)), 0..40),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                map.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
            }
            let mut copy = HeaderFields::copy_of(&map);
            prop_assert!(map.iter().eq(copy.iter()));
            prop_assert_eq!(copy.map_mut(), Some(&mut map));
        }
    }
}
