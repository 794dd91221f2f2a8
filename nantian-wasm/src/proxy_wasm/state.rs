//! What the host keeps for one instance while its guest runs.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::lock::OwnedMutexGuard;
use wasmtime::Memory;

use super::abi::{Abi, Status};
use super::calls::{Calls, Received};
use super::contexts::Contexts;
use super::header_interner::HeaderInterner;
use super::memory::PendingAllocation;
use super::shared::SharedStore;
use super::space::{SharedSpace, VmStore};
use crate::config::{Capabilities, Hooks};
use crate::engine::Clock;
use crate::error::{Cause, Phase};
use crate::host::Host;
use crate::limits::Limits;
use crate::observe::PluginLog;
use crate::pool::Slot;
use crate::sandbox::{Budgets, HostTrap, Usage};
use crate::stream::Exchange;
use crate::tally::Tally;

/// Id of the one root context of an instance; streams count upwards from here.
pub(crate) const ROOT: u32 = 1;

/// What all instances of a plugin have in common.
pub(crate) struct SharedPlugin {
    pub(crate) name: Arc<str>,
    pub(crate) root_id: String,
    pub(crate) vm_id: String,
    pub(crate) configuration: Bytes,
    pub(crate) vm_configuration: Bytes,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) capabilities: Capabilities,
    pub(crate) hooks: Hooks,
    pub(crate) allow_network: bool,
    pub(crate) fails_open: bool,
    pub(crate) budgets: Budgets,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Clock,
    pub(crate) shared: Arc<SharedStore>,
    /// Where it finds the queues of other VM ids.
    pub(crate) space: SharedSpace,
    /// The data and queues of its own.
    pub(crate) vm: Arc<VmStore>,
    /// Weak references to it tell when the plugin is gone.
    pub(crate) life: Arc<()>,
    /// How many there are of the plugin.
    pub(crate) instances: u64,
    pub(crate) log: PluginLog,
}

/// The data of a store: what host calls work on.
pub(crate) struct State {
    pub(crate) plugin: Arc<SharedPlugin>,
    pub(crate) abi: Abi,
    pub(crate) limits: Limits,
    /// Known once the module is instantiated; a start section runs without.
    pub(crate) memory: Option<Memory>,
    /// The guest can allocate memory for what it is given.
    pub(crate) has_allocator: bool,
    /// The guest's allocator is running for this: nothing else that needs it may.
    pub(crate) pending_allocation: Option<PendingAllocation>,
    /// Carries bytes on their way into the guest, so that a host call does not allocate.
    pub(crate) scratch: Vec<u8>,
    pub(crate) interner: HeaderInterner,
    pub(crate) phase: Phase,
    /// The context the running callback was called for.
    pub(crate) active: u32,
    /// The context host calls work on: the active one unless the guest chose another.
    pub(crate) effective: u32,
    /// Every stream context that lives.
    pub(crate) contexts: Contexts,
    /// The exchange of the effective context.
    exchange: Option<OwnedMutexGuard<Exchange>>,
    /// The exchange of the active context, while another one is effective.
    aside: Option<OwnedMutexGuard<Exchange>>,
    /// The context that a reply is for.
    asker: Option<u32>,
    /// Its exchange, while another one is effective.
    reserved: Option<OwnedMutexGuard<Exchange>>,
    /// What the stream has cost that the running callback is for.
    pub(crate) usage: Usage,
    /// The root context is to end, and has said that it will call `proxy_done` when it can.
    pub(crate) is_ending: bool,
    /// Milliseconds between calls of `proxy_on_tick`, if the guest wants them.
    pub(crate) tick_period: Option<u64>,
    /// The tick of the engine at which it is to be called next.
    pub(crate) next_tick: u64,
    pub(crate) calls: Calls,
    /// What arrived from outside and is being shown to the guest.
    pub(crate) received: Option<Box<Received>>,
    /// Metrics by the id this guest knows them under: those of one kind in the order of their definition.
    pub(crate) metrics: [Vec<usize>; 3],
    /// The engine's clock when the callback began.
    pub(crate) now: u64,
    /// Beats of the clock the callback has run for so far, those of the slice that is running not included.
    pub(crate) ran: u64,
    /// For how many it may run.
    pub(crate) may_run: u64,
    /// That of its slot.
    pub(crate) tally: Arc<Tally>,
    /// The beat of the clock at which its time was counted last.
    counted_at: u64,
    /// Where this instance lives, for replies to find it.
    pub(crate) slot: Weak<Slot>,
    pub(crate) generation: u64,
}

/// Beats of the clock until a callback gives way for the first time: the first one may come at once, and most
/// callbacks take microseconds.
const FIRST_SLICE: u64 = 2;

/// What a callback does that a beat of the clock has met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EpochAction {
    Continue,
    /// To other tasks of its thread.
    Yield,
    /// Its time is over.
    Interrupt,
}

// === impl State ===

impl State {
    pub(crate) fn new(plugin: Arc<SharedPlugin>, abi: Abi, limits: Limits, slot: &Arc<Slot>) -> Self {
        Self {
            plugin,
            abi,
            limits,
            memory: None,
            has_allocator: false,
            pending_allocation: None,
            scratch: Vec::new(),
            interner: HeaderInterner::default(),
            phase: Phase::Start,
            active: ROOT,
            effective: ROOT,
            contexts: Contexts::default(),
            exchange: None,
            aside: None,
            usage: Usage::default(),
            is_ending: false,
            tick_period: None,
            next_tick: 0,
            calls: Calls::default(),
            received: None,
            metrics: Default::default(),
            now: 0,
            ran: 0,
            may_run: 0,
            asker: None,
            reserved: None,
            tally: Arc::clone(slot.tally()),
            counted_at: 0,
            slot: Arc::downgrade(slot),
            generation: slot.generation(),
        }
    }

    /// Enters a callback for a context.
    pub(crate) fn enter(&mut self, context: u32, phase: Phase) {
        self.choose_active();
        self.active = context;
        self.effective = context;
        self.phase = phase;
        self.pending_allocation = None;
        self.usage.begin_callback();
    }

    /// Goes on to the next callback of those that are entered at once; whether there is still a stream for
    /// it.
    pub(crate) fn begin_next(&mut self) -> bool {
        self.enter(self.active, self.phase);
        self.end_callback();
        self.ran = 0;
        let is_beginning = self.phase == Phase::RequestHeaders;
        let Some(exchange) = self.exchange_mut() else { return true };
        exchange.is_logged = false;
        let Some(plugin_state) = exchange.own() else { return true };
        plugin_state.messages.request.has_headers |= is_beginning;
        // A stream is forgotten whatever became of it.
        !is_beginning || (plugin_state.answer.is_none() && plugin_state.fault.is_none())
    }

    /// Says whether the stream, which is over, is being logged.
    pub(crate) fn set_logged(&mut self, is_logged: bool) {
        if let Some(exchange) = self.exchange_mut() {
            (exchange.is_over, exchange.is_logged) = (true, is_logged);
        }
    }

    /// Counts the time of a callback, and charges the stream for it.
    pub(crate) fn end_callback(&mut self) {
        self.count_time();
        if self.ran > 0 {
            self.usage.ran_until(self.plugin.clock.ticks(), self.ran);
        }
    }

    /// Counts the time between the last two beats for a guest that the last one has met, unless it starts:
    /// that is no time of calls.
    fn count_time(&mut self) {
        if matches!(self.phase, Phase::Start | Phase::Configure) {
            return;
        }
        let clock = &self.plugin.clock;
        let now = clock.beats();
        if std::mem::replace(&mut self.counted_at, now) != now
            && self.slot.upgrade().is_some_and(|slot| slot.resumed_at() < now)
        {
            self.tally.count_time(clock.last_beat());
        }
    }

    /// Takes over the exchange of the context that will be active, whose stream is charged from now on.
    pub(crate) fn lend(&mut self, exchange: OwnedMutexGuard<Exchange>) {
        self.usage = exchange.own_ref().map(|plugin_state| plugin_state.usage).unwrap_or_default();
        self.exchange = Some(exchange);
    }

    /// Charges for bytes that are copied out of the guest.
    pub(crate) fn charge_from_guest(&mut self, bytes: usize) -> Result<(), HostTrap> {
        self.usage.charge_from_guest(bytes, &self.plugin.budgets)
    }

    /// Charges for bytes that are copied into the guest.
    pub(crate) fn charge_into_guest(&mut self, bytes: usize) -> Result<(), HostTrap> {
        self.usage.charge_into_guest(bytes, &self.plugin.budgets)
    }

    /// Ends the stream that is charged, if there is one, for what its client may have brought about: the
    /// guest lives on.
    pub(crate) fn fail_charged(&mut self, cause: Cause) {
        if let Some(exchange) = self.charged() {
            exchange.fail(cause);
        }
    }

    /// The exchange of the stream that is charged: the one that the callback is for, wherever the guest has
    /// gone.
    pub(crate) fn charged(&mut self) -> Option<&mut Exchange> {
        let exchange = match self.asker {
            _ if self.charged_context() == self.effective => &mut self.exchange,
            Some(_) => &mut self.reserved,
            None => &mut self.aside,
        };
        exchange.as_deref_mut()
    }

    /// Meets the running callback at a beat of the clock, which ends its slice unless that is the first one.
    pub(crate) fn on_epoch(&mut self) -> EpochAction {
        self.count_time();
        let clock = &self.plugin.clock;
        let now = clock.beats();
        let slice = self.slot.upgrade().map_or(0, |slot| now.saturating_sub(slot.resumed_at()));
        if self.ran == 0 && slice < FIRST_SLICE {
            clock.hurry(false);
            return EpochAction::Continue;
        }
        clock.hurry(true);
        self.ran = self.ran.saturating_add(slice.max(1));
        if self.ran <= self.may_run { EpochAction::Yield } else { EpochAction::Interrupt }
    }

    /// Lets the guest's period begin. A callback that has taken long is followed by a rest, that of all
    /// instances of the plugin together being such that they have a fifth of a thread's time: theirs is not
    /// the only plugin.
    pub(crate) fn expect_tick(&mut self) {
        let Some(period) = self.tick_period else { return };
        let rest = self.ran.saturating_mul(TICK_REST).saturating_mul(self.plugin.instances);
        self.next_tick = self.plugin.clock.ticks().saturating_add(period.max(rest));
    }

    /// Takes the exchange of a context for a reply, and charges its stream from now on; false while somebody
    /// else has it.
    pub(crate) fn reserve(&mut self, context: u32) -> bool {
        let Some(registered) = self.contexts.get(context) else { return true };
        let Some(mut exchange) = registered.exchange.try_lock_owned() else { return false };
        exchange.begin(registered.plugin_index, self.plugin.fails_open);
        self.usage = exchange.own_ref().map(|plugin_state| plugin_state.usage).unwrap_or_default();
        (self.asker, self.reserved) = (Some(context), Some(exchange));
        true
    }

    /// Takes back what the callback of a reply has changed of the stream that the reply is for.
    pub(crate) fn undo_reply(&mut self) {
        self.choose_active();
        if let Some(exchange) = self.reserved.as_mut() {
            let plugin_index = exchange.current;
            exchange.roll_back(plugin_index);
        }
    }

    /// Gives up every exchange, with what its stream has cost and whether it expects calls, unless the guest
    /// has trapped: what waits for it is to fail. The active context's comes back.
    pub(crate) fn give_back(&mut self, is_alive: bool) -> Option<OwnedMutexGuard<Exchange>> {
        self.choose_active();
        self.received = None;
        let expects_calls = self.calls.count(self.charged_context()) > 0;
        self.asker = None;
        let usage = std::mem::take(&mut self.usage);
        if let Some(exchange) = self.reserved.as_mut().or(self.exchange.as_mut()) {
            if let Some(plugin_state) = exchange.own() {
                plugin_state.usage = usage;
            }
            if is_alive {
                exchange.note_calls(expects_calls);
            }
        }
        if let Some(mut exchange) = self.reserved.take() {
            exchange.notify();
        }
        self.exchange.take()
    }

    /// Lets host calls work on the active context again.
    fn choose_active(&mut self) {
        if self.effective != self.active {
            let _ = self.choose(self.active);
        }
    }

    /// Lets host calls work on another context; zero is the active one.
    pub(crate) fn choose(&mut self, context: u32) -> Result<(), Status> {
        let context = if context == 0 { self.active } else { context };
        if context == self.effective {
            return Ok(());
        }
        if context != ROOT && context != self.active && !self.contexts.contains(context) {
            return Err(Status::BadArgument);
        }
        let present = self.exchange.take();
        if self.effective == self.active {
            self.aside = present;
        } else if self.asker == Some(self.effective) {
            self.reserved = present;
        } else if let Some(mut present) = present {
            present.notify();
        }
        self.exchange = if context == self.active {
            self.aside.take()
        } else if self.asker == Some(context) {
            self.reserved.take()
        } else {
            self.contexts.get(context).and_then(|registered| registered.borrow(&self.plugin))
        };
        self.effective = context;
        Ok(())
    }

    /// The exchange host calls work on.
    pub(crate) fn exchange(&self) -> Option<&Exchange> {
        self.exchange.as_deref()
    }

    /// The same, and what writes header fields into it.
    pub(crate) fn exchange_to_write(&mut self) -> Option<(&mut Exchange, &mut HeaderInterner)> {
        Some((self.exchange.as_deref_mut()?, &mut self.interner))
    }

    pub(crate) fn exchange_mut(&mut self) -> Option<&mut Exchange> {
        self.exchange.as_deref_mut()
    }

    /// The context that the callback is for.
    fn charged_context(&self) -> u32 {
        self.asker.unwrap_or(self.active)
    }

    /// The context a call-out is made for: where the guest is at the root, the one that the callback is for.
    pub(crate) fn caller_context(&self) -> u32 {
        if self.effective == ROOT { self.charged_context() } else { self.effective }
    }

    /// The exchange of the stream that a call-out is made for, if it is for one.
    pub(crate) fn caller_exchange(&mut self) -> Option<&mut Exchange> {
        if self.effective == ROOT { self.charged() } else { self.exchange_mut() }
    }

    /// Whether the stream can still be steered: not while it is being logged and deleted.
    pub(crate) fn can_steer(&self) -> bool {
        self.phase != Phase::End || self.effective != self.active
    }
}

/// How many times as long as `proxy_on_tick` took it is not called again.
const TICK_REST: u64 = 4;
