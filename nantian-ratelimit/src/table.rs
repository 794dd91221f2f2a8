//! A bounded hash table of atomic cells that never forgets a key in use.
//!
//! A *slot* is a tag and one cell per limit, inside one cache line. Slots live in *segments* that are added as keys
//! arrive and never move, four times as large each time, up to a fixed total. Finding a slot and changing its cells
//! takes no lock. Giving a slot to a key takes the mutex of its shard, which is what makes keys unique.
//!
//! A slot changes hands only while all its cells are [`SEALED`]: sealing is a compare-and-swap of a value that means
//! *full bucket* (so that forgetting it changes nothing), and whoever finds a sealed cell waits at the mutex and looks
//! again. A new owner's tag is written before its cells, so whoever reads an unsealed cell first and the tag afterwards
//! knows whose cell it was.

use std::sync::OnceLock;

use crate::key::Key;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// The value of a cell that belongs to nobody.
pub(crate) const SEALED: u64 = u64::MAX;

const LINE: usize = 8;
const LINES_IN_GROUP: usize = 2;
/// Groups of the first segment.
const FIRST: usize = 2;
const GROWTH: usize = 4;
const MAX_SHARDS: usize = 64;
/// Keys that a shard is to hold at least, before there is a second one.
const KEYS_IN_SHARD: usize = 64;

/// A fixed number of slots, spread over shards. `T` is what a shard's mutex guards besides.
pub(crate) struct Table<T> {
    shards: Box<[Shard<T>]>,
    /// Words of a slot: 2, 4 or 8.
    width: usize,
    /// Groups of each segment, the same in all shards.
    sizes: Box<[usize]>,
}

/// The right to give the slots of one shard to keys.
pub(crate) struct Exclusive<'t, T> {
    shard: &'t Shard<T>,
    sizes: &'t [usize],
    width: usize,
    pub(crate) state: MutexGuard<'t, T>,
}

/// A tag and its cells.
#[derive(Clone, Copy)]
pub(crate) struct Slot<'t> {
    tag: &'t AtomicU64,
    cells: &'t [AtomicU64],
}

struct Shard<T> {
    segments: Box<[OnceLock<Segment>]>,
    /// Segments in use.
    used: AtomicUsize,
    /// The slot of the keys that found no slot.
    shared: Line,
    state: Mutex<T>,
}

struct Segment {
    lines: Box<[Line]>,
    mask: usize,
}

#[repr(align(64))]
struct Line([AtomicU64; LINE]);

// === impl Table ===

impl<T> Table<T> {
    /// A table with room for about `keys` keys (never fewer in total) of `cells` cells each.
    pub(crate) fn new(keys: usize, cells: usize, mut state: impl FnMut() -> T) -> Self {
        let shards = (keys / KEYS_IN_SHARD).next_power_of_two().clamp(1, MAX_SHARDS);
        let width = (cells + 1).next_power_of_two().clamp(2, LINE);
        let slots_in_group = LINES_IN_GROUP * LINE / width;
        // Two choices of a group fill a table to about three quarters before a key finds both full.
        let slots = keys.div_ceil(shards).saturating_mul(4).div_ceil(3);
        let sizes = segment_sizes(slots.div_ceil(slots_in_group));
        Self { shards: (0..shards).map(|_| Shard::new(sizes.len(), width, state())).collect(), width, sizes }
    }

    /// The slot of `key`. `None` may mean that it is being given one right now: [`Table::lock`] tells.
    pub(crate) fn find(&self, key: Key) -> Option<Slot<'_>> {
        self.shard(self.position(key)).find(key, self.width)
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The position of the shard of `key`.
    pub(crate) fn position(&self, key: Key) -> usize {
        // The number of shards is a power of two and small.
        usize::try_from(key.shard & (self.shards.len() as u64 - 1)).unwrap_or(0)
    }

    /// The right to give out the slots of the shard at `position`.
    pub(crate) fn lock(&self, position: usize) -> Exclusive<'_, T> {
        let shard = self.shard(position);
        Exclusive { shard, sizes: &self.sizes, width: self.width, state: lock(&shard.state) }
    }

    /// All slots that keys have.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        self.shards.iter().flat_map(|shard| shard.slots(self.width))
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "positions come from Table::position or count up to Table::shards"
    )]
    fn shard(&self, position: usize) -> &Shard<T> {
        &self.shards[position]
    }
}

/// Segments of 2, 8, 32 … groups that have `groups` or somewhat more together.
fn segment_sizes(groups: usize) -> Box<[usize]> {
    let mut sizes = Vec::new();
    let (mut next, mut left) = (FIRST, groups.max(1));
    while left > 0 {
        let size = next.min(left.next_power_of_two());
        sizes.push(size);
        left = left.saturating_sub(size);
        next = next.saturating_mul(GROWTH);
    }
    sizes.into()
}

// === impl Exclusive ===

impl<'t, T> Exclusive<'t, T> {
    /// The slot of `key`.
    pub(crate) fn find(&self, key: Key) -> Option<Slot<'t>> {
        self.shard.find(key, self.width)
    }

    /// The slot that keys without a slot share.
    pub(crate) fn shared(&self) -> Slot<'t> {
        let [tag, cells @ ..] = &self.shard.shared.0;
        Slot { tag, cells }
    }

    /// All slots that keys have, without the shared one.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'t>> + use<'t, T> {
        self.shard.slots(self.width)
    }

    /// Gives `key`, which has none, a slot with these cells. `spent(position, value)` tells whether a cell may be
    /// forgotten. `None` if every slot that the key could have is in use.
    pub(crate) fn insert(
        &self,
        key: Key,
        cells: &[u64],
        spent: impl Fn(usize, u64) -> bool,
    ) -> Option<Slot<'t>> {
        let slot = self.vacate(key, cells.len(), spent)?;
        slot.install(key.tag, cells);
        Some(slot)
    }

    fn vacate(&self, key: Key, cells: usize, spent: impl Fn(usize, u64) -> bool) -> Option<Slot<'t>> {
        let used = self.shard.used.load(Ordering::Acquire);
        for segment in self.shard.segments(used) {
            for slot in segment.choices(key.tag, self.width) {
                if slot.is_empty() || slot.seal(cells, &spent) {
                    return Some(slot);
                }
            }
        }
        let segment = self.shard.segments.get(used)?;
        let groups = *self.sizes.get(used)?;
        let segment = segment.get_or_init(|| Segment::new(groups, self.width));
        self.shard.used.store(used + 1, Ordering::Release);
        segment.choices(key.tag, self.width).next()
    }
}

// === impl Shard ===

impl<T> Shard<T> {
    fn new(segments: usize, width: usize, state: T) -> Self {
        Self {
            segments: (0..segments).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
            shared: Line::new(width),
            state: Mutex::new(state),
        }
    }

    fn find(&self, key: Key, width: usize) -> Option<Slot<'_>> {
        self.segments(self.used.load(Ordering::Acquire))
            .flat_map(|segment| segment.choices(key.tag, width))
            .find(|slot| slot.belongs_to(key.tag))
    }

    /// The segments in use, largest first: most keys are there.
    fn segments(&self, used: usize) -> impl Iterator<Item = &Segment> {
        let segments = self.segments.get(..used).unwrap_or_default();
        segments.iter().rev().filter_map(OnceLock::get)
    }

    fn slots(&self, width: usize) -> impl Iterator<Item = Slot<'_>> {
        self.segments(self.used.load(Ordering::Acquire))
            .flat_map(|segment| segment.lines.iter())
            .flat_map(move |line| line.slots(width))
            .filter(|slot| !slot.is_empty())
    }
}

// === impl Segment ===

impl Segment {
    fn new(groups: usize, width: usize) -> Self {
        Self { lines: (0..groups * LINES_IN_GROUP).map(|_| Line::new(width)).collect(), mask: groups - 1 }
    }

    /// The slots that a tag may have, in the order in which they are tried.
    fn choices(&self, tag: u64, width: usize) -> impl Iterator<Item = Slot<'_>> {
        let first = self.group(tag);
        let second = self.group(tag.rotate_right(32));
        let second = (second != first).then_some(second);
        [Some(first), second]
            .into_iter()
            .flatten()
            .flat_map(move |group| {
                let lines = self.lines.get(group..group + LINES_IN_GROUP);
                lines.unwrap_or_default().iter()
            })
            .flat_map(move |line| line.slots(width))
    }

    /// The first line of the group that the low bits of `hash` choose.
    fn group(&self, hash: u64) -> usize {
        let low = usize::try_from(hash & u64::from(u32::MAX)).unwrap_or(0);
        (low & self.mask) * LINES_IN_GROUP
    }
}

// === impl Line ===

impl Line {
    fn new(width: usize) -> Self {
        Self(std::array::from_fn(|word| {
            let is_tag = word.is_multiple_of(width);
            AtomicU64::new(if is_tag { Key::EMPTY } else { SEALED })
        }))
    }

    fn slots(&self, width: usize) -> impl Iterator<Item = Slot<'_>> {
        self.0.chunks_exact(width).filter_map(|words| {
            let (tag, cells) = words.split_first()?;
            Some(Slot { tag, cells })
        })
    }
}

// === impl Slot ===

impl<'t> Slot<'t> {
    /// The cells; those past the number of limits are unused.
    pub(crate) fn cells(&self) -> &'t [AtomicU64] {
        self.cells
    }

    /// Whether the slot is that of `tag`. True after a cell was read unsealed: the cell was that of `tag`.
    pub(crate) fn belongs_to(&self, tag: u64) -> bool {
        self.tag.load(Ordering::Acquire) == tag
    }

    pub(crate) fn tag(&self) -> u64 {
        self.tag.load(Ordering::Acquire)
    }

    /// Takes the first `cells` cells away from the slot's key if all of them are spent.
    pub(crate) fn seal(&self, cells: usize, spent: impl Fn(usize, u64) -> bool) -> bool {
        let mut sealed = [SEALED; LINE];
        let used = self.cells.iter().take(cells);
        for (position, (cell, kept)) in used.zip(sealed.iter_mut()).enumerate() {
            let value = cell.load(Ordering::Acquire);
            let taken = spent(position, value)
                && cell.compare_exchange(value, SEALED, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if !taken {
                self.unseal(&sealed, position);
                return false;
            }
            *kept = value;
        }
        true
    }

    /// Takes a cell away whatever it holds.
    pub(crate) fn take(cell: &AtomicU64) -> u64 {
        cell.swap(SEALED, Ordering::AcqRel)
    }

    /// Writes the cells of a sealed slot for the owner `tag`.
    pub(crate) fn install(&self, tag: u64, cells: &[u64]) {
        self.tag.store(tag, Ordering::Release);
        self.unseal(cells, cells.len());
    }

    fn unseal(&self, values: &[u64], count: usize) {
        for (cell, value) in self.cells.iter().zip(values).take(count) {
            cell.store(*value, Ordering::Release);
        }
    }

    fn is_empty(&self) -> bool {
        self.belongs_to(Key::EMPTY)
    }
}
