//! Headers that are removed, and the order of those that stay.

use http::{HeaderMap, HeaderName};

/// What becomes of the order of headers when some are removed.
///
/// [`HeaderMap`] puts the last one into the gap. To keep the order costs 5 000 instructions for a dozen
/// headers, so it is kept where there are plugins, which look at it, and by filters, which rarely find one to
/// remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Any,
    Kept,
}

impl Order {
    /// Removes the headers of some names.
    pub(crate) fn remove(self, headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
        let mut names = headers.keys().enumerate();
        let Some((mut at, first)) = names.find(|(_, name)| is_removed(name)) else { return };
        if self == Self::Kept {
            keep(headers, |name| !is_removed(name));
            return;
        }
        let mut removed = Some(first.clone());
        while let Some(name) = removed {
            headers.remove(name);
            // In its place is what was the last one.
            let mut names = headers.keys().enumerate().skip(at);
            removed = names.find(|(_, name)| is_removed(name)).map(|(next, name)| {
                at = next;
                name.clone()
            });
        }
    }
}

fn keep(headers: &mut HeaderMap, is_kept: impl Fn(&HeaderName) -> bool) {
    let mut rest = HeaderMap::with_capacity(headers.capacity());
    let mut present = None;
    for (name, value) in headers.drain() {
        present = name.or(present);
        if let Some(name) = present.as_ref().filter(|name| is_kept(name)) {
            rest.append(name.clone(), value);
        }
    }
    *headers = rest;
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn removal_takes_all_of_some_names_and_keeps_the_order_if_it_is_to() {
        let names = ["x-a", "b", "x-a", "x-c", "d", "e", "d", "f", "x-g"];
        let pair = |name| (HeaderName::from_static(name), HeaderValue::from_static("1"));
        for (order, expected) in
            [(Order::Kept, ["b", "d", "d", "e", "f"]), (Order::Any, ["b", "d", "d", "e", "f"])]
        {
            let mut map = HeaderMap::from_iter(names.map(pair));
            order.remove(&mut map, |name| name.as_str().starts_with("x-"));
            let mut left: Vec<_> = map.iter().map(|(name, _)| name.as_str()).collect();
            if order == Order::Any {
                left.sort_unstable();
            }
            assert_eq!(left, expected, "{order:?}");
        }
    }
}
