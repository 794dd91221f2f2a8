//! The script that decides, what it is told, and what it answers.

use crate::clock::{Timestamp, nanos};
use crate::cost::Cost;
use crate::policy::{Limit, Unit};

/// Decides and corrects.
pub(super) const DECIDE: &str = include_str!("decide.lua");
/// What all replicas agree on.
pub(super) const GREET: &str = include_str!("greet.lua");

/// What doubles round away.
const ROUNDING: f64 = 1e-6;

/// What the script is to do with the limits of a policy.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Order {
    /// Unit and window of each limit, by which the server recognises its level after an edit.
    pub(super) signature: Vec<u8>,
    pub(super) terms: Vec<u8>,
}

/// What the script answered.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Answer {
    pub(super) fits: bool,
    /// Items in use of each limit, after the charge if there was one.
    pub(super) used: Vec<f64>,
}

// === impl Order ===

impl Order {
    /// Corrects every limit by what `correction` says, then charges `cost` if it fits.
    pub(super) fn new<'a>(
        limits: impl Iterator<Item = &'a Limit>,
        cost: Cost,
        mut correction: impl FnMut(&Limit) -> i64,
    ) -> Self {
        let mut order = Self::default();
        for limit in limits {
            order.signature.extend_from_slice(&signature(limit));
            let (max, capacity) = (limit.max().max(1), limit.capacity().max(1));
            let terms = [
                per_microsecond(limit),
                capacity as f64,
                capacity.saturating_add(max) as f64,
                correction(limit) as f64,
                charge(limit, cost) as f64,
            ];
            order.terms.extend(terms.iter().flat_map(|term| term.to_le_bytes()));
        }
        order
    }
}

/// What `limit` counts of `cost`; a cost above the capacity asks for a full bucket and takes all of it.
pub(super) fn charge(limit: &Limit, cost: Cost) -> u64 {
    cost.of(limit.unit()).min(limit.capacity().max(1))
}

/// Which limit keeps `cost` out longest, by position, and until when.
pub(super) fn worst<'a>(
    limits: impl Iterator<Item = &'a Limit>,
    used: &[f64],
    cost: Cost,
    now: Timestamp,
) -> (usize, Timestamp) {
    let waits = limits.zip(used).map(|(limit, used)| {
        let charge = charge(limit, cost);
        let missing = used + charge as f64 - limit.capacity().max(1) as f64;
        if charge == 0 || missing <= ROUNDING { 0.0 } else { missing / per_microsecond(limit) }
    });
    let worst = waits.enumerate().fold((0, 0.0), |worst, next| if next.1 > worst.1 { next } else { worst });
    #[expect(clippy::cast_possible_truncation, reason = "float casts saturate")]
    let micros = worst.1.ceil().max(1.0) as u64;
    (worst.0, now.saturating_add(std::time::Duration::from_micros(micros)))
}

/// Items that `limit` refills in a microsecond.
fn per_microsecond(limit: &Limit) -> f64 {
    limit.max().max(1) as f64 * 1000.0 / nanos(limit.window()).max(1) as f64
}

/// Unit and window: seconds need 22 bits, and a window in fractions of one is told apart by its milliseconds.
fn signature(limit: &Limit) -> [u8; 4] {
    let unit = match limit.unit() {
        Unit::Requests => 0,
        Unit::Tokens => 1 << 31,
    };
    // 31 days are 2^31.3 milliseconds: the unit takes the highest bit, windows above 24 days count by the second.
    let window = limit.window();
    let millis = u32::try_from(window.as_millis()).ok().filter(|millis| *millis < 1 << 30);
    let window = millis.unwrap_or_else(|| 1 << 30 | u32::try_from(window.as_secs()).unwrap_or(0));
    (unit | window).to_be_bytes()
}

// === impl Answer ===

impl Answer {
    /// Reads the answer to an order about `limits` limits.
    pub(super) fn read(bytes: &[u8], limits: usize) -> Option<Self> {
        let (fits, used) = bytes.split_first()?;
        let (levels, []) = used.as_chunks::<8>() else { return None };
        if levels.len() != limits {
            return None;
        }
        let used: Vec<f64> = levels.iter().map(|level| f64::from_le_bytes(*level)).collect();
        let is_sane = used.iter().all(|level| level.is_finite() && *level >= 0.0);
        is_sane.then_some(Self { fits: *fits != 0, used })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::LimitName;

    #[test]
    fn limits_with_other_units_or_windows_have_other_signatures() {
        let name = || LimitName::new("a").unwrap();
        let limits = [
            Limit::requests_per_minute(1),
            Limit::tokens_per_minute(1),
            Limit::tokens_per_hour(1),
            Limit::new(name(), Unit::Tokens, 1, Duration::from_millis(60_001)),
            Limit::new(name(), Unit::Tokens, 1, Limit::MAX_WINDOW),
            Limit::new(name(), Unit::Requests, 1, Limit::MAX_WINDOW),
            Limit::new(name(), Unit::Tokens, 1, Limit::MAX_WINDOW - Duration::from_secs(1)),
        ];
        let mut signatures: Vec<_> = limits.iter().map(signature).collect();
        signatures.sort_unstable();
        signatures.dedup();
        assert_eq!(signatures.len(), limits.len());
        assert_eq!(signature(&Limit::tokens_per_hour(7).with_burst(2.0)), signature(&limits[2]));
    }

    #[test]
    fn what_is_no_answer_is_not_read() {
        assert_eq!(Answer::read(b"", 0), None);
        assert_eq!(Answer::read(&[1, 0, 0], 1), None);
        assert_eq!(Answer::read(&[1], 1), None);
        let level = |level: f64| [&[1][..], &level.to_le_bytes()].concat();
        assert_eq!(Answer::read(&level(f64::NAN), 1), None);
        assert_eq!(Answer::read(&level(-1.0), 1), None);
        assert_eq!(Answer::read(&level(2.5), 1), Some(Answer { fits: true, used: vec![2.5] }));
    }
}
