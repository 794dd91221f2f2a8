//! What a reply took: the provider's counts, and estimates in the place of those that it does not tell.

use super::Meter;
use super::reader::Reader;
use crate::dialect::Dialect;
use crate::estimate::Weight;
use crate::usage::Usage;

// === impl Meter ===

impl Meter {
    pub(super) fn usage(&self) -> Usage {
        if !self.operation.spends() {
            return Usage::default();
        }
        let reported = self.tally.reported;
        let cached = reported.cache_read.unwrap_or(0);
        let input = self.reported_input();
        let output = match self.operation.generates() {
            true => self.reported_output(),
            false => Some(0),
        };
        let estimated = input.is_none() || output.is_none();
        let input = input.unwrap_or(self.input_estimate.max(cached));
        let output = output.unwrap_or_else(|| self.counted_output());
        let sum = input.saturating_add(output);
        Usage {
            input,
            output,
            cached,
            cache_written: reported.cache_written.unwrap_or(0),
            reasoning: reported.reasoning.unwrap_or(0).min(output),
            // Some providers leave reasoning out of the output, yet not out of the total.
            total: match reported.total {
                Some(total) if !estimated => total.max(sum),
                _ => sum,
            },
            estimated,
        }
    }

    fn reported_input(&self) -> Option<u64> {
        let reported = self.tally.reported;
        let input = reported.input?;
        match self.dialect {
            // Anthropic and Bedrock count what is read from and written to their caches apart.
            Dialect::Anthropic | Dialect::Bedrock => {
                let cache = [reported.cache_read, reported.cache_written];
                Some(cache.into_iter().flatten().fold(input, u64::saturating_add))
            }
            // Ollama reports nothing, or zero, for a prompt that it still has in its cache.
            Dialect::Ollama => Some(input).filter(|input| *input > 0),
            Dialect::Gemini | Dialect::OpenAi | Dialect::Responses => Some(input),
        }
    }

    /// The provider's count, if it is the last one: counts within a stream are of what came so far.
    fn reported_output(&self) -> Option<u64> {
        let last = self.tally.settled || self.tally.complete;
        self.tally.reported.output.filter(|_| last)
    }

    fn counted_output(&self) -> u64 {
        let counted = match &self.reader {
            Reader::Waiting | Reader::Refusal(_) => Weight::default(),
            Reader::Frames(_) | Reader::Ndjson(_) | Reader::Sse(_) => self.tally.text,
            Reader::Buffered(_) | Reader::Opaque => Weight::of_bytes(self.tally.bytes),
        };
        counted.tokens().max(self.tally.reported.output.unwrap_or(0))
    }
}
