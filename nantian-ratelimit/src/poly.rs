//! A keyed hash in few instructions: a polynomial modulo 2^61 - 1, evaluated at a secret point.
//!
//! Two lists of up to `n` words, whatever they are, have the same hash for at most `n` of 2^60 points (Carter and Wegman,
//! 1979). That is proven, not hoped, as long as lists are chosen without knowledge of the point. Who sends keys learns no hash,
//! only whether two of them are one, which is what that chance is about.

/// Bits of a word.
const WORD: u32 = 56;
const PRIME_BITS: u32 = 61;
const POINT_BITS: u32 = 60;

/// A hash on its way, under a secret.
#[derive(Clone, Copy)]
pub(crate) struct Poly {
    /// Where the polynomial is evaluated: 1 to 2^60.
    point: u64,
    /// The value so far modulo the prime, not fully reduced: at least 1 and less than 3 × 2^61.
    sum: u64,
}

// === impl Poly ===

impl Poly {
    /// A hash that no list of words has.
    pub(crate) const NONE: u64 = spread(0);
    /// Another one.
    pub(crate) const OTHER: u64 = spread(u64::MAX);

    pub(crate) const fn new(secret: u64) -> Self {
        // The 1 keeps leading words of 0 from being lost.
        Self { point: (secret >> (u64::BITS - POINT_BITS)) + 1, sum: 1 }
    }

    /// Adds a word, of which 56 bits count.
    #[inline]
    pub(crate) fn word(&mut self, word: u64) {
        // Less than 2^63 times 2^60 at most, so that both parts together stay below 3 × 2^61.
        let sum = self.sum + (word & mask(WORD));
        let product = u128::from(sum) * u128::from(self.point);
        self.sum = (low(product) & mask(PRIME_BITS)) + low(product >> PRIME_BITS);
    }

    /// Adds bytes, seven in a word, padded with zeros.
    #[inline]
    pub(crate) fn bytes(&mut self, mut bytes: &[u8]) {
        // Eight are read, for they are one step.
        while let (Some(word), Some((_, rest))) = (bytes.first_chunk(), bytes.split_first_chunk::<7>()) {
            self.word(u64::from_le_bytes(*word));
            bytes = rest;
        }
        if !bytes.is_empty() {
            self.word(padded(bytes));
        }
    }

    /// The hash.
    #[inline]
    pub(crate) const fn finish(self) -> u64 {
        // Equal words give equal sums, reduced or not.
        spread(self.sum)
    }
}

/// A bijection that lets the high bits decide about the low ones too.
#[inline]
const fn spread(word: u64) -> u64 {
    let word = (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word ^ word >> 32
}

#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn low(word: u128) -> u64 {
    word as u64
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// One to seven bytes as a word: reads that overlap, instead of one for each byte.
#[inline]
pub(crate) fn padded(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let at = |position: usize| bytes.get(position).map_or(0, |byte| u64::from(*byte) << (8 * position));
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (length - 4));
            u64::from(u32::from_le_bytes(*first)) | last
        }
        _ => at(0) | at(length / 2) | at(length - 1),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PRIME: u64 = mask(PRIME_BITS);

    /// What `words` sum up to at `point`, step by step.
    fn evaluated(point: u64, words: &[u64]) -> u64 {
        let (prime, point) = (u128::from(PRIME), u128::from(point));
        let sum = words.iter().fold(1, |sum, word| (sum + u128::from(*word)) * point % prime);
        u64::try_from(sum).unwrap()
    }

    proptest! {
        #[test]
        fn the_polynomial_is_that_of_the_words(
            secret: u64,
            values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
        ) {
            let mut poly = Poly::new(secret);
            let mut words = Vec::new();
            for value in &values {
                poly.word(value.len() as u64);
                poly.bytes(value);
                words.push(value.len() as u64);
                words.extend(value.chunks(7).map(|chunk| {
                    chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
                }));
            }
            prop_assert_eq!(poly.sum % PRIME, evaluated((secret >> 4) + 1, &words));
        }

        #[test]
        fn sums_stay_in_their_range(secret: u64, words in prop::collection::vec(any::<u64>(), 0..60)) {
            let mut poly = Poly::new(secret);
            for word in words {
                poly.word(word);
                prop_assert!((1..3 << PRIME_BITS).contains(&poly.sum));
            }
        }
    }

    #[test]
    fn extreme_sums_stay_in_their_range() {
        for (secret, word) in [(u64::MAX, u64::MAX), (u64::MAX, 0), (0, u64::MAX), (0, 0)] {
            let mut poly = Poly::new(secret);
            for _ in 0..100_000 {
                poly.word(word);
                assert!((1..3 << PRIME_BITS).contains(&poly.sum));
            }
        }
    }

    /// Keys that differ in few bits are those that clients count up.
    #[test]
    fn neighbours_are_spread_evenly() {
        const BINS: u64 = 1 << 10;
        let bits: [fn(u64) -> u64; 3] = [|hash| hash, |hash| hash >> 32, |hash| hash >> 54];
        for bits in bits {
            let mut counts = [0_u32; 1 << 10];
            for key in 0..1_000_000_u64 {
                let mut poly = Poly::new(0x0123_4567_89ab_cdef);
                poly.bytes(&key.to_be_bytes());
                counts[usize::try_from(bits(poly.finish()) % BINS).unwrap()] += 1;
            }
            // Five standard deviations of chance.
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least > 820 && *most < 1140, "{least} to {most} of 977");
        }
    }
}
