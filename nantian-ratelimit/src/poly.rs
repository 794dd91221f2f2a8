//! A keyed hash in few instructions: a polynomial modulo 2^61 - 1, evaluated at a secret point.
//!
//! Two lists of up to `n` words, whatever they are, have the same hash for at most `n` of 2^60 points (Carter
//! and Wegman, 1979). That is proven, not hoped, as long as lists are chosen without knowledge of the point.
//! Who sends keys learns no hash, only whether two of them are one, which is what that chance is about.

/// Bytes of a word, and their bits.
const BYTES: u64 = 7;
const WORD: u32 = 56;
/// What the last word of a value has beside the number of its bytes.
const LAST: u64 = 8;
const PRIME_BITS: u32 = 61;
const UNUSED: u32 = u64::BITS - PRIME_BITS;
const POINT_BITS: u32 = 60;

/// A hash on its way, under a secret.
#[derive(Clone, Copy)]
pub(crate) struct Poly {
    point: Point,
    /// The value so far modulo the prime, not fully reduced: at least 1 and less than 3 × 2^61.
    sum: u64,
}

/// Where a polynomial is evaluated: 1 to 2^60, times 8, so that the bits of a product above the prime's are
/// its upper half.
#[derive(Clone, Copy)]
pub(crate) struct Point(u64);

// === impl Point ===

impl Point {
    pub(crate) const fn new(secret: u64) -> Self {
        Self(((secret >> (u64::BITS - POINT_BITS)) + 1) << UNUSED)
    }
}

// === impl Poly ===

impl Poly {
    /// A hash that no list of words has.
    pub(crate) const NONE: u64 = spread(0);
    /// Another one.
    pub(crate) const OTHER: u64 = spread(u64::MAX);

    #[inline]
    pub(crate) const fn at(point: Point) -> Self {
        // The 1 keeps leading words of 0 from being lost.
        Self { point, sum: 1 }
    }

    /// Adds a value and what kind it is, so that no two lists of values add the same words.
    ///
    /// Its bytes, behind that of the kind, are seven in a word; the last word is marked, and says how many it
    /// has. Memory is read in steps of eight, where a caller that has just written the value wrote it: what
    /// is read across two writes waits for both.
    #[inline]
    pub(crate) fn value(&mut self, kind: u8, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks();
        let (mut held, mut bits) = (u64::from(kind), u8::BITS);
        for chunk in chunks {
            let chunk = u64::from_le_bytes(*chunk);
            self.word((held | chunk << bits) & mask(WORD));
            (held, bits) = (chunk >> (WORD - bits), bits + u8::BITS);
            if bits == WORD {
                self.word(held);
                (held, bits) = (0, 0);
            }
        }
        let (last, mut count) = (padded(rest), u64::from(bits / u8::BITS) + rest.len() as u64);
        held |= last << bits;
        if count > BYTES {
            self.word(held & mask(WORD));
            (held, count) = (last >> (WORD - bits), count - BYTES);
        }
        self.word(held | (LAST | count) << WORD);
    }

    /// Adds a word of [`POINT_BITS`] bits.
    #[inline]
    fn word(&mut self, word: u64) {
        // Less than 2^63 times 2^63 at most, so that both parts together stay below 3 × 2^61.
        let product = u128::from(self.sum + word) * u128::from(self.point.0);
        self.sum = (low(product) >> UNUSED) + low(product >> u64::BITS);
    }

    /// The hash.
    #[inline]
    pub(crate) const fn finish(self) -> u64 {
        // Equal words give equal sums, reduced or not.
        spread(self.sum)
    }
}

/// A bijection that lets all bits decide about the high ones, and both halves about the low ones.
#[inline]
const fn spread(word: u64) -> u64 {
    (word ^ word >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half")]
const fn low(word: u128) -> u64 {
    word as u64
}

const fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Up to seven bytes as a word: reads that overlap, instead of one for each byte.
#[inline]
fn padded(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let at = |position: usize| bytes.get(position).map_or(0, |byte| u64::from(*byte) << (8 * position));
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let last = u64::from(u32::from_le_bytes(*last)) << (8 * (length - 4));
            u64::from(u32::from_le_bytes(*first)) | last
        }
        _ => at(0) | at(length / 2) | at(length.saturating_sub(1)),
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
            let mut poly = Poly::at(Point::new(secret));
            let mut words = Vec::new();
            for value in &values {
                poly.value(5, value);
                let bytes = [&[5], &value[..]].concat();
                words.extend(bytes.chunks(7).map(|chunk| {
                    chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
                }));
                let count = (bytes.len() as u64 - 1) % 7 + 1;
                *words.last_mut().unwrap() += (8 + count) << 56;
            }
            prop_assert_eq!(poly.sum % PRIME, evaluated((secret >> 4) + 1, &words));
        }

        #[test]
        fn sums_stay_in_their_range(secret: u64, words in prop::collection::vec(any::<u64>(), 0..60)) {
            let mut poly = Poly::at(Point::new(secret));
            for word in words {
                poly.word(word & mask(POINT_BITS));
                prop_assert!((1..3 << PRIME_BITS).contains(&poly.sum));
            }
        }
    }

    #[test]
    fn extreme_sums_stay_in_their_range() {
        for (secret, word) in [(u64::MAX, u64::MAX), (u64::MAX, 0), (0, u64::MAX), (0, 0)] {
            let mut poly = Poly::at(Point::new(secret));
            for _ in 0..100_000 {
                poly.word(word & mask(POINT_BITS));
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
                let mut poly = Poly::at(Point::new(0x0123_4567_89ab_cdef));
                poly.value(1, &key.to_be_bytes());
                counts[usize::try_from(bits(poly.finish()) % BINS).unwrap()] += 1;
            }
            // Five standard deviations of chance.
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(*least > 820 && *most < 1140, "{least} to {most} of 977");
        }
    }
}
