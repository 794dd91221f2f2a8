//! Pictures, recordings and documents in a request body: where they stand, and what they cost.

/// What a picture or a recording costs, in tokens: the order of magnitude of a picture of one megapixel at the large
/// providers, and the least that any attachment counts.
const TOKENS: u64 = 1_000;

/// Bytes of base64 for each token of what may be a document: pages of a PDF have about 50 KB and 1500 tokens each.
const BYTES_PER_TOKEN: u64 = 32;

/// How far before a run of base64 its string may begin: a block, and the head of a `data:` URL.
const LONGEST_HEAD: usize = 256;

/// Members whose value is an attachment, in any dialect of clients: text that stands elsewhere is none, whatever it looks like.
const MEMBERS: [&[u8]; 5] = [b"data", b"file_data", b"image_url", b"images", b"url"];

/// How base64 begins of PNG, JPEG, GIF and RIFF (WebP and WAV), of MP3 with and without tags, Ogg and FLAC.
const MEDIA: [&[u8]; 9] = [b"iVBOR", b"/9j/", b"R0lG", b"UklGR", b"SUQz", b"//s", b"//u", b"T2dnU", b"ZkxhQ"];

/// Attachments, looked for from the beginning of a body to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attachments {
    /// Where the string of the last one ended.
    last: Option<usize>,
}

/// An attachment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attachment {
    /// Where the quote is that ends it, or what else cannot be base64.
    pub(super) end: usize,
    length: u64,
    is_medium: bool,
}

// === impl Attachments ===

impl Attachments {
    /// The attachment to which a run of base64 that begins at or before `run` belongs, if it is part of one.
    pub(super) fn find(&mut self, body: &[u8], run: usize) -> Option<Attachment> {
        let from = run.saturating_sub(LONGEST_HEAD);
        let quote = from + memchr::memrchr(b'"', body.get(from..run)?)?;
        if !self.may_hold(body.get(..quote)?) {
            return None;
        }
        let text = body.get(quote + 1..)?;
        let content = match text.strip_prefix(b"data:") {
            Some(url) => url.get(memchr::memchr(b',', url.get(..LONGEST_HEAD)?)? + 1..)?,
            None => text,
        };
        let length = memchr::memchr3(b'"', b' ', b'\\', content).unwrap_or(content.len());
        let end = body.len() - content.len() + length;
        if end < run {
            return None;
        }
        self.last = Some(end);
        let is_medium = MEDIA.iter().any(|start| content.starts_with(start));
        Some(Attachment { end, length: length as u64, is_medium })
    }

    /// Whether the string that begins after this much of a body is one in which attachments are.
    fn may_hold(self, before: &[u8]) -> bool {
        let before = before.trim_ascii_end();
        if let Some(before) = before.strip_suffix(b",") {
            // The list of which the last one was.
            return self.last.is_some_and(|end| before.trim_ascii_end().len() == end + 1);
        }
        let before = before.strip_suffix(b"[").unwrap_or(before).trim_ascii_end();
        let Some(name) = before.strip_suffix(b":").and_then(|name| name.trim_ascii_end().strip_suffix(b"\""))
        else {
            return false;
        };
        MEMBERS.iter().any(|member| name.strip_suffix(*member).is_some_and(|before| before.ends_with(b"\"")))
    }
}

// === impl Attachment ===

impl Attachment {
    pub(super) fn tokens(self) -> u64 {
        if self.is_medium { TOKENS } else { (self.length / BYTES_PER_TOKEN).max(TOKENS) }
    }
}
