//! A bounded hash table of atomic cells that never forgets a key in use.
//!
//! A *slot* is a tag and one cell per limit, inside one cache line. A tag has two *groups* of slots to choose from in
//! every *segment*. Segments are added as keys arrive, each four times as large as the one before, up to a fixed total;
//! a new one takes over the keys in use, and those before it remain for keys that find both groups full.
//!
//! Finding a slot and changing its cells takes no lock. Giving a slot to a key takes the mutex of its shard, which is
//! what makes keys unique. A slot changes hands only while all its cells are [`SEALED`]. Sealing is one atomic step per
//! cell, and whoever finds a sealed cell, or no slot, looks again under the mutex. A new owner's tag is written before
//! its cells, so whoever reads an unsealed cell first and the tag afterwards knows whose cell it was.

use std::sync::OnceLock;

use crate::key::Key;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock};

/// The value of a cell that belongs to nobody.
pub(crate) const SEALED: u64 = u64::MAX;

/// Words of a group: two cache lines, which the processor fetches together.
const GROUP: usize = 16;
/// Words of the widest slot.
const WIDEST: usize = 8;
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
    /// Its first slot is that of the keys that found none.
    shared: Group,
    state: Mutex<T>,
}

struct Segment {
    groups: Box<[Group]>,
}

#[repr(align(128))]
struct Group([AtomicU64; GROUP]);

// === impl Table ===

impl<T> Table<T> {
    /// A table with room for about `keys` keys of `cells` cells each.
    pub(crate) fn new(keys: usize, cells: usize, mut state: impl FnMut() -> T) -> Self {
        let shards = (keys / KEYS_IN_SHARD).next_power_of_two().clamp(1, MAX_SHARDS);
        let width = (cells + 1).next_power_of_two().clamp(2, WIDEST);
        let slots = keys.div_ceil(shards);
        let sizes = segment_sizes(slots.div_ceil(GROUP / width));
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
        low_bits(key.shard, self.shards.len())
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

/// Sizes of segments, in groups: the last holds `groups` at three quarters load or, all together, at full load.
fn segment_sizes(groups: usize) -> Box<[usize]> {
    let last = groups.next_power_of_two();
    let sizes = std::iter::successors(Some(last), |size| Some(size / GROWTH).filter(|size| *size > 0));
    let mut sizes: Vec<usize> = sizes.collect();
    sizes.reverse();
    sizes.into()
}

/// `hash` modulo `length`, a power of two.
fn low_bits(hash: u64, length: usize) -> usize {
    usize::try_from(hash & u64::from(u32::MAX)).unwrap_or(0) & (length - 1)
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
        let vacant = |slot: &Slot<'t>| slot.is_empty() || slot.seal(cells.len(), &spent);
        loop {
            let mut segments = self.shard.segments();
            if let Some(slot) = segments.find_map(|segment| segment.choices(key.tag, self.width).find(vacant))
            {
                slot.install(key.tag, cells);
                return Some(slot);
            }
            self.grow(cells.len(), &spent)?;
        }
    }

    /// Adds a segment, if there may be one more, and moves the keys in use there.
    fn grow(&self, cells: usize, spent: impl Fn(usize, u64) -> bool) -> Option<()> {
        let used = self.shard.used.load(Ordering::Acquire);
        let (segment, size) = (self.shard.segments.get(used)?, self.sizes.get(used)?);
        let segment = segment.get_or_init(|| Segment::new(*size, self.width));
        for slot in self.slots() {
            if slot.seal(cells, &spent) {
                slot.abandon();
            } else if let Some(free) = segment.choices(slot.tag(), self.width).find(Slot::is_empty) {
                let mut values = [SEALED; WIDEST];
                for (value, cell) in values.iter_mut().zip(slot.cells).take(cells) {
                    *value = Slot::take(cell);
                }
                free.install(slot.tag(), values.get(..cells).unwrap_or_default());
                slot.abandon();
            }
        }
        self.shard.used.store(used + 1, Ordering::Release);
        Some(())
    }
}

// === impl Shard ===

impl<T> Shard<T> {
    fn new(segments: usize, width: usize, state: T) -> Self {
        Self {
            segments: (0..segments).map(|_| OnceLock::new()).collect(),
            used: AtomicUsize::new(0),
            shared: Group::new(width),
            state: Mutex::new(state),
        }
    }

    fn find(&self, key: Key, width: usize) -> Option<Slot<'_>> {
        match width {
            2 => self.segments().find_map(|segment| segment.find::<2>(key.tag)),
            4 => self.segments().find_map(|segment| segment.find::<4>(key.tag)),
            _ => self.segments().find_map(|segment| segment.find::<WIDEST>(key.tag)),
        }
    }

    /// The segments in use, largest first: most keys are there.
    fn segments(&self) -> impl Iterator<Item = &Segment> {
        let used = self.used.load(Ordering::Acquire);
        self.segments.get(..used).unwrap_or_default().iter().rev().filter_map(OnceLock::get)
    }

    fn slots(&self, width: usize) -> impl Iterator<Item = Slot<'_>> {
        self.segments()
            .flat_map(|segment| segment.groups.iter())
            .flat_map(move |group| group.slots(width))
            .filter(|slot| !slot.is_empty())
    }
}

// === impl Segment ===

impl Segment {
    fn new(groups: usize, width: usize) -> Self {
        Self { groups: (0..groups).map(|_| Group::new(width)).collect() }
    }

    /// The slot of `tag`, for slots of `WIDTH` words.
    fn find<const WIDTH: usize>(&self, tag: u64) -> Option<Slot<'_>> {
        self.pair(tag).iter().find_map(|group| group.find::<WIDTH>(tag))
    }

    /// The slots that a tag may have, in the order in which they are tried.
    fn choices(&self, tag: u64, width: usize) -> impl Iterator<Item = Slot<'_>> {
        self.pair(tag).into_iter().flat_map(move |group| group.slots(width))
    }

    /// The two groups of a tag; small segments may have but one for it.
    #[expect(clippy::indexing_slicing, reason = "low_bits stays below the number of groups")]
    fn pair(&self, tag: u64) -> [&Group; 2] {
        [tag, tag >> 32].map(|hash| &self.groups[low_bits(hash, self.groups.len())])
    }
}

// === impl Group ===

impl Group {
    fn new(width: usize) -> Self {
        Self(std::array::from_fn(|word| {
            let is_tag = word.is_multiple_of(width);
            AtomicU64::new(if is_tag { Key::EMPTY } else { SEALED })
        }))
    }

    fn find<const WIDTH: usize>(&self, tag: u64) -> Option<Slot<'_>> {
        let (slots, _) = self.0.as_chunks::<WIDTH>();
        slots.iter().filter_map(|words| Slot::of(words)).find(|slot| slot.belongs_to(tag))
    }

    fn slots(&self, width: usize) -> impl Iterator<Item = Slot<'_>> {
        self.0.chunks_exact(width).filter_map(Slot::of)
    }
}

// === impl Slot ===

impl<'t> Slot<'t> {
    fn of(words: &'t [AtomicU64]) -> Option<Self> {
        let (tag, cells) = words.split_first()?;
        Some(Self { tag, cells })
    }

    /// The cells; those past the number of limits are unused.
    pub(crate) fn cells(&self) -> &'t [AtomicU64] {
        self.cells
    }

    /// Whose slot it is.
    pub(crate) fn tag(&self) -> u64 {
        self.tag.load(Ordering::Acquire)
    }

    /// Whether the slot is that of `tag`. True after a cell was read unsealed: the cell was that of `tag`.
    pub(crate) fn belongs_to(&self, tag: u64) -> bool {
        self.tag() == tag
    }

    /// Takes a cell away whatever it holds.
    pub(crate) fn take(cell: &AtomicU64) -> u64 {
        cell.swap(SEALED, Ordering::AcqRel)
    }

    /// Writes the cells of a sealed slot for the owner `tag`.
    pub(crate) fn install(&self, tag: u64, cells: &[u64]) {
        self.tag.store(tag, Ordering::Release);
        self.unseal(cells);
    }

    /// Takes the first `cells` cells away from the slot's key if all of them are spent.
    fn seal(&self, cells: usize, spent: impl Fn(usize, u64) -> bool) -> bool {
        let mut sealed = [SEALED; WIDEST];
        let used = self.cells.iter().zip(sealed.iter_mut()).take(cells);
        for (position, (cell, kept)) in used.enumerate() {
            let value = cell.load(Ordering::Acquire);
            let seal = || cell.compare_exchange(value, SEALED, Ordering::AcqRel, Ordering::Relaxed);
            if !spent(position, value) || seal().is_err() {
                self.unseal(sealed.get(..position).unwrap_or_default());
                return false;
            }
            *kept = value;
        }
        true
    }

    fn unseal(&self, values: &[u64]) {
        for (cell, value) in self.cells.iter().zip(values) {
            cell.store(*value, Ordering::Release);
        }
    }

    /// Leaves a sealed slot to nobody.
    fn abandon(&self) {
        self.tag.store(Key::EMPTY, Ordering::Release);
    }

    fn is_empty(&self) -> bool {
        self.belongs_to(Key::EMPTY)
    }
}
