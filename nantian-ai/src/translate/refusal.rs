//! What a refusal becomes.

use bytes::Bytes;

use super::Translation;
use crate::codec::StreamEncoder;
use crate::dialect::ClientDialect;
use crate::ir::{Event, Fault, FaultKind, ToolNames};

// === impl Translation ===

impl Translation {
    /// The stream that tells a client of Responses that its conversation is too long, if it has asked for
    /// one: OpenAI says so in a stream, and Codex shortens a conversation for nothing else.
    pub(crate) fn too_long(&self, fault: &Fault) -> Option<Bytes> {
        let is_streamed = self.is_stream() && self.client == ClientDialect::Responses;
        if !is_streamed || fault.kind != FaultKind::ContextLength {
            return None;
        }
        let mut encoder = StreamEncoder::new(self.client, self.defaults(), ToolNames::default());
        let mut out = Vec::new();
        for event in [Event::Start { id: None, model: None }, Event::Failed(fault.clone())] {
            encoder.push(event, &mut out);
        }
        Some(out.into())
    }
}
