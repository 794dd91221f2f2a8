//! Queues that plugins of a VM id share, and those of other VM ids find.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use wasmtime::Caller;

use super::abi::Status;
use super::memory::{AllocationSize, HostCallError, hand_over, put_u32, read, scratch};
use super::space::SharedSpace;
use super::state::State;
use crate::inbox::Job;
use crate::pool::Slot;
use crate::sandbox::HostTrap;
use crate::sync::lock;

const MAX_QUEUES: usize = 16;
const MAX_ITEMS: usize = 1_000;
const MAX_NAME_BYTES: usize = 4 << 10;
const MAX_BYTES: usize = 4 << 20;

/// The queues of one VM id.
#[derive(Default)]
pub(crate) struct Queues {
    queues: Vec<Queue>,
    bytes: usize,
}

struct Queue {
    token: u32,
    name: Vec<u8>,
    items: VecDeque<Vec<u8>>,
    /// Those that are there, the last one last.
    registrants: Vec<Registrant>,
}

/// An instance that has registered a queue.
#[derive(Clone)]
struct Registrant {
    place: Weak<dyn Place>,
    generation: u64,
}

/// The place of an instance. By its type it would be so deep in a plugin that the compiler ends its search
/// for what is not `Send` in programs of embedders.
trait Place: Send + Sync {
    /// Whether the instance has started and lives.
    fn has(&self, generation: u64) -> bool;

    /// Tells the instance of a new item.
    fn tell(&self, generation: u64, token: u32);
}

// === impl Queues ===

impl Queues {
    pub(super) fn has(&self, token: u32) -> bool {
        self.queues.iter().any(|queue| queue.token == token)
    }

    fn queue(&mut self, token: u32) -> Result<&mut Queue, Status> {
        self.queues.iter_mut().find(|queue| queue.token == token).ok_or(Status::NotFound)
    }

    fn named(&mut self, name: &[u8]) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.name == name)
    }

    /// The token of a queue, which is there from now on, and how many items that has cost.
    fn register(
        &mut self,
        space: &SharedSpace,
        name: Vec<u8>,
        place: Weak<dyn Place>,
        generation: u64,
    ) -> Result<(u32, usize), HostTrap> {
        let registrant = Registrant { place, generation };
        if let Some(queue) = self.named(&name) {
            queue.note(registrant);
            return Ok((queue.token, 0));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(HostTrap::Budget("queues"));
        }
        let lost = if self.queues.len() < MAX_QUEUES { 0 } else { self.make_room()? };
        let token = space.next_token()?;
        self.queues.push(Queue { token, name, items: VecDeque::new(), registrants: vec![registrant] });
        Ok((token, lost))
    }

    /// Gives up a queue that only plugins have registered which are gone: an empty one if there is any, the
    /// oldest of them. How many items were in it.
    fn make_room(&mut self) -> Result<usize, HostTrap> {
        let left = self.queues.iter().enumerate().filter(|(_, queue)| queue.is_left());
        let first = left.min_by_key(|(_, queue)| (!queue.items.is_empty(), queue.token));
        let (place, _) = first.ok_or(HostTrap::Budget("queues"))?;
        let Queue { items, .. } = self.queues.remove(place);
        self.bytes = self.bytes.saturating_sub(items.iter().map(Vec::len).sum());
        Ok(items.len())
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

// === impl Queue ===

impl Queue {
    fn note(&mut self, registrant: Registrant) {
        let place = &registrant.place;
        self.registrants.retain(|known| known.place.strong_count() > 0 && !known.place.ptr_eq(place));
        self.registrants.push(registrant);
    }

    /// Whether only plugins have registered it which are gone: a version that was refused is, and the one
    /// that it was to follow is not.
    fn is_left(&self) -> bool {
        self.registrants.iter().all(|registrant| registrant.place.strong_count() == 0)
    }
}

// === impl Registrant ===

impl Registrant {
    fn place(&self) -> Option<Arc<dyn Place>> {
        self.place.upgrade()
    }

    fn place_if_live(&self) -> Option<Arc<dyn Place>> {
        self.place().filter(|place| place.has(self.generation))
    }
}

// === impl Slot ===

impl Place for Slot {
    fn has(&self, generation: u64) -> bool {
        self.is_live() && self.generation() == generation
    }

    fn tell(&self, generation: u64, token: u32) {
        self.post(generation, Job::QueueReady { token });
    }
}

/// Who hears of new items: the instance that has registered the queue last of those that live, or one that is
/// being started if there are none.
fn hearer(registrants: &[Registrant]) -> Option<(Arc<dyn Place>, u64)> {
    let last = |place_of: fn(&Registrant) -> Option<Arc<dyn Place>>| {
        registrants.iter().rev().find_map(|known| Some((place_of(known)?, known.generation)))
    };
    last(Registrant::place_if_live).or_else(|| last(Registrant::place))
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
    let (plugin, slot) = (&state.plugin, state.slot.clone());
    let (token, lost) = lock(&plugin.vm.queues).register(&plugin.space, name, slot, state.generation)?;
    let lost = u64::try_from(lost).unwrap_or(u64::MAX);
    plugin.shared.counters.dropped_queue_items.fetch_add(lost, Ordering::Relaxed);
    put_u32(caller, return_token, token)
}

/// Finds a queue of a VM id in the plugin's space: its own, where it names none.
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
    let is_own = vm_id.is_empty() || vm_id == plugin.vm_id.as_bytes();
    let store = if is_own { Some(Arc::clone(&plugin.vm)) } else { plugin.space.of_vm(&vm_id) };
    let store = store.ok_or(Status::NotFound)?;
    let token = lock(&store.queues).named(&name).ok_or(Status::NotFound)?.token;
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
    let store = plugin.space.having(token, &plugin.vm).ok_or(Status::NotFound)?;
    let (lost, registrants) = {
        let mut queues = lock(&store.queues);
        let lost = queues.push(token, item)?;
        (lost, queues.queue(token)?.registrants.clone())
    };
    plugin.shared.counters.dropped_queue_items.fetch_add(lost, Ordering::Relaxed);
    if let Some((place, generation)) = hearer(&registrants) {
        place.tell(generation, token);
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
        let plugin = &caller.data().plugin;
        let store = plugin.space.having(token, &plugin.vm).ok_or(Status::NotFound)?;
        let mut queues = lock(&store.queues);
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
        let (mut queues, space) = (Queues::default(), SharedSpace::new());
        for (name, token) in [("one", 1), ("other", 2), ("one", 1)] {
            assert_eq!(queues.register(&space, name.into(), Weak::<Slot>::new(), 0).unwrap(), (token, 0));
        }
        let lost: u64 = (0..=MAX_ITEMS).map(|item| queues.push(1, item.to_be_bytes().into()).unwrap()).sum();
        assert_eq!((lost, queues.queues[0].items.len()), (1, MAX_ITEMS));
        assert_eq!(queues.queues[0].items[0], 1_usize.to_be_bytes());
        assert_eq!(queues.push(2, vec![0; MAX_BYTES]), Ok(1), "the other queue keeps its own");
        assert_eq!(queues.bytes, queues.queues[0].items.iter().map(Vec::len).sum::<usize>());
        assert_eq!(queues.push(3, Vec::new()), Err(Status::NotFound));
    }

    #[test]
    fn queue_of_a_plugin_that_is_gone_makes_room_for_another_an_empty_one_first() {
        let (mut queues, space) = (Queues::default(), SharedSpace::new());
        for token in 1..=16 {
            assert_eq!(
                queues.register(&space, vec![token], Weak::<Slot>::new(), 0).unwrap(),
                (token.into(), 0)
            );
        }
        assert_eq!(queues.push(1, vec![7; 7]), Ok(0));
        assert_eq!(queues.register(&space, vec![17], Weak::<Slot>::new(), 0).unwrap(), (17, 0));
        assert!(queues.named(&[2]).is_none() && queues.queue(2).is_err(), "no other queue has its token");
        for token in 3..=17 {
            assert_eq!(queues.push(token, Vec::new()), Ok(0));
        }
        assert_eq!(
            (queues.register(&space, vec![18], Weak::<Slot>::new(), 0).unwrap(), queues.bytes),
            ((18, 1), 0)
        );
    }
}
