//! Queues that all instances of a plugin share.

use std::collections::{HashMap, VecDeque};
use std::sync::Weak;
use std::sync::atomic::Ordering;

use wasmtime::Caller;

use super::abi::Status;
use super::memory::{AllocationSize, HostCallError, hand_over, put_u32, read, scratch};
use super::state::State;
use crate::inbox::Job;
use crate::pool::Slot;
use crate::sandbox::HostTrap;
use crate::sync::lock;

const MAX_QUEUES: usize = 16;
const MAX_ITEMS: usize = 1_000;
const MAX_NAME_BYTES: usize = 4 << 10;
const MAX_BYTES: usize = 4 << 20;

/// The queues of one plugin; a queue's token is its place, counted from one.
#[derive(Default)]
pub(crate) struct Queues {
    tokens: HashMap<Vec<u8>, u32>,
    queues: Vec<Queue>,
    bytes: usize,
}

struct Queue {
    items: VecDeque<Vec<u8>>,
    /// The instance that registered it last hears of new items.
    slot: Weak<Slot>,
    generation: u64,
}

// === impl Queues ===

impl Queues {
    fn queue(&mut self, token: u32) -> Result<&mut Queue, Status> {
        let place = usize::try_from(token).unwrap_or(0).checked_sub(1);
        place.and_then(|place| self.queues.get_mut(place)).ok_or(Status::NotFound)
    }

    /// Puts an item behind those that wait. How many items that cost: the first ones of a queue that is full,
    /// and one for which there is no room at all.
    fn push(&mut self, token: u32, item: Vec<u8>) -> Result<u64, Status> {
        let mut bytes = self.bytes;
        let queue = self.queue(token)?;
        let mut lost = 0;
        while queue.items.len() >= MAX_ITEMS || bytes.saturating_add(item.len()) > MAX_BYTES {
            lost += 1;
            let Some(first) = queue.items.pop_front() else {
                self.bytes = bytes;
                return Ok(lost);
            };
            bytes -= first.len();
        }
        bytes += item.len();
        queue.items.push_back(item);
        self.bytes = bytes;
        Ok(lost)
    }
}

/// What a queue holds survives its being registered again.
pub(super) fn register(
    caller: &mut Caller<'_, State>,
    name: u32,
    name_length: u32,
    return_token: u32,
) -> Result<(), HostCallError> {
    let name = read(caller, name, name_length)?;
    let state = caller.data();
    let (slot, generation) = (state.slot.clone(), state.generation);
    let token = {
        let mut queues = lock(&state.plugin.shared.queues);
        match queues.tokens.get(&name).copied() {
            Some(token) => {
                let queue = queues.queue(token)?;
                (queue.slot, queue.generation) = (slot, generation);
                token
            }
            None if queues.queues.len() >= MAX_QUEUES || name.len() > MAX_NAME_BYTES => {
                return Err(HostTrap::Budget("queues").into());
            }
            None => {
                queues.queues.push(Queue { items: VecDeque::new(), slot, generation });
                let token = u32::try_from(queues.queues.len()).unwrap_or(u32::MAX);
                queues.tokens.insert(name, token);
                token
            }
        }
    };
    put_u32(caller, return_token, token)
}

/// Finds a queue of the guest's own VM id; no other's can be reached.
pub(super) fn resolve(
    caller: &mut Caller<'_, State>,
    vm_id: u32,
    vm_id_length: u32,
    name: u32,
    name_length: u32,
    return_token: u32,
) -> Result<(), HostCallError> {
    let vm_id = read(caller, vm_id, vm_id_length)?;
    let name = read(caller, name, name_length)?;
    let plugin = &caller.data().plugin;
    if !vm_id.is_empty() && vm_id != plugin.vm_id.as_bytes() {
        return Err(Status::NotFound.into());
    }
    let token = lock(&plugin.shared.queues).tokens.get(&name).copied().ok_or(Status::NotFound)?;
    put_u32(caller, return_token, token)
}

pub(super) fn enqueue(
    caller: &mut Caller<'_, State>,
    token: u32,
    item: u32,
    item_length: u32,
) -> Result<(), HostCallError> {
    let item = read(caller, item, item_length)?;
    let plugin = &caller.data().plugin;
    let (lost, slot, generation) = {
        let mut queues = lock(&plugin.shared.queues);
        let lost = queues.push(token, item)?;
        let queue = queues.queue(token)?;
        (lost, queue.slot.clone(), queue.generation)
    };
    plugin.counters.dropped_queue_items.fetch_add(lost, Ordering::Relaxed);
    if let Some(slot) = slot.upgrade() {
        slot.post(generation, Job::QueueReady { token });
    }
    Ok(())
}

pub(super) fn dequeue(
    caller: &mut Caller<'_, State>,
    token: u32,
    return_pointer: u32,
    return_length: u32,
) -> Result<AllocationSize, HostCallError> {
    let mut out = scratch(caller);
    {
        let mut queues = lock(&caller.data().plugin.shared.queues);
        let item = queues.queue(token)?.items.pop_front().ok_or(Status::Empty)?;
        queues.bytes = queues.bytes.saturating_sub(item.len());
        out.extend_from_slice(&item);
    }
    hand_over(caller, out, return_pointer, return_length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_that_is_full_loses_what_has_waited_longest() {
        let queue = || Queue { items: VecDeque::new(), slot: Weak::new(), generation: 0 };
        let mut queues = Queues { queues: vec![queue(), queue()], ..Queues::default() };
        let lost: u64 = (0..=MAX_ITEMS).map(|item| queues.push(1, item.to_be_bytes().into()).unwrap()).sum();
        assert_eq!((lost, queues.queues[0].items.len()), (1, MAX_ITEMS));
        assert_eq!(queues.queues[0].items[0], 1_usize.to_be_bytes());
        assert_eq!(queues.push(2, vec![0; MAX_BYTES]), Ok(1), "the other queue keeps its own");
        assert_eq!(queues.bytes, queues.queues[0].items.iter().map(Vec::len).sum::<usize>());
        assert_eq!(queues.push(3, Vec::new()), Err(Status::NotFound));
    }
}
