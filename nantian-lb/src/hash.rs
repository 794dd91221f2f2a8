//! The placement hash: part of the interface, because replicas and restarts must agree on it.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The version of hash function, table size and table filling that place a key on an endpoint.
///
/// Equal versions, endpoint ids, weights and keys give equal placement, on every machine. Version `nlb-h1` is
/// XXH3 (64 bit, seed 0) of the key modulo a Maglev table of 65 537 slots (655 373 for more than 6 553
/// endpoints).
pub const PLACEMENT_VERSION: &str = "nlb-h1";

const OFFSET_SEED: u64 = 1;
const SKIP_SEED: u64 = 2;
const REMAINDER_SEED: u64 = 3;
const IDENTITY_SEED: u64 = 4;

/// The hash of a request's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KeyHash(pub(crate) u64);

/// Stands for an endpoint, or a backend, where its name must not be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EndpointHash(pub(crate) u64);

/// The hashes that place an endpoint in the table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    /// Where its preference list begins.
    pub(crate) offset: u64,
    /// The step of its preference list.
    pub(crate) skip: u64,
    /// Its rank for the slots that remain when the shares are rounded down.
    pub(crate) rank: u64,
}

// === impl KeyHash ===

impl KeyHash {
    pub(crate) fn of(key: &[u8]) -> Self {
        Self(xxh3_64(key))
    }
}

// === impl EndpointHash ===

impl EndpointHash {
    pub(crate) fn of(id: &str) -> Self {
        Self(xxh3_64_with_seed(id.as_bytes(), IDENTITY_SEED))
    }
}

// === impl Permutation ===

impl Permutation {
    pub(crate) fn of(id: &str) -> Self {
        Self {
            offset: xxh3_64_with_seed(id.as_bytes(), OFFSET_SEED),
            skip: xxh3_64_with_seed(id.as_bytes(), SKIP_SEED),
            rank: xxh3_64_with_seed(id.as_bytes(), REMAINDER_SEED),
        }
    }
}

/// A second number, independent of the first for all practical purposes (the finaliser of SplitMix64).
pub(crate) const fn remix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
