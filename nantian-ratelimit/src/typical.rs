//! What the requests of one limiter use.

use crate::sync::{AtomicU64, Ordering};

/// An estimate of the 80th percentile of what requests used, in tokens.
#[derive(Debug, Default)]
pub(crate) struct Typical {
    /// The estimate in the lower [`TOKENS_BITS`], above it how many requests it was learnt from.
    learnt: AtomicU64,
}

const TOKENS_BITS: u32 = 48;
const MOST_TOKENS: u64 = (1 << TOKENS_BITS) - 1;

/// How much a request that used less lowers the estimate: one in so many, fewer as long as little is known.
/// With larger steps it sways, and what minutes use with it.
const STEPS: (u64, u64) = (16, 256);

/// Steps up for one that used more: of five requests four use less than the 80th percentile.
const STEPS_UP: u64 = 4;

// === impl Typical ===

impl Typical {
    /// The estimate; 0 as long as nothing was learnt.
    pub(crate) fn tokens(&self) -> u64 {
        self.learnt.load(Ordering::Relaxed) & MOST_TOKENS
    }

    /// Takes note of a request. Racing notes may lose one another, which an estimate bears.
    pub(crate) fn learn(&self, tokens: u64) {
        let learnt = self.learnt.load(Ordering::Relaxed);
        let (estimate, requests) = (learnt & MOST_TOKENS, learnt >> TOKENS_BITS);
        let step = (estimate / requests.clamp(STEPS.0, STEPS.1)).max(1);
        let next = if estimate == 0 {
            tokens
        } else if tokens > estimate {
            estimate + (tokens - estimate).min(step.saturating_mul(STEPS_UP))
        } else {
            estimate - (estimate - tokens).min(step)
        };
        let requests = (requests + 1).min(STEPS.1);
        self.learnt.store(requests << TOKENS_BITS | next.min(MOST_TOKENS), Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn learnt(from: impl IntoIterator<Item = u64>) -> u64 {
        let typical = Typical::default();
        from.into_iter().for_each(|tokens| typical.learn(tokens));
        typical.tokens()
    }

    #[test]
    fn it_settles_where_one_of_five_requests_uses_more() {
        let settled = learnt((0..20_000).map(|at| 1 + at * 7919 % 1000));
        assert!((740..830).contains(&settled), "{settled}");
    }

    #[test]
    fn a_first_request_of_another_size_is_soon_forgotten() {
        assert_eq!(learnt([]), 0);
        assert_eq!(learnt([10]), 10);
        let risen = learnt([10].into_iter().chain([5000; 100]));
        let fallen = learnt([30_000].into_iter().chain([500; 300]));
        assert!(risen >= 4000 && fallen <= 10_000, "{risen} {fallen}");
        assert_eq!(learnt([u64::MAX, u64::MAX]), MOST_TOKENS);
    }
}
