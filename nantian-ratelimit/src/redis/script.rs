//! The script that decides, what it is told, and what it answers.

use std::time::Duration;

use crate::clock::{Timestamp, nanos};
use crate::cost::Cost;
use crate::limit::{Limit, Unit};

/// Decides and corrects, as a template: see there.
const DECIDE: &str = include_str!("decide.lua");
/// What all replicas agree on.
pub(super) const GREET: &str = include_str!("greet.lua");

/// Bytes of a limit's signature.
const SIGNATURE: usize = 4;
/// Bytes of a number.
const NUMBER: usize = 8;
/// Numbers that the script is told of each limit: its speed, the room it must have, the cost.
const TERMS: usize = 3;
/// Numbers that a correction is made of: what it is, and where it ends.
const CORRECTION: usize = 2;
/// Numbers of the terms after the most that can be in use of each limit.
const AGE: usize = 1;
/// Numbers of a state before the levels: the milliseconds that it had left.
const LEFT: usize = 1;

/// What doubles round away.
const ROUNDING: f64 = 1e-6;

/// What the script is to do with the limits of a policy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Order {
    /// How many limits there are.
    pub(super) limits: usize,
    /// Unit and window of each limit, by which the server recognises its level after an edit, then its
    /// numbers.
    pub(super) terms: Vec<u8>,
    /// What each limit is to take more, or less, and the most that can be owed; nothing for a decision alone.
    pub(super) corrections: Option<Vec<u8>>,
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
    /// Corrects every limit by what `correction` says, then charges `cost` if it fits. Of what was used more
    /// than `age` ago, nobody owes more than these limits let him owe.
    pub(super) fn new<'a>(
        limits: impl Iterator<Item = &'a Limit>,
        cost: Cost,
        age: Duration,
        mut correction: impl FnMut(&Limit) -> i64,
    ) -> Self {
        let (mut terms, mut numbers, mut corrections) = (Vec::new(), Vec::new(), Vec::new());
        let mut ceilings = Vec::new();
        let mut is_corrected = false;
        for limit in limits {
            terms.extend_from_slice(&signature(limit));
            let (max, capacity) = (limit.max().max(1), limit.capacity().max(1));
            let cost = limit.reserved(cost);
            // A limit that denies all keeps what was used before.
            let most = if limit.max() == 0 { f64::INFINITY } else { capacity.saturating_add(max) as f64 };
            // What costs nothing needs no room: it passes debt too.
            let room = if cost == 0 { most } else { (capacity - cost) as f64 + ROUNDING };
            write(&mut numbers, [per_millisecond(limit), room, cost as f64]);
            write(&mut ceilings, [most]);
            let correction = correction(limit);
            is_corrected |= correction != 0;
            write(&mut corrections, [correction as f64, most]);
        }
        let limits = terms.len() / SIGNATURE;
        terms.append(&mut numbers);
        terms.append(&mut ceilings);
        // Whole milliseconds are what the server counts, too.
        write(&mut terms, [age.as_millis() as f64]);
        Self { limits, terms, corrections: is_corrected.then_some(corrections) }
    }
}

/// Numbers as the script reads them.
fn write<const COUNT: usize>(bytes: &mut Vec<u8>, numbers: [f64; COUNT]) {
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
}

/// The script for a number of limits.
pub(super) fn decide(limits: usize) -> String {
    let signature = format!("<c{}", limits * SIGNATURE);
    let numbers = |count: usize| "d".repeat(count);
    let state = format!("{signature}{}", numbers(LEFT + limits));
    let terms = format!("{signature}{}", numbers(limits * TERMS));
    let (most, rest) = (format!("<{}", numbers(limits + AGE)), limits * (SIGNATURE + TERMS * NUMBER) + 1);
    let corrections = format!("<{}", numbers(limits * CORRECTION));
    let template = DECIDE.lines().filter(|line| !line.trim_start().starts_with("--"));
    let mut script = String::new();
    for line in template {
        let line = line.replace("$terms", &terms).replace("$corrections", &corrections);
        let line = line.replace("$most", &most).replace("$rest", &rest.to_string());
        let line = line.replace("$state", &state).replace("$size", &state_size(limits).to_string());
        let numbered = |text: &str| (1..=limits).map(|limit| text.replace('@', &limit.to_string())).collect();
        let lines: Vec<String> =
            match line.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?))) {
                Some((before, (list, after))) => {
                    let list: Vec<String> = numbered(list);
                    vec![format!("{before}{}{after}", list.join(", "))]
                }
                None if line.contains('@') => numbered(&line),
                None => vec![line],
            };
        for line in lines {
            script.push_str(&line);
            script.push('\n');
        }
    }
    script
}

/// Bytes of a state.
const fn state_size(limits: usize) -> usize {
    limits * (SIGNATURE + NUMBER) + LEFT * NUMBER
}

/// Which limit keeps `cost` out longest, by position, and until when: the server counts whole milliseconds.
pub(super) fn worst<'a>(
    limits: impl Iterator<Item = &'a Limit>,
    used: &[f64],
    cost: Cost,
    now: Timestamp,
) -> (usize, Timestamp) {
    let waits = limits.zip(used).map(|(limit, used)| {
        if lacks(limit, *used, cost) { missing(limit, *used, cost) / per_millisecond(limit) } else { 0.0 }
    });
    let worst = waits.enumerate().fold((0, 0.0), |worst, next| if next.1 > worst.1 { next } else { worst });
    #[expect(clippy::cast_possible_truncation, reason = "float casts saturate")]
    let millis = worst.1.ceil().max(1.0) as u64;
    (worst.0, now.saturating_add(Duration::from_millis(millis)))
}

/// Whether `limit` has no room for `cost` while so much is in use.
pub(super) fn lacks(limit: &Limit, used: f64, cost: Cost) -> bool {
    limit.reserved(cost) > 0 && missing(limit, used, cost) > ROUNDING
}

/// Items that must refill until `cost` fits.
fn missing(limit: &Limit, used: f64, cost: Cost) -> f64 {
    used + limit.reserved(cost) as f64 - limit.capacity().max(1) as f64
}

/// Items that `limit` refills in a millisecond.
fn per_millisecond(limit: &Limit) -> f64 {
    limit.max().max(1) as f64 * 1e6 / nanos(limit.window()).max(1) as f64
}

/// Unit and window: seconds need 22 bits, and a window in fractions of one is told apart by its milliseconds.
fn signature(limit: &Limit) -> [u8; SIGNATURE] {
    let unit = match limit.unit() {
        Unit::Requests => 0,
        Unit::Tokens => 1 << 31,
    };
    // 31 days are 2^31.3 milliseconds: the unit takes the highest bit, windows above 12 days count by the
    // second.
    let window = limit.window();
    let millis = u32::try_from(window.as_millis()).ok().filter(|millis| *millis < 1 << 30);
    let window = millis.unwrap_or_else(|| 1 << 30 | u32::try_from(window.as_secs()).unwrap_or(0));
    (unit | window).to_be_bytes()
}

// === impl Answer ===

impl Answer {
    /// Reads the answer to an order about `limits` limits.
    pub(super) fn read(bytes: &[u8], limits: usize) -> Option<Self> {
        if bytes.len() != state_size(limits) {
            return None;
        }
        let (numbers, []) = bytes.get(limits * SIGNATURE..)?.as_chunks::<NUMBER>() else { return None };
        let mut numbers = numbers.iter().map(|number| f64::from_le_bytes(*number));
        let fits = numbers.next()? >= 0.0;
        let used: Vec<f64> = numbers.collect();
        let is_sane = used.iter().all(|level| level.is_finite() && *level >= 0.0);
        is_sane.then_some(Self { fits, used })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::limit::LimitName;

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
        assert_eq!(Answer::read(&[0; 19], 1), None);
        assert_eq!(Answer::read(&[0; 32], 1), None);
        let answer =
            |left: f64, level: f64| [&b"sign"[..], &left.to_le_bytes(), &level.to_le_bytes()].concat();
        assert_eq!(Answer::read(&answer(1.0, f64::NAN), 1), None);
        assert_eq!(Answer::read(&answer(1.0, -1.0), 1), None);
        assert_eq!(Answer::read(&answer(1.0, 2.5), 1), Some(Answer { fits: true, used: vec![2.5] }));
        assert_eq!(Answer::read(&answer(-1.0, 0.0), 1), Some(Answer { fits: false, used: vec![0.0] }));
        assert_eq!(Answer::read(&answer(1.0, 2.5), 2), None);
    }

    #[test]
    fn the_script_is_written_out_for_each_limit() {
        let script = decide(2);
        for line in [
            "local signature, speed1, room1, cost1, speed2, room2, cost2 = unpack('<c8dddddd', ARGV[1])",
            "  local most1, most2, age = unpack('<ddd', ARGV[1], 57)",
            "local level2 = 0",
            "  if #state == 32 then",
            "    known, at, level1, level2 = unpack('<c8ddd', state)",
            "  local correction1, ceiling1, correction2, ceiling2 = unpack('<dddd', corrections)",
        ] {
            assert!(script.lines().any(|written| written == line), "{line}\n{script}");
        }
        assert!(!script.contains(['@', '{', '$']), "{script}");
    }
}
