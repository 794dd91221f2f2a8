//! Cuts items out of a list in place: members of an object, or items of an array.

use std::ops::Range;

/// What has to change in a body: a place, and what stands there instead.
pub(crate) type Edit = (Range<usize>, &'static str);

/// Cuts items out of a list, which are told by where each is and whether it is left out. With them go the
/// commas that set them apart: those before them, or those after them where none is kept before. Items beside
/// one another are one cut.
pub(crate) fn cut_out(
    items: impl IntoIterator<Item = (Range<usize>, bool)>,
    at: usize,
    cuts: &mut Vec<Edit>,
) {
    let mut kept_until = None;
    let mut cut: Option<Range<usize>> = None;
    let mut push = |cut: Range<usize>| cuts.push((at + cut.start..at + cut.end, ""));
    for (item, is_cut) in items {
        if is_cut {
            let start = cut.map_or(kept_until.unwrap_or(item.start), |cut| cut.start);
            cut = Some(start..item.end);
            continue;
        }
        if let Some(cut) = cut.take() {
            push(if kept_until.is_none() { cut.start..item.start } else { cut });
        }
        kept_until = Some(item.end);
    }
    cut.into_iter().for_each(push);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_left_is_the_list_of_the_others(is_cut in proptest::collection::vec(any::<bool>(), 0..12)) {
            let mut list = String::new();
            let mut items = Vec::new();
            for (index, &is_cut) in is_cut.iter().enumerate() {
                list.push_str(if index == 0 { " " } else { " , " });
                let start = list.len();
                list.push_str(&index.to_string());
                items.push((start..list.len(), is_cut));
            }
            let mut cuts = Vec::new();
            cut_out(items, 0, &mut cuts);
            prop_assert_eq!(cuts.len(), is_cut.chunk_by(|one, next| one == next).filter(|run| run[0]).count());
            for (range, instead) in cuts.into_iter().rev() {
                list.replace_range(range, instead);
            }
            let left: Vec<usize> = serde_json::from_str(&format!("[{list}]")).unwrap();
            let expected: Vec<usize> = (0..is_cut.len()).filter(|index| !is_cut[*index]).collect();
            prop_assert_eq!(left, expected);
        }
    }
}
