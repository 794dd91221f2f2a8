//! Cuts a stream behind the blank lines that end server-sent events.

use bytes::Bytes;

use super::plugin_state::BodyBytes;

/// The bytes behind the last whole event, and how far they have been looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Events {
    unfinished: BodyBytes,
    lines: Lines,
}

/// What the end of the bytes so far says about the line that comes next. Lines end in LF, CR or CR LF.
#[derive(Debug, Clone, Copy, Default)]
struct Lines {
    /// The line that begins, or goes on, has no byte yet.
    is_blank: bool,
    /// The line before it ended in a CR alone.
    was_bare: bool,
    /// The last byte is a CR, which may be half of a CR LF.
    has_half: bool,
}

// === impl Events ===

impl Events {
    /// The whole events that the bytes make with those before them; what is behind the last one stays.
    ///
    /// Each byte is looked at once, and copied no more often than it takes to gather an event.
    pub(super) fn whole(&mut self, mut bytes: Bytes) -> Bytes {
        let rest = match self.lines.end_of_last(&bytes) {
            Some(end) => bytes.split_off(end),
            None => {
                self.unfinished = self.take().followed_by(bytes);
                return Bytes::new();
            }
        };
        let whole = self.take().followed_by(bytes);
        self.unfinished = BodyBytes::Frame(rest);
        whole.into_bytes()
    }

    /// Everything that is no whole event yet; it goes on as it is.
    pub(super) fn take(&mut self) -> BodyBytes {
        std::mem::take(&mut self.unfinished)
    }

    pub(super) fn len(&self) -> usize {
        self.unfinished.len()
    }
}

// === impl Lines ===

impl Lines {
    /// The end of the last whole event among bytes that come next, behind its blank line: zero, if the bytes
    /// before them are what ends there.
    ///
    /// A CR at the very end ends a blank line only where the line before it ended in CR alone.
    fn end_of_last(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut end = None;
        for (position, byte) in bytes.iter().enumerate() {
            if std::mem::take(&mut self.has_half) {
                let is_whole = *byte == b'\n';
                end = self.end_line(!is_whole).then_some(position + usize::from(is_whole)).or(end);
                if is_whole {
                    continue;
                }
            }
            match byte {
                b'\n' => end = self.end_line(false).then_some(position + 1).or(end),
                b'\r' => self.has_half = true,
                _ => self.is_blank = false,
            }
        }
        let ends_in_bare = self.has_half && self.is_blank && self.was_bare && !bytes.is_empty();
        if ends_in_bare { Some(bytes.len()) } else { end }
    }

    /// Whether the line that ends was blank.
    fn end_line(&mut self, is_bare: bool) -> bool {
        self.was_bare = is_bare;
        std::mem::replace(&mut self.is_blank, true)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end_of(bytes: &[u8]) -> usize {
        Lines::default().end_of_last(bytes).unwrap_or(0)
    }

    #[test]
    fn events_end_behind_a_blank_line_of_any_kind() {
        for (bytes, end) in [
            (&b"data: 1\n\ndata: 2"[..], 9),
            (b"data: 1\r\n\r\ndata", 11),
            (b"data: 1\r\rdata", 9),
            (b"data: 1\r\r", 9),
            (b"data: 1\r\n\r", 0),
            (b"data: 1\n", 0),
            (b"", 0),
            (b"data: 1\n\ndata: 2\n\n", 18),
        ] {
            assert_eq!(end_of(bytes), end, "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn event_that_comes_byte_by_byte_is_gathered_without_being_copied_for_each() {
        const LENGTH: usize = 100_000;
        let (mut events, mut places) = (Events::default(), 0);
        let mut place = std::ptr::null();
        for _ in 0..LENGTH {
            assert!(events.whole(Bytes::from_static(b"x")).is_empty());
            let now = events.unfinished.as_ptr();
            places += usize::from(std::mem::replace(&mut place, now) != now);
        }
        assert!(places <= 20, "{LENGTH} bytes were moved {places} times");
        assert!(events.whole(Bytes::from_static(b"\n")).is_empty());
        assert_eq!(events.whole(Bytes::from_static(b"\ny")).len(), LENGTH + 2);
        assert_eq!(events.len(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_chunking_passes_on_what_all_bytes_so_far_say_is_whole(
            chunks in prop::collection::vec(prop::collection::vec(prop::sample::select(&b"\r\n\nx"[..]), 0..6), 0..12),
        ) {
            let (mut events, mut all, mut passed) = (Events::default(), Vec::new(), Vec::new());
            for chunk in chunks {
                all.extend_from_slice(&chunk);
                passed.extend_from_slice(&events.whole(Bytes::from(chunk)));
                prop_assert_eq!(passed.len(), end_of(&all), "of {:?}", all.escape_ascii().to_string());
            }
            passed.extend_from_slice(&events.take());
            prop_assert_eq!(passed, all);
        }
    }
}
