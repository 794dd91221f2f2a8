//! Pictures, recordings and documents in a request body: where they stand, and what they cost.

use memchr::memmem;

/// What a picture or a recording costs, in tokens: the order of magnitude of a picture of one megapixel at
/// the large providers, and the least that any attachment counts.
const TOKENS: u64 = 1_000;

/// Bytes of base64 for each token of a picture or a recording that is larger than most: no text that looks
/// like one is free.
const BYTES_PER_TOKEN_OF_A_MEDIUM: u64 = 1_000;

/// Bytes of base64 for each token of what may be a document: pages of a PDF have about 50 KB and 1500 tokens
/// each.
const BYTES_PER_TOKEN: u64 = 32;

/// How far before a run of base64 its string may begin: a block, and the head of a `data:` URL. What else its
/// object says is looked for as far.
const LONGEST_HEAD: usize = 256;

/// Where the dialects of clients have attachments: text that stands elsewhere is none, whatever it looks
/// like.
const MEMBERS: [(&[u8], Form); 4] =
    [(b"data", Form::Told), (b"file_data", Form::Bare), (b"image_url", Form::Url), (b"url", Form::Url)];

/// The one that has a list of them.
const LIST: &[u8] = b"images";

/// How an attachment is told from text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// Nothing else stands there, with or without the head of a `data:` URL.
    Bare,
    /// It may be text: what it is stands beside it.
    Told,
    /// By the head of a `data:` URL.
    Url,
}

/// How base64 begins of PNG, JPEG, GIF and RIFF (WebP and WAV), of MP3 with and without tags, Ogg and FLAC.
const MEDIA: [&[u8]; 9] = [b"iVBOR", b"/9j/", b"R0lG", b"UklGR", b"SUQz", b"//s", b"//u", b"T2dnU", b"ZkxhQ"];

/// Attachments, looked for from the beginning of a body to its end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attachments {
    /// Where the string of the last one ended that was in a list.
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
        let before = body.get(..quote)?.trim_ascii_end();
        let in_list = self.is_in_list(before);
        let (name_at, form) = if in_list { (quote, Form::Bare) } else { member(before)? };
        let text = body.get(quote + 1..)?;
        let content = match text.strip_prefix(b"data:") {
            Some(url) => url_content(url)?,
            None if form == Form::Url => return None,
            None => text,
        };
        let length = memchr::memchr3(b'"', b' ', b'\\', content).unwrap_or(content.len());
        let end = body.len() - content.len() + length;
        if end < run || form == Form::Told && !says_base64(body.get(..name_at)?, body.get(end..)?) {
            return None;
        }
        self.last = in_list.then_some(end);
        let is_medium = MEDIA.iter().any(|start| content.starts_with(start));
        Some(Attachment { end, length: length as u64, is_medium })
    }

    /// Whether the string that follows this is one of a list of attachments.
    fn is_in_list(self, before: &[u8]) -> bool {
        if let Some(before) = before.strip_suffix(b",") {
            // The list of which the last one was.
            return self.last.is_some_and(|end| before.trim_ascii_end().len() == end + 1);
        }
        before.strip_suffix(b"[").is_some_and(|before| named(before, LIST).is_some())
    }
}

// === impl Attachment ===

impl Attachment {
    pub(super) fn tokens(self) -> u64 {
        let bytes = if self.is_medium { BYTES_PER_TOKEN_OF_A_MEDIUM } else { BYTES_PER_TOKEN };
        (self.length / bytes).max(TOKENS)
    }
}

/// The member whose value follows this: where its name begins, and how an attachment in it is told.
fn member(before: &[u8]) -> Option<(usize, Form)> {
    MEMBERS.into_iter().find_map(|(name, form)| Some((named(before, name)?, form)))
}

/// Where the name begins of the member whose value follows this, if it is this one.
fn named(before: &[u8], name: &[u8]) -> Option<usize> {
    let before = before.trim_ascii_end().strip_suffix(b":")?.trim_ascii_end().strip_suffix(b"\"")?;
    Some(before.strip_suffix(name)?.strip_suffix(b"\"")?.len())
}

/// The content of a `data:` URL that is no text.
fn url_content(url: &[u8]) -> Option<&[u8]> {
    let (head, content) = url.split_at_checked(memchr::memchr(b',', url.get(..LONGEST_HEAD)?)?)?;
    let is_attachment = head.ends_with(b";base64") && !head.starts_with(b"text/");
    is_attachment.then(|| content.get(1..)).flatten()
}

/// Whether the other members of an object say that one is base64: those before its name, and those after its
/// value. Anthropic has base64 and text under one name, and says which by a `type`; OpenAI has a `format`
/// beside what is base64. Of a body of which only the beginning is known it may be said in the rest.
fn says_base64(before: &[u8], after: &[u8]) -> bool {
    let before = before.get(before.len().saturating_sub(LONGEST_HEAD)..).unwrap_or_default();
    let Some(before) = memchr::memrchr(b'{', before).and_then(|at| before.get(at..)) else {
        return false;
    };
    let end = memchr::memchr(b'}', after.get(..LONGEST_HEAD.min(after.len())).unwrap_or_default());
    let is_beginning = end.is_none() && after.len() < LONGEST_HEAD;
    let Some(after) = end.or(is_beginning.then_some(after.len())).and_then(|end| after.get(..end)) else {
        return false;
    };
    let mut is_said = is_beginning;
    for members in [before, after] {
        is_said |= memmem::find(members, b"\"format\"").is_some();
        for at in memmem::find_iter(members, b"\"type\"") {
            let value = members.get(at + b"\"type\"".len()..).unwrap_or_default().trim_ascii_start();
            let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii_start();
            if !value.starts_with(b"\"base64\"") {
                return false;
            }
            is_said = true;
        }
    }
    is_said
}
