//! What the limits of one TokenPolicy decided and what was used of them.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::sync::lock;

/// What a TokenPolicy decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limited {
    /// It passed.
    Admitted,
    /// It was refused.
    Refused,
    /// It passed though a limit was exhausted.
    Warned,
    /// Nobody was asked, or nobody answered.
    Unchecked,
}

pub(super) const DECISIONS: [&str; 4] = ["admitted", "refused", "warned", "unchecked"];
pub(super) const TOKENS: [&str; 5] = ["reserved", "used", "refunded", "debt", "forgiven"];

/// The counters of one TokenPolicy.
#[derive(Default)]
pub struct LimitMetrics {
    decisions: [AtomicU64; DECISIONS.len()],
    tokens: [AtomicU64; TOKENS.len()],
    keys: Mutex<Option<Box<dyn Fn() -> Keys + Send>>>,
}

/// The keys by which the limits of one TokenPolicy count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "whoever counts them knows all of it")]
pub struct Keys {
    /// Those in use.
    pub live: usize,
    /// Decisions about those that share a bucket for want of room.
    pub overflows: u64,
}

impl LimitMetrics {
    /// Notes a decision.
    pub fn decided(&self, decision: Limited) {
        let [admitted, refused, warned, unchecked] = &self.decisions;
        let counter = match decision {
            Limited::Admitted => admitted,
            Limited::Refused => refused,
            Limited::Warned => warned,
            Limited::Unchecked => unchecked,
        };
        counter.fetch_add(1, Relaxed);
    }

    /// Notes what a request had reserved, what it used, and what of that nobody pays; in tokens.
    pub fn settled(&self, reserved: u64, used: u64, forgiven: u64) {
        let counts = [reserved, used, reserved.saturating_sub(used), used.saturating_sub(reserved), forgiven];
        for (counter, count) in self.tokens.iter().zip(counts) {
            counter.fetch_add(count, Relaxed);
        }
    }

    /// Sets who counts the keys.
    pub fn count_keys(&self, keys: impl Fn() -> Keys + Send + 'static) {
        *lock(&self.keys) = Some(Box::new(keys));
    }

    pub(super) fn decisions(&self) -> impl Iterator<Item = (&'static str, u64)> {
        DECISIONS.into_iter().zip(self.decisions.iter().map(|count| count.load(Relaxed)))
    }

    pub(super) fn tokens(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TOKENS.into_iter().zip(self.tokens.iter().map(|count| count.load(Relaxed)))
    }

    pub(super) fn keys(&self) -> Keys {
        lock(&self.keys).as_ref().map_or_else(Keys::default, |count| count())
    }
}

impl fmt::Debug for LimitMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitMetrics").field("decisions", &self.decisions).finish_non_exhaustive()
    }
}
