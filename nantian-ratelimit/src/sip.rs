//! SipHash-1-3 of 128 bits, over whole words.
//!
//! Values are hashed behind their length and padded to words, so that nothing needs to be kept between two of
//! them: that, and a state that fits into registers, is what makes it quicker than a hasher of byte strings.
//! Its words are those of the siphasher crate for the same padded bytes.

use crate::poly::padded;

/// A hash on its way, under a secret.
#[derive(Clone, Copy)]
pub(crate) struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    words: u64,
}

impl Sip {
    pub(crate) const fn new(low: u64, high: u64) -> Self {
        Self {
            v0: low ^ 0x736f_6d65_7073_6575,
            v1: high ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: low ^ 0x6c79_6765_6e65_7261,
            v3: high ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }

    #[inline]
    pub(crate) fn word(&mut self, word: u64) {
        self.words += 1;
        self.compress(word);
    }

    /// Adds bytes, padded with zeros to whole words.
    #[inline]
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        words.iter().for_each(|word| self.word(u64::from_le_bytes(*word)));
        if !rest.is_empty() {
            self.word(padded(rest));
        }
    }

    /// Both halves of the digest.
    #[inline]
    pub(crate) fn finish(mut self) -> (u64, u64) {
        // The last word tells the length in bytes, modulo 256.
        self.compress(self.words << 59);
        self.v2 ^= 0xee;
        self.rounds();
        let first = self.fold();
        self.v1 ^= 0xdd;
        self.rounds();
        (first, self.fold())
    }

    #[inline]
    fn compress(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
    }

    #[inline]
    fn rounds(&mut self) {
        self.round();
        self.round();
        self.round();
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    const fn fold(&self) -> u64 {
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::hash::Hasher;

    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128, SipHasher13};

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_siphash_of_the_padded_bytes(
            low: u64,
            high: u64,
            values in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..70), 0..6),
        ) {
            let (mut sip, mut known) = (Sip::new(low, high), SipHasher13::new_with_keys(low, high));
            for value in values {
                sip.word(value.len() as u64);
                sip.bytes(&value);
                known.write_u64(value.len() as u64);
                let mut padded = value;
                padded.resize(padded.len().next_multiple_of(8), 0);
                known.write(&padded);
            }
            let known = known.finish128();
            prop_assert_eq!(sip.finish(), (known.h1, known.h2));
        }
    }
}
