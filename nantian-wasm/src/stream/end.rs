//! The end of a stream for its plugins: each logs it, is asked whether it is done, and forgets it.

use std::sync::Arc;

use super::StreamContext;
use super::active_plugin::ActivePlugin;
use super::call::Call;
use super::direction::Direction;
use super::guest_call::{GuestCall, GuestCallResult};
use super::notes::Notes;
use super::plugin_state::PluginState;
use crate::pool::Slot;
use crate::running::{ReleaseInstance as _, Started};

// === impl StreamContext ===

impl StreamContext {
    /// Ends the stream for every plugin that has seen it.
    pub(super) fn close(&mut self) {
        self.leave_running();
        let mut active = std::mem::take(&mut self.active);
        let mut exchange = self.exchange.take().filter(|_| active.len() == 1);
        // All of them log before the first one forgets the stream, as in Envoy.
        if active.len() > 1 {
            for (index, active) in active.iter_mut().enumerate() {
                self.log(index, active);
            }
        }
        for (index, active) in active.into_iter().enumerate() {
            let ActivePlugin { lease: Some(lease), context, is_logged, .. } = active else { continue };
            let slot = lease.slot();
            let exchange = exchange.take().or_else(|| self.shared.try_lock_owned());
            let (Some(mut cell), Some(mut exchange)) = (slot.try_lock(), exchange) else {
                lease.orphan(context, Arc::clone(&self.shared), is_logged, self.pending_notes.clone());
                slot.settle();
                continue;
            };
            if cell.instance_of(slot, lease.generation()).is_none() {
                note_cost(slot, exchange.plugins.get(index));
                continue;
            }
            self.pending_notes.tell(&mut exchange);
            exchange.begin(index, false);
            let call = Call::Close { is_logged };
            let_end(slot, GuestCall { cell, exchange, call, context }.begin(slot));
            slot.settle();
        }
    }

    /// Counts bytes of a body that no plugin was shown.
    pub(crate) fn count_unseen(&mut self, direction: Direction, bytes: usize) {
        self.note(Notes::of_unseen(direction, bytes));
    }

    /// Says why the response is what it is, unless something has been said of it.
    pub(crate) fn explain(&mut self, details: &str, flags: u32) {
        self.note(Notes::of_explanation(details, flags));
    }

    /// Notes something for those who log the stream.
    fn note(&mut self, notes: Notes) {
        let Self { exchange, shared, pending_notes, .. } = self;
        if let Some(exchange) = exchange {
            notes.tell(exchange);
        } else if let Some(mut exchange) = shared.try_lock() {
            pending_notes.tell(&mut exchange);
            notes.tell(&mut exchange);
        } else {
            pending_notes.keep(notes);
        }
    }

    /// Lets a plugin log the stream, if its instance and the exchange are free: otherwise it does when it is
    /// closed.
    fn log(&self, index: usize, active: &mut ActivePlugin) {
        let Some(lease) = &active.lease else { return };
        let slot = lease.slot();
        let (Some(mut cell), Some(mut exchange)) = (slot.try_lock(), self.shared.try_lock_owned()) else {
            return;
        };
        if cell.instance_of(slot, lease.generation()).is_none() {
            return;
        }
        self.pending_notes.tell(&mut exchange);
        exchange.begin(index, false);
        let guest_call = GuestCall { cell, exchange, call: Call::Log, context: active.context };
        let_end(slot, guest_call.begin(slot));
        active.is_logged = true;
    }
}

/// Notes what the stream has cost, and that its end was the instance's too: now, or when it has come.
fn let_end(slot: &Arc<Slot>, begun: Started<GuestCallResult>) {
    let note = |slot: &Slot, mut returned: GuestCallResult| {
        note_cost(slot, returned.exchange.as_ref().and_then(|exchange| exchange.own_ref()));
        returned.let_go(slot);
    };
    match begun {
        Started::Over(returned) => note(slot, returned),
        Started::Running(running) => {
            let slot = Arc::downgrade(slot);
            running.leave(move |returned| {
                if let Some(slot) = slot.upgrade() {
                    note(&slot, returned);
                }
            });
        }
    }
}

fn note_cost(slot: &Slot, plugin_state: Option<&PluginState>) {
    if let Some(plugin_state) = plugin_state {
        slot.peaks().note(&plugin_state.usage);
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::config::PluginConfig;
    use crate::engine::Engine;
    use crate::module::Module;
    use crate::plugin::Plugin;
    use crate::stream::{Action, StreamInfo};

    /// What a plugin logs of a stream of which something is noted while a guest has the exchange, until after
    /// the end of the stream or not.
    fn logged_of(is_busy_at_the_end: bool) -> Vec<(String, u64)> {
        let (engine, _threads) = Engine::new().unwrap();
        let guest = include_str!("../../tests/guests/log_notes.wat");
        let module = Module::compile(&engine, &wat::parse_str(guest).unwrap(), None).unwrap();
        let plugin = Plugin::new(&module, PluginConfig::new("logging")).unwrap();
        let mut context = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let mut parts = Request::new(()).into_parts().0;
        assert!(matches!(context.on_request_headers(&mut parts, true), Action::Continue));
        context.exchange = None;
        let busy = context.shared.try_lock_owned().unwrap();
        context.count_unseen(Direction::Request, 3);
        context.explain("first", 0);
        context.count_unseen(Direction::Request, 4);
        context.explain("second", 0);
        if is_busy_at_the_end {
            drop(context);
            drop(busy);
            engine.maintain();
        } else {
            drop(busy);
            drop(context);
        }
        plugin.status().metrics.into_iter().map(|metric| (metric.name, metric.value)).collect()
    }

    #[test]
    fn what_is_noted_while_a_guest_has_the_exchange_is_known_when_the_stream_is_logged() {
        for is_busy_at_the_end in [false, true] {
            let expected = [("code_details".to_owned(), 1), ("size".to_owned(), 7)];
            assert_eq!(logged_of(is_busy_at_the_end), expected, "{is_busy_at_the_end}");
        }
    }
}
