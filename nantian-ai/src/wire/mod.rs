//! The framings of bodies, each an incremental decoder: any chunking gives the same events.

pub mod frames;
pub mod json;
pub mod ndjson;
pub mod sse;

/// The largest event of a stream that is read, in bytes: a picture in base64 is a few million.
pub(crate) const EVENT_LIMIT: usize = 16 * 1024 * 1024;

/// What a decoder keeps allocated between two events; a rare large one must not stay with a long stream.
const KEPT: usize = 16 * 1024;

fn empty(buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.shrink_to(KEPT);
}
