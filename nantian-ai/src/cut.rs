//! Cuts items out of a list in place: members of an object, or items of an array.

use std::ops::Range;

/// What has to change in a body: a place, and what stands there instead.
pub(crate) type Edit = (Range<usize>, &'static str);

/// One of a list, and whether it is left out.
pub(crate) struct Item<'a> {
    pub(crate) range: Range<usize>,
    pub(crate) json: &'a str,
    pub(crate) is_cut: bool,
}

/// Cuts items out of a list, each with the comma that sets it apart: the one before it, or after it where none is kept before.
pub(crate) fn cut_out(items: &[Item<'_>], at: usize, cuts: &mut Vec<Edit>) {
    let first_kept = items.iter().position(|item| !item.is_cut).unwrap_or(items.len());
    for (index, item) in items.iter().enumerate().filter(|(_, item)| item.is_cut) {
        let before = index.checked_sub(1).filter(|_| index > first_kept).and_then(|before| items.get(before));
        let after = items.get(index + 1).filter(|_| index < first_kept);
        let start = before.map_or(item.range.start, |before| before.range.end);
        let end = after.map_or(item.range.end, |after| after.range.start);
        cuts.push((at + start..at + end, ""));
    }
}
