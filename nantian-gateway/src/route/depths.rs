//! Which depths occur among texts.

/// A set of depths: of paths by `/`, of host names by `.`; all that are [`Depths::DEEPEST`] or more count as
/// one.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Depths(u32);

impl Depths {
    const DEEPEST: usize = 31;

    pub(super) fn insert(&mut self, depth: usize) {
        self.0 |= 1 << depth.min(Self::DEEPEST);
    }

    pub(super) fn contains(self, depth: usize) -> bool {
        self.0 >> depth.min(Self::DEEPEST) & 1 == 1
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The greatest depth, or as good as none where it is not known.
    pub(super) fn greatest(self) -> usize {
        match self.0.checked_ilog2() {
            Some(bit) if bit < 31 => bit as usize,
            Some(_) => usize::MAX,
            None => 0,
        }
    }
}

/// How many `separator`s are in `text`.
pub(super) fn depth(text: &str, separator: u8) -> usize {
    memchr::memchr_iter(separator, text.as_bytes()).count()
}
