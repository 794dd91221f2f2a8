//! A bounded hash table of atomic cells that never forgets a key in use.
//!
//! A *slot* is a tag and one cell per limit, inside one cache line; four slots are a *bucket*. A tag has two
//! buckets in every *segment*, a near one and a far one. Segments are added as keys arrive, each sixteen
//! times as large as the one before, up to a fixed total; a new one takes over the keys in use, and those
//! before it remain for keys that find their buckets full.
//!
//! However full the table is, seven of eight keys are in the near bucket of the largest segment, which is one
//! line for keys with one limit. All its tags are compared before anything branches, so that a processor
//! foresees the way of a decision and begins the next ones while this one waits for memory. A segment is one
//! piece for all shards, so that this line is found in few steps.
//!
//! Finding a slot and changing its cells takes no lock. Giving a slot to a key takes the mutex of its shard,
//! which is what makes keys unique. A slot changes hands only while all its cells are [`SEALED`]. Sealing is
//! one atomic step per cell, and whoever finds a sealed cell, or no slot, looks again under the mutex. A new
//! owner's tag is written before its cells, so whoever reads an unsealed cell first and the tag afterwards
//! knows whose cell it was.

mod slot;

use std::hint::select_unpredictable;
use std::sync::OnceLock;

use crate::key::Key;
use crate::sync::{AtomicU64, AtomicUsize, Mutex, MutexGuard, Ordering, lock};

pub(crate) use self::slot::{SEALED, Slot};

/// Words of a cache line, and of the widest slot.
const LINE: usize = 8;
const SLOTS_IN_BUCKET: usize = 4;
const GROWTH: usize = 16;
/// Enough for 2^30 keys.
const MAX_SEGMENTS: usize = 8;
const MAX_SHARDS: usize = 64;
/// Keys that a shard is to hold at least, before there is a second one.
const KEYS_IN_SHARD: usize = 256;

/// A fixed number of slots, spread over shards. `T` is what a shard's mutex guards besides.
pub(crate) struct Table<T> {
    /// How many segments there are.
    made: AtomicUsize,
    /// The smallest first. Not on the heap, where finding them would be one more step.
    segments: [OnceLock<Segment>; MAX_SEGMENTS],
    /// Buckets of a shard in each segment.
    sizes: Box<[usize]>,
    /// Words of a slot: 2, 4 or 8.
    width: usize,
    shards: Box<[Shard<T>]>,
}

/// The right to give the slots of one shard to keys.
pub(crate) struct Exclusive<'t, T> {
    table: &'t Table<T>,
    position: usize,
    pub(crate) state: MutexGuard<'t, T>,
}

struct Shard<T> {
    /// Segments in which it has keys.
    used: AtomicUsize,
    /// The slot of the keys that found none.
    shared: [AtomicU64; LINE],
    state: Mutex<T>,
}

struct Segment {
    /// Those of the first shard first.
    lines: Box<[CacheLine]>,
    /// Buckets of a shard.
    share: usize,
}

/// What the processor fetches at once.
#[repr(align(64))]
struct CacheLine([AtomicU64; LINE]);

// === impl Table ===

impl<T> Table<T> {
    /// A table for about `keys` keys of `cells` cells each: not quite one and a half slots for a key.
    pub(crate) fn new(keys: usize, cells: usize, mut state: impl FnMut() -> T) -> Self {
        let shards = (keys / KEYS_IN_SHARD).next_power_of_two().clamp(1, MAX_SHARDS);
        let width = (cells + 1).next_power_of_two().clamp(2, LINE);
        // The smaller segments have a fifteenth more.
        let largest = (keys.saturating_mul(11) / 8).div_ceil(shards).div_ceil(SLOTS_IN_BUCKET);
        let mut shard =
            || Shard { used: AtomicUsize::new(0), shared: vacant(width), state: Mutex::new(state()) };
        Self {
            made: AtomicUsize::new(0),
            segments: std::array::from_fn(|_| OnceLock::new()),
            sizes: segment_sizes(largest.max(1)),
            width,
            shards: (0..shards).map(|_| shard()).collect(),
        }
    }

    /// The slot of `key`, if it is where most are, or another's: in the near bucket of the largest segment.
    #[inline]
    pub(crate) fn find_near<const LINES: usize>(&self, key: Key) -> Option<Slot<'_>> {
        let largest = self.made.load(Ordering::Acquire).wrapping_sub(1);
        self.segments.get(largest)?.get()?.find_near::<LINES>(key.tag)
    }

    /// The slot of `key`. `None` may mean that it is being given one right now: [`Table::lock`] tells.
    pub(crate) fn find(&self, key: Key) -> Option<Slot<'_>> {
        let mut segments = self.segments(self.position(key));
        match self.width {
            2 => segments.find_map(|segment| segment.find::<1>(key.tag)),
            4 => segments.find_map(|segment| segment.find::<2>(key.tag)),
            _ => segments.find_map(|segment| segment.find::<4>(key.tag)),
        }
    }

    /// The number of shards.
    pub(crate) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// The position of the shard of `key`.
    pub(crate) fn position(&self, key: Key) -> usize {
        choose(near(key.tag), self.shards.len())
    }

    /// The right to give out the slots of the shard at `position`.
    pub(crate) fn lock(&self, position: usize) -> Exclusive<'_, T> {
        Exclusive { table: self, position, state: lock(&self.shard(position).state) }
    }

    /// All slots that keys have.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot<'_>> {
        (0..self.shards()).flat_map(|position| self.slots_of(position))
    }

    /// The slots that keys of the shard at `position` have.
    fn slots_of(&self, position: usize) -> impl Iterator<Item = Slot<'_>> {
        self.places(position).filter(|slot| !slot.is_empty())
    }

    /// The slots of the shard at `position`, whether keys have them or not.
    fn places(&self, position: usize) -> impl Iterator<Item = Slot<'_>> {
        let lines = self.segments(position).flat_map(move |segment| segment.part(position, self.width));
        slots(lines, self.width)
    }

    /// The segments in which the shard at `position` has keys, largest first: most keys are there.
    fn segments(&self, position: usize) -> impl Iterator<Item = &Segment> {
        let used = self.shard(position).used.load(Ordering::Acquire);
        self.segments.get(..used).unwrap_or_default().iter().rev().filter_map(OnceLock::get)
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "positions come from Table::position or count up to Table::shards"
    )]
    fn shard(&self, position: usize) -> &Shard<T> {
        &self.shards[position]
    }
}

/// Sizes of segments, smallest first, each about sixteen times as large as the one before.
fn segment_sizes(largest: usize) -> Box<[usize]> {
    let sizes = std::iter::successors(Some(largest), |size| Some(size / GROWTH).filter(|size| *size > 0));
    let mut sizes: Vec<usize> = sizes.take(MAX_SEGMENTS).collect();
    sizes.reverse();
    sizes.into()
}

/// Maps the high half of `hash` to `0..count` evenly.
#[inline]
fn choose(hash: u64, count: usize) -> usize {
    usize::try_from(((hash >> 32) * count as u64) >> 32).unwrap_or(0)
}

// === impl Exclusive ===

impl<'t, T> Exclusive<'t, T> {
    /// The slot of `key`.
    pub(crate) fn find(&self, key: Key) -> Option<Slot<'t>> {
        self.table.find(key)
    }

    /// The slot that keys without a slot share.
    pub(crate) fn shared(&self) -> Slot<'t> {
        Slot(&self.shard().shared)
    }

    /// The slots that keys have in `other`, the same shard of a table for as many keys, without the shared
    /// one: each with the slot in this shard, which is empty, where the same key is looked for.
    pub(crate) fn pair_with<'o>(
        &self,
        other: &Exclusive<'o, T>,
    ) -> impl Iterator<Item = (Slot<'t>, Slot<'o>)> {
        while self.used() < other.used() && self.grow(0, |_, _| false).is_some() {}
        let pairs = self.table.places(self.position).zip(other.table.places(other.position));
        pairs.filter(|(_, slot)| !slot.is_empty())
    }

    /// Gives `key`, which has none, a slot with these cells. `spent(position, value)` tells whether a cell
    /// may be forgotten. `None` if every slot that the key could have is in use.
    pub(crate) fn insert(
        &self,
        key: Key,
        cells: &[u64],
        spent: impl Fn(usize, u64) -> bool,
    ) -> Option<Slot<'t>> {
        // Keys are looked for in the largest segment first, whichever shard it was made for.
        while self.used() < self.table.made.load(Ordering::Acquire) {
            self.grow(cells.len(), &spent)?;
        }
        let vacant = |slot: &Slot<'t>| slot.is_empty() || slot.seal(cells.len(), &spent);
        loop {
            let mut segments = self.table.segments(self.position);
            let width = self.table.width;
            if let Some(slot) = segments.find_map(|segment| segment.choices(key.tag, width).find(vacant)) {
                slot.install(key.tag, cells);
                return Some(slot);
            }
            self.grow(cells.len(), &spent)?;
        }
    }

    /// Moves the keys in use to one more segment, made unless another shard has it. `None` if there are all.
    fn grow(&self, cells: usize, spent: impl Fn(usize, u64) -> bool) -> Option<()> {
        let table = self.table;
        let used = self.used();
        let (segment, share) = (table.segments.get(used)?, table.sizes.get(used)?);
        let segment = segment.get_or_init(|| Segment::new(*share, table.shards(), table.width));
        for slot in table.slots_of(self.position) {
            if slot.seal(cells, &spent) {
                slot.abandon();
            } else if let Some(free) = segment.choices(slot.tag(), table.width).find(Slot::is_empty) {
                let mut values = [SEALED; LINE];
                for (value, cell) in values.iter_mut().zip(slot.cells()).take(cells) {
                    *value = Slot::take(cell);
                }
                free.install(slot.tag(), values.get(..cells).unwrap_or_default());
                slot.abandon();
            }
        }
        self.shard().used.store(used + 1, Ordering::Release);
        table.made.fetch_max(used + 1, Ordering::AcqRel);
        Some(())
    }

    /// Segments in which the shard has keys.
    fn used(&self) -> usize {
        self.shard().used.load(Ordering::Acquire)
    }

    fn shard(&self) -> &'t Shard<T> {
        self.table.shard(self.position)
    }
}

// === impl Segment ===

impl Segment {
    fn new(share: usize, shards: usize, width: usize) -> Self {
        let lines = (0..share * shards * lines(width)).map(|_| CacheLine(vacant(width)));
        Self { lines: lines.collect(), share }
    }

    /// The slot of `tag`, in buckets of `LINES` lines.
    fn find<const LINES: usize>(&self, tag: u64) -> Option<Slot<'_>> {
        let (buckets, _) = self.lines.as_chunks::<LINES>();
        let choices = self.positions(tag, buckets.len()).into_iter();
        choices.filter_map(|position| find_in(buckets.get(position)?, tag)).find(|slot| slot.belongs_to(tag))
    }

    #[inline]
    fn find_near<const LINES: usize>(&self, tag: u64) -> Option<Slot<'_>> {
        let (buckets, _) = self.lines.as_chunks::<LINES>();
        find_in(buckets.get(choose(near(tag), buckets.len()))?, tag)
    }

    /// The slots that a tag may have, of `width` words, in the order in which they are tried.
    fn choices(&self, tag: u64, width: usize) -> impl Iterator<Item = Slot<'_>> {
        let buckets = self.lines.chunks_exact(lines(width));
        let positions = self.positions(tag, buckets.len()).into_iter();
        slots(positions.filter_map(move |position| buckets.clone().nth(position)).flatten(), width)
    }

    /// The near bucket of `tag` and the far one, of `count`.
    fn positions(&self, tag: u64, count: usize) -> [usize; 2] {
        let near = choose(near(tag), count);
        [near, near - near % self.share + choose(far(tag), self.share)]
    }

    /// The lines of the shard at `position`.
    fn part(&self, position: usize, width: usize) -> &[CacheLine] {
        self.lines.chunks_exact(self.share * lines(width)).nth(position).unwrap_or_default()
    }
}

/// The slot of `tag` in a bucket, or another one if it is not there. Compares all tags before it branches:
/// which slot it is cannot be foreseen, that it is here can.
#[inline]
fn find_in<const LINES: usize>(bucket: &[CacheLine; LINES], tag: u64) -> Option<Slot<'_>> {
    let width = LINES * LINE / SLOTS_IN_BUCKET;
    let slot = |position: usize| {
        let (line, word) = (position * width / LINE, position * width % LINE);
        bucket.get(line)?.0.get(word..word + width).map(Slot)
    };
    let is_tag = |position: usize| slot(position).is_some_and(|slot| slot.belongs_to(tag));
    let others = 1..SLOTS_IN_BUCKET;
    if LINES == 1 {
        // In one line its position is found in fewer steps than its address.
        return slot(others.fold(0, |found, at| select_unpredictable(is_tag(at), at, found)));
    }
    others.fold(slot(0), |found, at| if is_tag(at) { slot(at) } else { found })
}

/// What chooses the bucket that is looked at first.
const fn near(tag: u64) -> u64 {
    tag
}

/// What chooses the other bucket in the part of the same shard; in a small segment it may be the same.
const fn far(tag: u64) -> u64 {
    tag.rotate_left(32)
}

/// The lines of a bucket of slots of `width` words.
const fn lines(width: usize) -> usize {
    width * SLOTS_IN_BUCKET / LINE
}

fn slots<'t>(lines: impl Iterator<Item = &'t CacheLine>, width: usize) -> impl Iterator<Item = Slot<'t>> {
    lines.flat_map(move |line| line.0.chunks_exact(width)).map(Slot)
}

/// Words of slots that nobody has.
fn vacant<const WORDS: usize>(width: usize) -> [AtomicU64; WORDS] {
    std::array::from_fn(|word| {
        let is_tag = word.is_multiple_of(width);
        AtomicU64::new(if is_tag { Key::EMPTY } else { SEALED })
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
