//! Header fields of what a guest writes, made with few allocations, and the names of those it reads.

use bytes::{BufMut as _, BytesMut};
use http::header::{HeaderName, HeaderValue};

use super::edits::{excerpt, is_framing};
use crate::error::Cause;

/// Names that are remembered; most guests read and write the same few in each exchange.
const NAMES: usize = 16;
/// Longest name that is remembered, in bytes.
const LONGEST_NAME: usize = 64;
/// Values that share a piece of memory are at most so long, in bytes; it lives as long as one of them.
const LONGEST_VALUE: usize = 256;
/// Bytes of such a piece.
const PIECE: usize = 4 << 10;

/// Makes header fields for one guest.
#[derive(Debug, Default)]
pub(crate) struct HeaderInterner {
    names: Vec<HeaderName>,
    values: BytesMut,
}

// === impl HeaderInterner ===

impl HeaderInterner {
    /// Checks a field before any of it is kept; nothing, if it is not a guest's to write.
    pub(super) fn field(
        &mut self,
        name: &[u8],
        value: &[u8],
    ) -> Result<Option<(HeaderName, HeaderValue)>, Cause> {
        let invalid = || Cause::InvalidHeader { name: excerpt(name) };
        let parsed = self.name(name).ok_or_else(invalid)?;
        let value = self.value(value).ok_or_else(invalid)?;
        Ok(if is_framing(&parsed) { None } else { Some((parsed, value)) })
    }

    /// A name, in lower case; nothing, if it is none.
    pub(super) fn name(&mut self, name: &[u8]) -> Option<HeaderName> {
        if name.len() > LONGEST_NAME {
            return HeaderName::from_bytes(name).ok();
        }
        let place = self.learn(name)?;
        self.names.get(place).cloned()
    }

    /// Where a name is remembered from now on; nothing, if it is none or too long for that.
    pub(super) fn learn(&mut self, name: &[u8]) -> Option<usize> {
        let place = |names: &[HeaderName], name: &[u8]| {
            names.iter().position(|known| known.as_str().as_bytes() == name)
        };
        let known = place(&self.names, name);
        if known.is_some() || name.len() > LONGEST_NAME {
            return known;
        }
        let made = HeaderName::from_bytes(name).ok()?;
        if place(&self.names, made.as_str().as_bytes()).is_none() {
            if self.names.len() == NAMES {
                self.names.remove(0);
            }
            self.names.push(made.clone());
        }
        place(&self.names, made.as_str().as_bytes())
    }

    /// The name that was learned there.
    pub(super) fn known(&self, place: usize) -> Option<&HeaderName> {
        self.names.get(place)
    }

    /// A value; nothing, if it is none.
    fn value(&mut self, value: &[u8]) -> Option<HeaderValue> {
        if value.len() > LONGEST_VALUE {
            return HeaderValue::from_bytes(value).ok();
        }
        if self.values.capacity() < value.len() {
            self.values.reserve(PIECE);
        }
        self.values.put_slice(value);
        HeaderValue::from_maybe_shared(self.values.split().freeze()).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn fields_are_those_that_http_makes_of_the_same_bytes(
            written in prop::collection::vec(
                ("[a-cX]{1,2}|x-[a-z]{60,70}|[a-z ]{0,3}", prop::collection::vec(any::<u8>(), 0..300)),
                0..100,
            ),
        ) {
            let mut interner = HeaderInterner::default();
            let mut made = Vec::new();
            for (name, value) in &written {
                made.push((interner.name(name.as_bytes()), interner.value(value)));
            }
            for ((name, value), made) in written.iter().zip(made) {
                let name = HeaderName::from_bytes(name.as_bytes()).ok();
                prop_assert_eq!((name, HeaderValue::from_bytes(value).ok()), made);
            }
            let names: std::collections::HashSet<_> = interner.names.iter().collect();
            prop_assert!(names.len() == interner.names.len() && names.len() <= NAMES);
        }
    }
}
