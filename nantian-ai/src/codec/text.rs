//! Blocks as plain text, where a dialect has room for no more.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::ir::{Block, Document, Source};

/// The texts of a message, as one.
pub(crate) fn joined_text(content: &[Block], separator: &str) -> String {
    let mut joined = String::new();
    for block in content {
        if let Block::Text(text) | Block::Refusal(text) = block {
            if !joined.is_empty() {
                joined.push_str(separator);
            }
            joined.push_str(text);
        }
    }
    joined
}

/// What the system says in the midst of a conversation, where a provider lets it say nothing there: a user
/// says it, marked. Said at the beginning it would change what every provider keeps a conversation by.
pub(crate) fn said_by_user(text: &str) -> String {
    format!("<system>\n{text}\n</system>")
}

/// Whether the word JSON is in what is said, in letters of any case.
pub(crate) fn says_json<'a>(mut said: impl Iterator<Item = &'a Block>) -> bool {
    let is_in = |text: &str| text.as_bytes().windows(4).any(|word| word.eq_ignore_ascii_case(b"json"));
    said.any(|block| matches!(block, Block::Text(text) if is_in(text)))
}

/// What a user says first where nobody does, and a provider wants somebody to.
pub(crate) const BEGINNING: &str = "Begin.";

/// The text of a document that is text.
pub(crate) fn text_of(document: &Document) -> Option<String> {
    let Source::Inline(media) = &document.source else { return None };
    if !media.media_type.starts_with("text/") {
        return None;
    }
    String::from_utf8(STANDARD.decode(&media.base64).ok()?).ok()
}

/// The same under its title, where there is no field for one.
pub(crate) fn titled_text_of(document: &Document) -> Option<String> {
    let text = text_of(document)?;
    Some(match &document.title {
        Some(title) => format!("{title}\n\n{text}"),
        None => text,
    })
}
