//! What a stream's plugins hold of its bodies, in the memory that the embedder has for all of them.

use super::StreamContext;
use super::body::PluginCursor;
use super::headers::Step;
use super::plugin_state::PluginMessage;
use crate::error::{Cause, Failure};
use crate::held_bodies::HeldBodies;

// === impl StreamContext ===

impl StreamContext {
    /// A share of the memory, if there is one, which holds nothing yet.
    pub(crate) fn begin_holding(&self) -> Option<HeldBodies> {
        let memory = self.plugins().first()?.module().engine().body_memory()?;
        Some(memory.begin())
    }

    /// Has the memory of the bytes that are shown next, which may be held on; gives it back where something
    /// is held already, of the other message, say.
    pub(crate) fn go_on_holding(&mut self, held: HeldBodies) -> Option<HeldBodies> {
        if self.held.is_some() {
            return Some(held);
        }
        self.held = Some(held);
        None
    }

    /// Holds what the plugins hold now, if there is any memory for it; else tells why the stream fails.
    pub(super) fn hold_all(&mut self) -> Result<(), Cause> {
        self.held = self.held.take().or_else(|| self.begin_holding());
        self.held.as_ref().map_or(Ok(()), |held| held.hold(self.held_bytes()))
    }

    /// When a step is over: what no plugin holds any more is on its way. While a guest has the exchange,
    /// nobody knows.
    pub(super) fn let_pass(&mut self) {
        if self.held.is_some() && self.exchange.is_some() && self.held_bytes() == 0 {
            self.passing = self.held.take();
        }
    }

    /// The memory of what the last step let go, for whoever has that until it is taken.
    pub(crate) fn take_passing(&mut self) -> Option<HeldBodies> {
        self.passing.take()
    }

    fn held_bytes(&self) -> usize {
        let Some(exchange) = self.exchange.as_ref() else { return 0 };
        let messages = exchange.plugins.iter().flat_map(|plugin| plugin.messages.iter());
        messages.map(PluginMessage::held_bytes).sum::<usize>() + exchange.saved_bytes()
    }

    /// Ends the stream whose body cannot be held, under either failure policy.
    pub(super) fn cannot_hold(&mut self, cursor: &PluginCursor<'_>, cause: Cause) -> Step {
        let PluginCursor { plugin, index, direction } = *cursor;
        let failure = Failure::new(plugin.shared_name(), direction.body_phase(), cause);
        plugin.note_failure(&failure);
        Step::Over(self.refused(index, failure))
    }
}

// === impl PluginMessage ===

impl PluginMessage {
    /// How many bytes of the body are held.
    fn held_bytes(&self) -> usize {
        self.seen_bytes() + self.events.len()
    }
}
