//! The framings of bodies, each an incremental decoder: any chunking gives the same events.

pub mod frames;
pub mod json;
pub mod ndjson;
pub mod sse;

/// What may stand before a text, and be ignored: before events, and before JSON (RFC 8259, section 8.1), as
/// servers in Python write it.
pub(crate) const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The largest event of a stream that is read, in bytes: a picture in base64 is a few million.
pub(crate) const EVENT_LIMIT: usize = 16 * 1024 * 1024;

/// What a decoder keeps allocated between two events; a rare large one must not stay with a long stream.
const KEPT: usize = 16 * 1024;

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT);
}
