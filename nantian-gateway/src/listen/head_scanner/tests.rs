use super::*;

const AMBIGUOUS: &[u8] =
    b"POST / HTTP/1.1\r\nHost: a\r\nCONTENT-length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

/// Requests that are not ambiguous, with bodies that look as if they were.
const PLAIN: [&[u8]; 5] = [
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET / HTTP/1.1\nHost: a\n\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 26\r\n\r\nTransfer-Encoding: x\r\n\r\nGE",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
      15;a=b\r\nContent-Length: 5\r\n\r\n\r\n000\r\nContent-Length: 5\r\n\r\n",
];

/// What a scanner says of `bytes`, however they are split in two.
fn scan(bytes: &[u8]) -> Option<u32> {
    let whole = HeadScanner::default().feed(bytes);
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let mut scanner = HeadScanner::default();
        assert_eq!(scanner.feed(first).or(scanner.feed(second)), whole, "cut at {cut}");
    }
    let mut scanner = HeadScanner::default();
    assert_eq!(bytes.chunks(1).find_map(|byte| scanner.feed(byte)), whole, "byte by byte");
    whole
}

#[test]
fn both_framing_headers_are_seen_however_the_bytes_are_split() {
    assert_eq!(scan(AMBIGUOUS), Some(1));
}

#[test]
fn a_body_that_looks_like_a_header_is_no_ambiguity() {
    assert_eq!(scan(&PLAIN.concat()), None);
}

#[test]
fn a_pipelined_head_is_looked_at_whatever_comes_before_it() {
    for plain in PLAIN {
        assert_eq!(scan(&[plain, AMBIGUOUS].concat()), Some(2), "{}", plain.escape_ascii());
    }
    let all = PLAIN.concat();
    assert_eq!(scan(&[&all, AMBIGUOUS].concat()), Some(6));
}

#[test]
fn a_length_that_cannot_be_followed_is_an_ambiguity() {
    let hidden = format!("POST / HTTP/1.1\r\nContent-Length:{}5\r\n\r\n", " ".repeat(KEPT));
    let mut scanner = HeadScanner::default();
    assert_eq!(hidden.as_bytes().chunks(1).find_map(|byte| scanner.feed(byte)), Some(1));
}

#[test]
fn what_is_kept_of_a_long_line_is_bounded() {
    let mut scanner = HeadScanner::default();
    for _ in 0..1000 {
        assert_eq!(scanner.feed(&[b'a'; 1000]), None);
    }
    assert_eq!(scanner.kept.len(), KEPT);
}
