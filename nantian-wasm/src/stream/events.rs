//! Where server-sent events end.

/// The end of the last whole event: behind the last blank line, or the start if there is none.
///
/// Lines end in LF, CR or CR LF. A CR at the very end may be half of a CR LF: it ends a blank line only where the line
/// before it ended in CR alone.
pub(super) fn end_of_last(bytes: &[u8]) -> usize {
    let (mut end, mut position, mut line_is_blank) = (0, 0, false);
    let mut last_was_bare = false;
    while let Some(byte) = bytes.get(position) {
        position += 1;
        let is_bare = match byte {
            b'\n' => false,
            b'\r' if bytes.get(position) == Some(&b'\n') => {
                position += 1;
                false
            }
            b'\r' => true,
            _ => {
                line_is_blank = false;
                continue;
            }
        };
        let is_half = is_bare && position == bytes.len() && !last_was_bare;
        if line_is_blank && !is_half {
            end = position;
        }
        line_is_blank = true;
        last_was_bare = is_bare;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::end_of_last;

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
            assert_eq!(end_of_last(bytes), end, "{:?}", bytes.escape_ascii().to_string());
        }
    }
}
