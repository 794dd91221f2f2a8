//! How long prompts and answers are.

use std::sync::atomic::{AtomicU64, Ordering};

use nantian_ai::RequestFacts;
use nantian_ratelimit::OutputEstimate;

/// What requests to one model use, as far as it does not follow from their bodies.
#[derive(Debug, Default)]
pub(crate) struct Lengths {
    /// Of answers.
    pub(crate) outputs: OutputEstimate,
    /// Of prompts that refer to what is stored elsewhere.
    pub(crate) inputs: OutputEstimate,
    /// Of what the tools find that the provider runs, which is a part of the prompt.
    pub(crate) found: OutputEstimate,
    /// Of prompts what the provider reads from its cache.
    pub(crate) cached: CachedShare,
}

/// The share of prompts that a provider reads from its cache: a mean that moves by a sixteenth with each of
/// them.
#[derive(Debug, Default)]
pub(crate) struct CachedShare(AtomicU64);

const WHOLE: u64 = 1 << 16;

// === impl Lengths ===

impl Lengths {
    /// Tokens to expect of a prompt of which the body has `estimate`, and tools the rest that the provider
    /// runs, if it runs any.
    pub(super) fn input(&self, facts: &RequestFacts, estimate: u64, runs_tools: bool, bucket: u64) -> u64 {
        let said = if facts.refers { estimate.max(self.inputs.expect(None, bucket)) } else { estimate };
        let found = if runs_tools { self.found.expect(None, bucket) } else { 0 };
        said.saturating_add(found)
    }
}

// === impl CachedShare ===

impl CachedShare {
    /// Takes note of a prompt of `input` tokens. Racing reports may lose one another, which an estimate
    /// bears.
    pub(crate) fn learn(&self, cached: u64, input: u64) {
        let share = cached.min(input).saturating_mul(WHOLE).checked_div(input);
        if let Some(share) = share {
            let known = self.0.load(Ordering::Relaxed);
            self.0.store(known - known / 16 + share / 16, Ordering::Relaxed);
        }
    }

    /// Tokens to expect from the cache, of a prompt of `input` tokens.
    pub(super) fn expect(&self, input: u64) -> u64 {
        input.saturating_mul(self.0.load(Ordering::Relaxed)) / WHOLE
    }
}
