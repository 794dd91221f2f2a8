//! Whose bucket a request uses: keyed digests of scope parts.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

use crate::scope::ScopePart;
use crate::sip::Sip;

/// The digest of a scope's values: all that a limiter stores of a caller.
///
/// SipHash-1-3 under a random secret of the limiter, so that callers can neither be read from it nor choose which of them share a
/// bucket: 64 bits within a process (among a million callers two share one with a chance of 3 in 100 million), 128 on a server.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(crate) tag: u64,
    pub(crate) shard: u64,
}

/// Builds a [`Key`] from values, one after the other.
///
/// Every value is hashed with what it is, whether it is there, and its length, so that no two lists of values look alike.
pub struct KeyHasher(Sip);

/// The secret that keys are hashed under.
#[derive(Clone)]
pub(crate) struct Secret(Sip);

// === impl Key ===

impl Key {
    /// Tags that no key has: an empty slot, and the slot that keys without one share.
    pub(crate) const EMPTY: u64 = 0;
    pub(crate) const SHARED: u64 = u64::MAX;

    /// A key that has this tag in the shard at `position`.
    pub(crate) const fn at(position: usize, tag: u64) -> Self {
        Self { tag, shard: position as u64 }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:016x}{:016x})", self.shard, self.tag)
    }
}

// === impl KeyHasher ===

impl KeyHasher {
    /// Adds the value of a scope's part; `None` if the request has none.
    ///
    /// Requests that lack a value share a bucket, which is not that of an empty value.
    pub fn part(&mut self, part: &ScopePart, value: Option<&[u8]>) {
        if let ScopePart::Header(name) = part {
            self.write(part.code(), Some(name.as_str().as_bytes()));
        }
        self.write(part.code(), value);
    }

    /// Adds a value that is no scope's part.
    #[inline]
    pub fn value(&mut self, value: Option<&[u8]>) {
        self.write(0, value);
    }

    /// The digest of what was added.
    #[inline]
    pub fn finish(self) -> Key {
        let (hash, _) = self.0.first();
        // Not the bits of the tag that decide most about the pairs of lines: those are to be even within a shard.
        Key { tag: tag(hash), shard: hash >> 32 }
    }

    /// The digest of what was added, all of it.
    #[cfg(feature = "redis")]
    pub(crate) fn finish_whole(self) -> Key {
        let (hash, rest) = self.0.first();
        Key { tag: hash, shard: rest.second() }
    }

    #[inline]
    fn write(&mut self, code: u8, value: Option<&[u8]>) {
        let length = value.map_or(0, |value| value.len() as u64);
        self.0.word(length << 8 | u64::from(code) << 1 | u64::from(value.is_some()));
        self.0.bytes(value.unwrap_or_default());
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyHasher").finish_non_exhaustive()
    }
}

// === impl Secret ===

impl Secret {
    /// A secret from the operating system's randomness.
    pub(crate) fn random() -> Self {
        Self::new(random_word(), random_word())
    }

    /// Bytes for [`Secret::from_array`] from the operating system's randomness.
    #[cfg(feature = "redis")]
    pub(crate) fn random_bytes() -> [u8; 16] {
        let low = u128::from(random_word());
        (low << 64 | u128::from(random_word())).to_be_bytes()
    }

    /// The secret that these bytes are.
    #[cfg(feature = "redis")]
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub(crate) fn from_array(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self::new((both >> 64) as u64, both as u64)
    }

    pub(crate) fn new(low: u64, high: u64) -> Self {
        Self(Sip::new(low, high))
    }

    #[inline]
    pub(crate) fn hasher(&self) -> KeyHasher {
        KeyHasher(self.0)
    }
}

/// A tag that a key may have.
#[inline]
fn tag(hash: u64) -> u64 {
    hash.clamp(Key::EMPTY + 1, Key::SHARED - 1)
}

fn random_word() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}
