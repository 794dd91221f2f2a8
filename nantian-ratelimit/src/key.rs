//! Whose bucket a request uses: keyed digests of scope parts.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};

#[cfg(feature = "redis")]
use siphasher::sip128::{Hasher128, SipHasher13};

use crate::poly::{Point, Poly};
use crate::scope::ScopePart;

/// The digest of a scope's values: all that a limiter stores of a caller.
///
/// Within a process it has 61 bits under a random secret of the limiter, from a hash of which it is proven
/// that callers who do not know the secret cannot choose which of them share a bucket: two do with a chance
/// of at most one in 2^60 for each seven bytes of the longer one, so among a million callers with keys of 40
/// bytes some two do with a chance of 1 in 300 000. No digest leaves the process. On a server it is
/// SipHash-1-3 of 128 bits under a secret that all replicas find there. Whoever can read the server can
/// therefore try guesses: addresses and names of users can be found, keys of an API that are drawn at random
/// cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub(crate) tag: u64,
}

/// Builds a [`Key`] from values, one after the other.
///
/// Every value is hashed with what it is, whether it is there, and its length, so that no two lists of values
/// look alike.
pub struct KeyHasher(Digest);

/// The secret that keys of this process are hashed under.
#[derive(Clone)]
pub(crate) struct Secret(Point);

/// The secret that keys on a server are hashed under.
#[cfg(feature = "redis")]
#[derive(Clone)]
pub(crate) struct SharedSecret(SipHasher13);

enum Digest {
    OfProcess(Poly),
    #[cfg(feature = "redis")]
    OfServer(SipHasher13),
}

// === impl Key ===

impl Key {
    /// Tags that no key has: of an empty slot, and of the slot that keys without one share.
    pub(crate) const EMPTY: u64 = Poly::NONE;
    pub(crate) const SHARED: u64 = Poly::OTHER;

    /// The key that has this tag.
    pub(crate) const fn of(tag: u64) -> Self {
        Self { tag }
    }
}

/// Tells nothing, for with enough digests of known callers a secret could be computed.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").finish_non_exhaustive()
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
        match self.0 {
            Digest::OfProcess(poly) => Key::of(poly.finish()),
            #[cfg(feature = "redis")]
            Digest::OfServer(sip) => Key::of(sip.finish128().h1),
        }
    }

    /// The digest of what was added, as long as a name on a server is.
    #[cfg(feature = "redis")]
    pub(crate) fn finish_for_server(self) -> u128 {
        match self.0 {
            Digest::OfProcess(poly) => u128::from(poly.finish()),
            Digest::OfServer(sip) => sip.finish128().into(),
        }
    }

    #[inline]
    fn write(&mut self, code: u8, value: Option<&[u8]>) {
        let kind = code << 1 | u8::from(value.is_some());
        let value = value.unwrap_or_default();
        match &mut self.0 {
            Digest::OfProcess(poly) => poly.value(kind, value),
            #[cfg(feature = "redis")]
            Digest::OfServer(sip) => {
                sip.write(&((value.len() as u64) << 8 | u64::from(kind)).to_le_bytes());
                sip.write(value);
                // Padded to whole words: the keys that servers have are digests of that.
                (value.len()..value.len().next_multiple_of(8)).for_each(|_| sip.write_u8(0));
            }
        }
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
        Self::new(random_word())
    }

    pub(crate) const fn new(secret: u64) -> Self {
        Self(Point::new(secret))
    }

    #[inline]
    pub(crate) fn hasher(&self) -> KeyHasher {
        KeyHasher(Digest::OfProcess(Poly::at(self.0)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

// === impl SharedSecret ===

#[cfg(feature = "redis")]
impl SharedSecret {
    /// Bytes for a secret from the operating system's randomness.
    pub(crate) fn random_bytes() -> [u8; 16] {
        let low = u128::from(random_word());
        (low << 64 | u128::from(random_word())).to_be_bytes()
    }

    /// The secret that these bytes are.
    #[expect(clippy::cast_possible_truncation, reason = "the low half")]
    pub(crate) fn from_array(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self(SipHasher13::new_with_keys((both >> 64) as u64, both as u64))
    }

    pub(crate) fn hasher(&self) -> KeyHasher {
        KeyHasher(Digest::OfServer(self.0))
    }
}

#[cfg(feature = "redis")]
impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret")
    }
}

fn random_word() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn keys_on_a_server_are_those_of_earlier_versions() {
        let mut key = SharedSecret::from_array(*b"0123456789abcdef").hasher();
        key.value(Some(b"somebody's key"));
        key.value(None);
        key.value(Some(b"12345678"));
        assert_eq!(key.finish_for_server(), 0xc9e4_1ebf_1bc1_9f22_9cf5_a7c0_85d5_5366);
    }
}
