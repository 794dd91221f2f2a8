//! The end of a stream for its plugins: each logs it, is asked whether it is done, and forgets it.

use std::sync::Arc;

use super::StreamContext;
use super::active_plugin::ActivePlugin;
use super::call::Call;
use super::direction::Direction;
use super::exchange::Exchange;
use super::guest_call::{GuestCall, GuestCallResult};
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
                lease.orphan(context, Arc::clone(&self.shared), is_logged);
                slot.settle();
                continue;
            };
            if cell.instance_of(slot, lease.generation()).is_none() {
                note_cost(slot, exchange.plugins.get(index));
                continue;
            }
            exchange.begin(index, false);
            let call = Call::Close { is_logged };
            let_end(slot, GuestCall { cell, exchange, call, context }.begin(slot));
            slot.settle();
        }
    }

    /// Counts bytes of a body that no plugin was shown.
    pub(crate) fn count_unseen(&mut self, direction: Direction, bytes: usize) {
        self.note(|exchange| exchange.count_bytes(direction, bytes));
    }

    /// Says why the response is what it is, unless something has been said of it.
    pub(crate) fn explain(&mut self, details: &str, flags: u32) {
        self.note(|exchange| {
            if exchange.details.is_none() {
                (exchange.details, exchange.flags) = (Some(details.to_owned()), flags);
            }
        });
    }

    /// Notes something for those who log the stream.
    fn note(&mut self, note: impl FnOnce(&mut Exchange)) {
        if let Some(exchange) = &mut self.exchange {
            note(exchange);
        } else if let Some(mut exchange) = self.shared.try_lock() {
            note(&mut exchange);
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
