//! What a stream's plugins hold of its bodies, in the memory that the embedder has for all of them.

use bytes::Bytes;

use super::StreamContext;
use super::active_plugin::CallOutcome;
use super::body::PluginCursor;
use super::headers::Step;
use super::plugin_state::PluginMessage;
use crate::error::Cause;

// === impl StreamContext ===

impl StreamContext {
    /// Holds so many bytes in the memory, if there is any for them; else tells why the stream fails.
    pub(crate) fn hold(&mut self, bytes: usize) -> Result<(), Cause> {
        if self.held.is_none() {
            let memory = self.plugins().first().and_then(|plugin| plugin.module().engine().body_memory());
            self.held = memory.map(|memory| memory.begin());
        }
        let held = self.held.as_ref();
        held.map_or(Ok(()), |held| held.hold(u64::try_from(bytes).unwrap_or(u64::MAX)))
    }

    /// The same of what the plugins hold now.
    pub(super) fn hold_all(&mut self) -> Result<(), Cause> {
        self.hold(self.held_bytes())
    }

    /// Gives the memory back if nothing is held any more.
    pub(super) fn give_back(&mut self) {
        if self.held.is_some() && self.held_bytes() == 0 {
            self.held = None;
        }
    }

    fn held_bytes(&self) -> usize {
        let plugins = self.exchange.iter().flat_map(|exchange| &exchange.plugins);
        plugins.map(|plugin| plugin.request.held_bytes() + plugin.response.held_bytes()).sum()
    }

    /// Ends the stream whose body cannot be held.
    pub(super) fn cannot_hold(&mut self, cursor: &PluginCursor<'_>, chunk: &mut Bytes, cause: Cause) -> Step {
        let PluginCursor { plugin, index, direction } = *cursor;
        match self.failed(plugin, index, direction.body_phase(), cause) {
            CallOutcome::Over(action) => Step::Over(action),
            _ => {
                self.take_bytes_into(index, direction, chunk);
                Step::Next
            }
        }
    }
}

// === impl PluginMessage ===

impl PluginMessage {
    /// How many bytes of the body are held.
    fn held_bytes(&self) -> usize {
        self.kept.len() + self.window.as_ref().map_or(0, |window| window.bytes.len()) + self.events.len()
    }
}
