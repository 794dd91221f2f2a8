//! Compressed request bodies: some clients send large ones so, and what comes after works on the JSON itself.

use std::io::{self, Read as _};
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};

use crate::error::Error;
use crate::memory::HeldMemory;

/// The largest window of zstd that a client may ask for, in bytes (RFC 9659, 3). As much, and a block, is
/// unpacked beyond a limit at most.
const MAX_WINDOW: u64 = 8 << 20;

/// A way of compression that is undone here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Coding {
    Gzip,
    Zstd,
}

/// How a body with these headers is compressed; `None` if it is not.
///
/// # Errors
/// [`Error::UnsupportedEncoding`] if it is in a way that is not undone here.
pub(crate) fn coding(headers: &HeaderMap) -> Result<Option<Coding>, Error> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(None),
        (Some(coding), None) => coding,
        (Some(_), Some(_)) => return Err(unsupported(headers)),
    };
    match coding.as_bytes().trim_ascii().to_ascii_lowercase().as_slice() {
        b"identity" => Ok(None),
        b"gzip" | b"x-gzip" => Ok(Some(Coding::Gzip)),
        b"zstd" => Ok(Some(Coding::Zstd)),
        _ => Err(unsupported(headers)),
    }
}

/// The body as it was before it was compressed; the headers no longer speak of that.
///
/// # Errors
/// [`Error::UnsupportedEncoding`], [`Error::BodyTooLarge`] if it is more than `limit` bytes, and
/// [`Error::BodyRead`] if it is broken or, in zstd, asks for a window of more than 8 MiB.
pub fn unpack(headers: &mut HeaderMap, body: Bytes, limit: u64) -> Result<Bytes, Error> {
    let Some(coding) = coding(headers)? else { return Ok(body) };
    let plain = coding.unpacked(&body, limit.saturating_add(1));
    let plain = plain.map_err(|error| Error::BodyRead { source: Arc::new(error) })?;
    if plain.len() as u64 > limit {
        return Err(Error::BodyTooLarge { limit });
    }
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    Ok(plain.into())
}

/// The same, held as it is then.
pub(crate) fn unpack_within(
    headers: &mut HeaderMap,
    body: Bytes,
    limit: u64,
    held: Option<&HeldMemory>,
) -> Result<Bytes, Error> {
    let body = unpack(headers, body, limit)?;
    held.map_or(Ok(()), |held| held.hold(body.len() as u64))?;
    Ok(body)
}

fn unsupported(headers: &HeaderMap) -> Error {
    let codings = headers.get_all(CONTENT_ENCODING).iter();
    let codings: Vec<_> = codings.map(|coding| String::from_utf8_lossy(coding.as_bytes())).collect();
    Error::UnsupportedEncoding { encoding: codings.join(", ") }
}

// === impl Coding ===

impl Coding {
    /// What was packed, or as much of it.
    fn unpacked(self, mut packed: &[u8], most: u64) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        match self {
            Self::Gzip => {
                MultiGzDecoder::new(packed).take(most).read_to_end(&mut plain)?;
            }
            Self::Zstd => {
                let mut decoder = FrameDecoder::new();
                decoder.set_max_window_size(MAX_WINDOW);
                let mut room = most;
                // Frames in a row; those that hold nothing of the body are skipped (RFC 8878, 3.1.2).
                loop {
                    let frame = StreamingDecoder::new_with_decoder(&mut packed, &mut decoder);
                    match frame.map(|frame| frame.take(room).read_to_end(&mut plain)) {
                        Ok(read) => room -= read? as u64,
                        Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                            length,
                            ..
                        })) => packed = packed.get(length as usize..).ok_or(io::ErrorKind::UnexpectedEof)?,
                        Err(error) => return Err(io::Error::other(error)),
                    }
                    if packed.is_empty() || room == 0 {
                        break;
                    }
                }
            }
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    /// What `zstd --no-check` makes of what [`plain`] says.
    const FRAME: &[u8] = b"\x28\xb5\x2f\xfd\x00\x58\x2d\x02\x00\x42\x44\x0e\x14\xa0\x57\x63\xa4\xc0\x56\x94\xca\
        \x32\xa4\xf2\x03\x13\x80\x41\x83\x97\xa8\x7a\x13\x2d\x20\xed\x51\x14\x87\x0e\x68\xf0\x7b\x69\x2e\x4d\xc2\
        \x64\x95\x4b\x7c\xe7\x49\x6a\x06\xdc\x9b\x06\x77\x13\x4d\x2e\x14\xbf\x4f\x96\x84\x66\x01\x02\x00\x04\x4f\
        \xa9\xf1\x15\x0a\x14";

    fn headers(codings: &[&'static str]) -> HeaderMap {
        codings.iter().map(|coding| (CONTENT_ENCODING, coding.parse().unwrap())).collect()
    }

    fn packed(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
    }

    fn plain() -> String {
        let message = r#"{"role":"user","content":"again and again"}"#;
        format!(r#"{{"model":"any","messages":[{}]}}"#, [message; 7].join(","))
    }

    /// A frame of zstd with a window of 2 to the power of 10 and as many more as it says, and in it so many
    /// blocks of 128 KiB of spaces.
    fn spaces(window: u8, blocks: usize) -> Bytes {
        let block = |last: u8| [2 | last, 0, 0x10, b' '];
        let head = [0x28, 0xb5, 0x2f, 0xfd, 0, window << 3];
        [&head[..], &block(0).repeat(blocks - 1), &block(1)].concat().into()
    }

    #[test]
    fn frames_of_zstd_are_unpacked() {
        let once = unpack(&mut headers(&["zstd"]), Bytes::from_static(FRAME), 336).unwrap();
        assert_eq!(once, plain());
        let twice = unpack(&mut headers(&["Zstd"]), [FRAME, FRAME].concat().into(), 672).unwrap();
        assert_eq!(twice, plain().repeat(2));
        let long = unpack(&mut headers(&["zstd"]), spaces(13, 100), 100 << 17).unwrap();
        assert!(long == " ".repeat(100 << 17));
    }

    #[test]
    fn frames_of_zstd_that_hold_nothing_of_the_body_are_skipped() {
        const SKIPPED: &[u8] = b"\x5f\x2a\x4d\x18\x03\0\0\0any";
        for frames in [[SKIPPED, FRAME, &[]], [FRAME, SKIPPED, &[]], [SKIPPED, SKIPPED, FRAME]] {
            let whole = unpack(&mut headers(&["zstd"]), frames.concat().into(), 336).unwrap();
            assert_eq!(whole, plain());
        }
        for end in 1..SKIPPED.len() {
            let broken = [FRAME, &SKIPPED[..end]].concat();
            let refused = unpack(&mut headers(&["zstd"]), broken.into(), 999);
            assert!(matches!(refused, Err(Error::BodyRead { .. })), "{end}");
        }
    }

    #[test]
    fn zstd_takes_no_more_memory_than_it_may() {
        for (bomb, limit) in [(Bytes::from_static(FRAME), 335), (spaces(13, 1_000), 1_000)] {
            let refused = unpack(&mut headers(&["zstd"]), bomb, limit);
            assert!(matches!(refused, Err(Error::BodyTooLarge { .. })), "{limit}");
        }
        let refused = unpack(&mut headers(&["zstd"]), spaces(14, 1), 1 << 20);
        assert!(matches!(refused, Err(Error::BodyRead { .. })), "no window of 16 MiB");
    }

    #[test]
    fn a_frame_of_zstd_that_breaks_off_is_refused_and_no_other_one_panics() {
        for at in 0..FRAME.len() {
            let refused = unpack(&mut headers(&["zstd"]), Bytes::from_static(&FRAME[..at]), 999);
            assert!(matches!(refused, Err(Error::BodyRead { .. })), "{at}");
            for bit in 0..8 {
                let mut frame = FRAME.to_vec();
                frame[at] ^= 1 << bit;
                if let Ok(plain) = unpack(&mut headers(&["zstd"]), frame.into(), 999) {
                    assert!(plain.len() <= 999, "{at} {bit}");
                }
            }
        }
    }

    #[test]
    fn a_packed_body_is_unpacked_once() {
        for coding in ["gzip", "GZIP", "x-gzip"] {
            let mut headers = headers(&[coding]);
            let plain = unpack(&mut headers, packed(b"{\"a\":1}"), 7).unwrap();
            assert_eq!(plain, "{\"a\":1}");
            assert!(headers.is_empty());
            assert_eq!(unpack(&mut headers, plain.clone(), 7).unwrap(), plain);
        }
    }

    #[test]
    fn a_body_that_unpacks_to_too_much_is_refused_and_not_unpacked_whole() {
        let bomb = packed(&vec![b' '; 10_000_000]);
        let refused = unpack(&mut headers(&["gzip"]), bomb, 1_000);
        assert!(matches!(refused, Err(Error::BodyTooLarge { limit: 1_000 })));
    }

    #[test]
    fn what_is_broken_or_packed_otherwise_is_refused() {
        let whole = packed(b"{\"a\":1}");
        for broken in [Bytes::from_static(b"{}"), whole.slice(..whole.len() - 5), Bytes::new()] {
            assert!(matches!(unpack(&mut headers(&["gzip"]), broken, 99), Err(Error::BodyRead { .. })));
        }
        for codings in [&["br"][..], &["gzip, br"], &["gzip", "gzip"], &[""]] {
            let refused = unpack(&mut headers(codings), whole.clone(), 99);
            assert!(matches!(refused, Err(Error::UnsupportedEncoding { .. })), "{codings:?}");
        }
    }
}
