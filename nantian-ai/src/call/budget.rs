//! How many calls of a target may be repeats at once, so that a provider in trouble is not asked ever more
//! often.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many calls of one target may be further attempts.
///
/// It is Envoy's retry budget: a share of the calls that wait for their answers, and never less than a few.
/// As many again may wait for a target that asked to be left alone, while others of a
/// [`ModelRoute`](crate::route::ModelRoute) are asked, and be asked again then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BudgetPolicy {
    /// The share of the calls under way that may be repeats.
    ///
    /// Unit: percent. Default: 20. Source: the operator of the proxy.
    pub percent: u32,
    /// So many may be repeats however few are under way.
    ///
    /// Unit: calls. Default: 3. Source: the operator of the proxy.
    pub min_concurrent: u32,
}

/// The calls of one target that are under way, shared by all who call it.
///
/// ```
/// use std::sync::Arc;
/// use nantian_ai::retry::{BudgetPolicy, RetryBudget};
///
/// let budget = Arc::new(RetryBudget::new(BudgetPolicy::default().with_min_concurrent(1)));
/// let mut first = budget.begin();
/// let mut second = budget.begin();
/// assert!(first.may_repeat() && !second.may_repeat());
/// drop(first);
/// assert!(second.may_repeat());
/// ```
#[derive(Debug, Default)]
pub struct RetryBudget {
    policy: BudgetPolicy,
    calls: AtomicU64,
    repeats: AtomicU64,
    put_off: AtomicU64,
}

/// One call until it has its answer.
///
/// # Cancellation
/// Dropping it makes room for others.
#[derive(Debug)]
pub struct BudgetedCall {
    budget: Arc<RetryBudget>,
    repeats: bool,
    put_off: bool,
}

// === impl BudgetPolicy ===

impl BudgetPolicy {
    /// Every call may be repeated.
    pub const UNLIMITED: Self = Self { percent: 100, min_concurrent: u32::MAX };

    /// Sets the share of the calls that may be repeats, in percent.
    #[must_use]
    pub const fn with_percent(mut self, percent: u32) -> Self {
        self.percent = percent;
        self
    }

    /// Sets how many calls may always be repeats.
    #[must_use]
    pub const fn with_min_concurrent(mut self, calls: u32) -> Self {
        self.min_concurrent = calls;
        self
    }

    pub(crate) const fn standard() -> Self {
        Self { percent: 20, min_concurrent: 3 }
    }
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self::standard()
    }
}

// === impl RetryBudget ===

impl RetryBudget {
    /// A budget without calls.
    pub fn new(policy: BudgetPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// A call begins.
    pub fn begin(self: &Arc<Self>) -> BudgetedCall {
        self.calls.fetch_add(1, Relaxed);
        BudgetedCall { budget: Arc::clone(self), repeats: false, put_off: false }
    }

    fn room(&self) -> u64 {
        let share = self.calls.load(Relaxed).saturating_mul(self.policy.percent.into()) / 100;
        share.max(self.policy.min_concurrent.into())
    }

    /// Takes one of the places that `taken` are of, if there is room.
    fn takes_place(&self, taken: &AtomicU64) -> bool {
        let room = self.room();
        let one_more = |taken: u64| (taken < room).then_some(taken + 1);
        taken.fetch_update(Relaxed, Relaxed, one_more).is_ok()
    }
}

// === impl BudgetedCall ===

impl BudgetedCall {
    /// Whether the call may be repeated; once it may, it may again.
    pub fn may_repeat(&mut self) -> bool {
        self.repeats = self.repeats || self.budget.takes_place(&self.budget.repeats);
        self.repeats
    }

    /// Whether the call may be put off until others were asked. As many may as may be repeated, and none of
    /// them takes the place of one that is: another target may well serve it.
    pub(crate) fn may_be_put_off(&mut self) -> bool {
        self.put_off = self.put_off || self.budget.takes_place(&self.budget.put_off);
        if self.put_off && std::mem::take(&mut self.repeats) {
            self.budget.repeats.fetch_sub(1, Relaxed);
        }
        self.put_off
    }
}

impl Drop for BudgetedCall {
    fn drop(&mut self) {
        self.budget.calls.fetch_sub(1, Relaxed);
        if self.repeats {
            self.budget.repeats.fetch_sub(1, Relaxed);
        }
        if self.put_off {
            self.budget.put_off.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_call_in_five_may_be_a_repeat_and_three_always_may() {
        for (calls, repeats) in [(1, 1), (3, 3), (10, 3), (20, 4), (100, 20)] {
            let budget = Arc::new(RetryBudget::default());
            let mut calls: Vec<_> = (0..calls).map(|_| budget.begin()).collect();
            assert_eq!(calls.iter_mut().filter_map(|call| call.may_repeat().then_some(())).count(), repeats);
        }
    }

    #[test]
    fn without_a_limit_every_call_may() {
        let budget = Arc::new(RetryBudget::new(BudgetPolicy::UNLIMITED));
        let mut calls: Vec<_> = (0..1_000).map(|_| budget.begin()).collect();
        assert!(calls.iter_mut().all(BudgetedCall::may_repeat));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn repeats_never_exceed_the_budget_when_they_are_granted_and_end_with_their_calls(
            steps in vec((0_u8..4, any::<prop::sample::Index>()), 0..200),
        ) {
            let budget = Arc::new(RetryBudget::default());
            let mut calls: Vec<BudgetedCall> = Vec::new();
            for (step, at) in steps {
                match step {
                    0 => calls.push(budget.begin()),
                    _ if calls.is_empty() => {}
                    1 => drop(calls.swap_remove(at.index(calls.len()))),
                    2 => {
                        let at = at.index(calls.len());
                        calls[at].may_be_put_off();
                    }
                    _ => {
                        let before = calls.iter().filter(|call| call.repeats).count();
                        let at = at.index(calls.len());
                        let (had, room) = (calls[at].repeats, (calls.len() / 5).max(3));
                        prop_assert_eq!(calls[at].may_repeat(), had || before < room);
                    }
                }
            }
            drop(calls);
            let left = [&budget.calls, &budget.repeats, &budget.put_off].map(|count| count.load(Relaxed));
            prop_assert_eq!(left, [0; 3]);
        }
    }
}
