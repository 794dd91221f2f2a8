//! Signed thoughts that come back in a chat as a stream has told them.

use memchr::memmem;

use super::chats::{each_message, each_object};
use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};

/// Cuts out of each the index by which a client has put the stream together: proxies hand thoughts to Claude
/// as they come, and it refuses what it does not know. Nothing is lost.
pub(crate) fn without_indices(object: &Object<'_>) -> Vec<Edit> {
    let mut cuts = Vec::new();
    let is_there = |json: &[u8]| memmem::find(json, b"\"thinking_blocks\"").is_some();
    each_message(object, is_there, |at, message| {
        let Some((within, blocks)) = message.place("thinking_blocks") else { return };
        each_object(at + within, blocks, |at, block| {
            cut_out(block.members().map(|(name, range)| (range, name == b"index")), at, &mut cuts);
        });
    });
    cuts
}
