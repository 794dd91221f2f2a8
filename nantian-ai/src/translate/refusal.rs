//! What a refusal becomes.

use bytes::Bytes;

use super::Translation;
use crate::codec::{Defaults, StreamEncoder};
use crate::dialect::ClientDialect;
use crate::ir::{Event, Fault, ToolNames};

/// The stream that tells a client of Responses that its conversation is too long.
pub(crate) fn too_long(fault: &Fault, defaults: Defaults) -> Bytes {
    let mut encoder = StreamEncoder::new(ClientDialect::Responses, defaults, ToolNames::default());
    let mut out = Vec::new();
    for event in [Event::Start { id: None, model: None }, Event::Failed(fault.clone())] {
        encoder.push(event, &mut out);
    }
    out.into()
}

// === impl Translation ===

impl Translation {
    /// The same, of what has been said anew.
    pub(crate) fn too_long(&self, fault: &Fault) -> Bytes {
        too_long(fault, self.defaults())
    }
}
