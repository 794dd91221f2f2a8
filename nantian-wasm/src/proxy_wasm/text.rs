//! Header values as text.
//!
//! HTTP lets a value have bytes of no encoding (RFC 9110, section 5.5). SDKs give guests strings, and that of
//! Rust traps where a value is none: any client could end any instance. So bytes that are no UTF-8 are shown
//! as ISO 8859-1, which they have meant, and what a guest writes back as it was shown is what it was, except
//! for `:authority`, which cannot have such bytes. Text beside one is shown as it is: none can hide a word
//! from a guest that looks for it.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Whether a value is shown as it is.
pub(super) fn is_text(value: &[u8]) -> bool {
    std::str::from_utf8(value).is_ok()
}

/// A value as guests are shown it.
pub(super) fn shown(value: &[u8]) -> Cow<'_, [u8]> {
    if is_text(value) {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(2 * value.len());
    for chunk in value.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|byte| char::from(*byte)));
    }
    Cow::Owned(text.into_bytes())
}

/// The value of a name that is shown as what a guest writes there, if it is not text.
pub(super) fn restored(map: &HeaderMap, name: &HeaderName, written: &[u8]) -> Option<HeaderValue> {
    // Whatever is shown as something else has bytes beyond ASCII.
    if written.is_ascii() {
        return None;
    }
    map.get_all(name).iter().find(|value| *shown(value.as_bytes()) == *written).cloned()
}

/// The values of a map that a guest replaces, each to be taken once, in their order.
#[derive(Debug, Default)]
pub(super) struct Replaced<'a>(HashMap<Vec<u8>, VecDeque<&'a [u8]>>);

// === impl Replaced ===

impl<'a> Replaced<'a> {
    pub(super) fn of(map: &'a HeaderMap) -> Self {
        let mut values = HashMap::<_, VecDeque<_>>::new();
        if map.values().all(|value| is_text(value.as_bytes())) {
            return Self(values);
        }
        for (name, value) in map {
            let value = value.as_bytes();
            values.entry(key(name.as_str().as_bytes(), &shown(value))).or_default().push_back(value);
        }
        Self(values)
    }

    /// What a guest means by what it writes.
    pub(super) fn take<'b>(&mut self, name: &[u8], written: &'b [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        if written.is_ascii() || self.0.is_empty() {
            return written;
        }
        self.0.get_mut(&key(name, written)).and_then(VecDeque::pop_front).unwrap_or(written)
    }
}

fn key(name: &[u8], shown: &[u8]) -> Vec<u8> {
    [&name.to_ascii_lowercase(), &b":"[..], shown].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_that_is_no_text_is_shown_as_what_its_bytes_have_meant() {
        assert_eq!(*shown(b"caf\xe9"), *"caf\u{e9}".as_bytes());
        assert_eq!(*shown("caf\u{e9}".as_bytes()), *"caf\u{e9}".as_bytes());
    }

    #[test]
    fn no_stray_byte_changes_how_the_text_beside_it_is_shown() {
        assert_eq!(*shown(b"\xc3\xa9t\xc3\xa9\xff"), *"\u{e9}t\u{e9}\u{ff}".as_bytes());
        assert_eq!(*shown(b"\xe9\xc3\xa9"), *"\u{e9}\u{e9}".as_bytes());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn whatever_is_shown_is_text_and_text_is_shown_as_it_is(value: Vec<u8>) {
            prop_assert!(is_text(&shown(&value)));
            prop_assert_eq!(is_text(&value), *shown(&value) == *value);
        }

        #[test]
        fn a_map_that_is_written_as_it_was_shown_is_what_it_was(
            fields in prop::collection::vec(("[ab]", prop::collection::vec(prop::sample::select(&[
                b'e', 0xc3, 0xa9, 0xe9,
            ][..]), 0..4)), 0..12),
        ) {
            let mut map = HeaderMap::new();
            for (name, value) in &fields {
                map.append(HeaderName::try_from(name).unwrap(), HeaderValue::from_bytes(value).unwrap());
            }
            let mut replaced = Replaced::of(&map);
            for (name, value) in &map {
                let text = shown(value.as_bytes()).into_owned();
                prop_assert_eq!(replaced.take(name.as_str().as_bytes(), &text), value.as_bytes());
                let first = restored(&map, name, &text);
                prop_assert_eq!(first.is_some(), !text.is_ascii());
                prop_assert!(first.is_none_or(|first| *shown(first.as_bytes()) == *text));
            }
        }
    }
}
