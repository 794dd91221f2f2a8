//! Blocks as Converse has them: each an object with one member that says what it is.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use super::OF_BEDROCK;
use crate::codec::{Invalid, List, Object};
use crate::ir::{Block, CacheLife, Document, Media, Reasoning, Source, ToolCall, ToolResult, safe_id};

/// The longest name of a document that is kept, of the 200 letters that Bedrock takes.
const LONGEST_NAME: usize = 180;

/// A block that Bedrock can read.
pub(super) enum Piece<'r> {
    Text(Cow<'r, str>),
    Image {
        format: &'static str,
        data: &'r str,
    },
    Document {
        format: &'static str,
        name: String,
        data: &'r str,
    },
    Reasoning(&'r Reasoning),
    /// Reasoning that only Bedrock can read.
    Encrypted(&'r str),
    Call(&'r ToolCall),
    Result {
        result: &'r ToolResult,
        said: Vec<Piece<'r>>,
    },
    /// What comes before is to be kept.
    CachePoint(CacheLife),
}

/// The names of the documents of a request, each once.
#[derive(Default)]
pub(super) struct Names {
    taken: HashSet<String>,
    /// The number of the next document of a title.
    next: HashMap<String, u64>,
}

// === impl Names ===

impl Names {
    /// A name that no other document has, of the letters that Bedrock takes.
    fn take(&mut self, title: Option<&str>) -> String {
        let safe = |letter: char| letter.is_ascii_alphanumeric() || "-()[]".contains(letter);
        let words = title.unwrap_or_default().split(|letter| !safe(letter));
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let mut bare: String = words.join(" ").chars().take(LONGEST_NAME).collect();
        if bare.is_empty() {
            "Document".clone_into(&mut bare);
        }
        let next = self.next.entry(bare.clone()).or_insert(1);
        loop {
            let name = if *next == 1 { bare.clone() } else { format!("{bare} ({next})") };
            *next += 1;
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

// === impl Piece ===

impl<'r> Piece<'r> {
    /// Reads what stands in a message; `None` for what says nothing.
    pub(super) fn of(block: &'r Block, names: &mut Names) -> Result<Option<Self>, Invalid> {
        Ok(Some(match block {
            block if block.is_blank() => return Ok(None),
            Block::Audio(_) => return Ok(None),
            Block::Text(text) | Block::Refusal(text) => Self::Text(text.as_str().into()),
            Block::Image(picture) => image(&picture.source)?,
            Block::Document(document) => Self::document(document, names)?,
            Block::Reasoning(reasoning) => Self::Reasoning(reasoning),
            Block::RedactedReasoning(data) => Self::Encrypted(data.strip_prefix(OF_BEDROCK).unwrap_or(data)),
            Block::ToolCall(call) => Self::Call(call),
            Block::ToolResult(result) => {
                let said = result.content.iter().map(|block| Self::of(block, names));
                let said = said.filter_map(Result::transpose).collect::<Result<_, _>>()?;
                Self::Result { result, said }
            }
        }))
    }

    fn document(document: &'r Document, names: &mut Names) -> Result<Self, Invalid> {
        let Source::Inline(Media { media_type, base64 }) = &document.source else {
            return Err(Invalid::new(
                "messages.content.document",
                "is at a URL, from which this provider reads nothing",
            ));
        };
        let format = document_format(media_type).ok_or_else(|| {
            Invalid::new("messages.content.document", "is of a type that this provider does not read")
        })?;
        Ok(Self::Document { format, name: names.take(document.title.as_deref()), data: base64 })
    }

    /// Takes out of a result what it shows, to be said behind all results.
    pub(super) fn detached(&mut self) -> Vec<Self> {
        let Self::Result { result, said } = self else { return Vec::new() };
        let (texts, shown): (Vec<_>, Vec<_>) = std::mem::take(said).into_iter().partition(Self::is_text);
        *said = texts;
        if said.is_empty() && !shown.is_empty() {
            said.push(Self::Text("(see the attachment)".into()));
        }
        let beside =
            |piece| [Self::Text(format!("Attached to the result of {}:", safe_id(&result.id)).into()), piece];
        shown.into_iter().flat_map(beside).collect()
    }

    /// Whether it says something, apart from what the model has thought.
    pub(super) fn is_said(&self) -> bool {
        !matches!(self, Self::Reasoning(_) | Self::Encrypted(_) | Self::CachePoint(_))
    }

    pub(super) fn is_result(&self) -> bool {
        matches!(self, Self::Result { .. })
    }

    pub(super) fn is_document(&self) -> bool {
        matches!(self, Self::Document { .. })
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    pub(super) fn write(&self, list: &mut List<'_>) {
        list.object(|block| match self {
            Self::Text(text) => block.text("text", text),
            Self::Image { format, data } => block.object("image", |image| {
                image.text("format", format);
                write_source(image, data);
            }),
            Self::Document { format, name, data } => block.object("document", |document| {
                document.text("format", format);
                document.text("name", name);
                write_source(document, data);
            }),
            Self::Reasoning(reasoning) => block.object("reasoningContent", |content| {
                content.object("reasoningText", |text| {
                    text.text("text", &reasoning.text);
                    text.some_text("signature", reasoning.signature.as_deref());
                });
            }),
            Self::Encrypted(data) => {
                block.object("reasoningContent", |content| content.text("redactedContent", data));
            }
            Self::Call(call) => block.object("toolUse", |item| {
                item.text("toolUseId", &safe_id(&call.id));
                item.text("name", &call.name);
                item.json("input", &call.arguments);
            }),
            Self::Result { result, said } => block.object("toolResult", |item| {
                item.text("toolUseId", &safe_id(&result.id));
                item.list("content", |list| said.iter().for_each(|piece| piece.write(list)));
                if result.is_error {
                    item.text("status", "error");
                }
            }),
            Self::CachePoint(life) => write_cache_point(block, *life),
        });
    }
}

pub(super) fn write_cache_point(item: &mut Object<'_>, life: CacheLife) {
    item.object("cachePoint", |point| {
        point.text("type", "default");
        if life == CacheLife::Hour {
            point.text("ttl", "1h");
        }
    });
}

fn write_source(item: &mut Object<'_>, data: &str) {
    item.object("source", |source| source.text("bytes", data));
}

fn image(source: &Source) -> Result<Piece<'_>, Invalid> {
    let refuse = |problem: &'static str| Invalid::new("messages.content.image", problem);
    let Source::Inline(Media { media_type, base64 }) = source else {
        return Err(refuse("is at a URL, from which this provider reads nothing"));
    };
    let format = match media_type.as_str() {
        "image/png" => "png",
        "image/jpeg" => "jpeg",
        "image/gif" => "gif",
        "image/webp" => "webp",
        _ => return Err(refuse("is neither PNG, JPEG, GIF nor WebP")),
    };
    Ok(Piece::Image { format, data: base64 })
}

fn document_format(media_type: &str) -> Option<&'static str> {
    Some(match media_type {
        "application/pdf" => "pdf",
        "text/csv" => "csv",
        "text/html" => "html",
        "text/markdown" => "md",
        "application/msword" => "doc",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document" => "docx",
        "application/vnd.ms-excel" => "xls",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet" => "xlsx",
        text if text.starts_with("text/") => "txt",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_documents_are_of_few_letters_and_differ() {
        let mut names = Names::default();
        for (title, name) in [
            (Some("../q3/report_final.pdf"), "q3 report final pdf"),
            (Some("q3 report final pdf"), "q3 report final pdf (2)"),
            (None, "Document"),
            (Some("報告"), "Document (2)"),
        ] {
            assert_eq!(names.take(title), name);
        }
        assert_eq!(names.take(Some(&"x".repeat(300))).len(), LONGEST_NAME);
    }
}
