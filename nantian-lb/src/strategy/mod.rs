//! Choosing an index out of n weighted ones: tables built once for a set, and pure functions over them.
//!
//! Weights are above 0, and nothing here is asked to choose out of none.

mod alias_table;
mod even_round;
mod least_request;
mod maglev;
mod round_robin;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use self::alias_table::AliasTable;
use self::least_request::LeastRequest;
use self::maglev::Maglev;
use self::round_robin::RoundRobin;
use crate::cluster::Cluster;
use crate::config::Strategy;
use crate::hash::KeyHash;
use crate::latency::Latency;
use crate::members::MemberRef;

/// Of requests that are chosen by the response times of samples, one in so many is chosen as if none were
/// known: who was slow once could never show that it is well.
const BLIND: u64 = 64;

/// The tables of one strategy for one set of shares. Clones share them.
#[derive(Debug, Clone)]
pub(crate) enum Chooser {
    RoundRobin(RoundRobin),
    Random(AliasTable),
    LeastRequest(LeastRequest),
    /// With the decay of response times.
    PeakEwma(LeastRequest, Duration),
    ConsistentHash(Maglev, LeastRequest),
}

/// What a choice depends on besides the tables, of one endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// Requests in flight.
    pub(crate) in_flight: usize,
    /// The usual response time, in microseconds; 0 if it is not known, or not to be taken into account.
    pub(crate) latency: f32,
}

// === impl Load ===

impl Load {
    /// More than any other.
    pub(crate) const HEAVIEST: Self = Self { in_flight: usize::MAX, latency: f32::INFINITY };
}

// === impl Chooser ===

impl Chooser {
    /// Builds the tables for endpoints of these ids and weights.
    pub(crate) fn new(strategy: &Strategy, shares: &[(Arc<str>, u32)]) -> Self {
        let weights: Vec<_> = shares.iter().map(|&(_, weight)| weight).collect();
        match strategy {
            Strategy::RoundRobin => Self::RoundRobin(RoundRobin::new(&weights)),
            Strategy::Random => Self::Random(AliasTable::new(&weights)),
            Strategy::LeastRequest => Self::LeastRequest(LeastRequest::new(&weights)),
            Strategy::PeakEwma { .. } => {
                Self::PeakEwma(LeastRequest::new(&weights), strategy.decay().unwrap_or_default())
            }
            Strategy::ConsistentHash(_) => {
                let shares: Vec<_> = shares.iter().map(|(id, weight)| (&**id, *weight)).collect();
                Self::ConsistentHash(Maglev::new(&shares), LeastRequest::new(&weights))
            }
        }
    }

    /// Whether the choice depends on a random number.
    #[inline]
    pub(crate) fn is_by_chance(&self, key: Option<KeyHash>) -> bool {
        match self {
            Self::RoundRobin(_) => false,
            Self::ConsistentHash(..) => key.is_none(),
            Self::Random(_) | Self::LeastRequest(_) | Self::PeakEwma(..) => true,
        }
    }

    /// The place of the endpoint of choice.
    #[inline]
    pub(crate) fn choose(
        &self,
        random: u64,
        key: Option<KeyHash>,
        cursor: &AtomicU64,
        members: &[MemberRef],
        cluster: &Cluster,
    ) -> usize {
        match (self, key) {
            (Self::RoundRobin(round), _) => round.at(cursor.fetch_add(1, Ordering::Relaxed)),
            (Self::Random(alias_table), _) => alias_table.draw(random),
            // By bits that choices hardly depend on.
            (Self::LeastRequest(least), _) if !random.is_multiple_of(BLIND) => {
                least.choose(random, loads(members, Latency::latest))
            }
            (Self::PeakEwma(least, decay), _) => {
                let now = cluster.recent();
                least.choose_by_wait(random, loads(members, |latency| latency.at(now, *decay)))
            }
            (Self::ConsistentHash(table, _), Some(key)) => table.at(key.0),
            (Self::LeastRequest(least) | Self::ConsistentHash(_, least), _) => {
                least.choose(random, loads(members, |_| 0.0))
            }
        }
    }
}

/// Looks the loads up; `latency` tells which response time matters.
fn loads(members: &[MemberRef], latency: impl Fn(&Latency) -> f32) -> impl Fn(usize) -> Load {
    move |place| match members.get(place) {
        Some(MemberRef { handle, .. }) => {
            Load { in_flight: handle.load(), latency: latency(handle.latency()) }
        }
        None => Load::HEAVIEST,
    }
}

/// Maps a random number to an index below `n`, evenly, by its upper half.
pub(crate) fn scale(random: u64, n: usize) -> usize {
    index((random >> 32).wrapping_mul(n as u64) >> 32)
}

/// A number that is known to be an index.
fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The weights divided by their greatest common divisor, and their sum.
fn reduced(weights: &[u32]) -> (Vec<u32>, u64) {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let weights: Vec<_> = weights.iter().map(|weight| weight / divisor).collect();
    let sum = weights.iter().copied().map(u64::from).sum();
    (weights, sum)
}

fn are_equal(weights: &[u32]) -> bool {
    weights.windows(2).all(|pair| pair.first() == pair.last())
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}
