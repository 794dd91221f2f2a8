//! Compressed request bodies: some clients send large ones so, and what comes after works on the JSON itself.

use std::io::Read as _;
use std::sync::Arc;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap};

use crate::error::Error;
use crate::memory::HeldMemory;

/// Whether a body with these headers is compressed in a way that is undone here.
///
/// # Errors
/// [`Error::UnsupportedEncoding`] if it is compressed in another.
pub(crate) fn is_packed(headers: &HeaderMap) -> Result<bool, Error> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(false),
        (Some(coding), None) => coding,
        (Some(_), Some(_)) => return Err(unsupported(headers)),
    };
    match coding.to_str().map(str::trim) {
        Ok(coding) if coding.eq_ignore_ascii_case("identity") => Ok(false),
        Ok(coding) if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") => {
            Ok(true)
        }
        _ => Err(unsupported(headers)),
    }
}

/// The body as it was before it was compressed, at most `limit` bytes of it; the headers no longer speak of
/// that.
///
/// # Errors
/// [`Error::UnsupportedEncoding`], [`Error::BodyTooLarge`], and [`Error::BodyRead`] if it is broken.
pub fn unpack(headers: &mut HeaderMap, body: Bytes, limit: u64) -> Result<Bytes, Error> {
    if !is_packed(headers)? {
        return Ok(body);
    }
    let mut plain = Vec::new();
    let most = limit.saturating_add(1);
    let read = MultiGzDecoder::new(&body[..]).take(most).read_to_end(&mut plain);
    read.map_err(|error| Error::BodyRead { source: Arc::new(error) })?;
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn headers(codings: &[&'static str]) -> HeaderMap {
        codings.iter().map(|coding| (CONTENT_ENCODING, coding.parse().unwrap())).collect()
    }

    fn packed(plain: &[u8]) -> Bytes {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap().into()
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
