//! How long prompts and answers are.

use nantian_ai::RequestFacts;
use nantian_ratelimit::OutputEstimate;

/// What requests to one model use, as far as it does not follow from their bodies.
#[derive(Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "whoever estimates and learns has both")]
pub struct Lengths {
    /// Of answers.
    pub outputs: OutputEstimate,
    /// Of prompts that refer to what is stored elsewhere.
    pub inputs: OutputEstimate,
}

// === impl Lengths ===

impl Lengths {
    /// Tokens to expect of a prompt of which the body has `estimate`.
    pub(super) fn input(&self, facts: &RequestFacts, estimate: u64, bucket: u64) -> u64 {
        if facts.refers { estimate.max(self.inputs.expect(None, bucket)) } else { estimate }
    }
}
