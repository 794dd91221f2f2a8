//! Content into the common form, of requests and of replies.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::SIGNED_HERE;
use crate::codec::{Fields, Invalid, Value, joined_text};
use crate::ir::{Block, CacheLife, Document, Losses, Message, Reasoning, Role, Source, ToolCall, ToolResult};

pub(super) fn read_content(
    role: Role,
    content: Option<Value>,
    losses: &mut Losses,
) -> Result<Message, Invalid> {
    let mut message = Message::new(role, Vec::new());
    match content {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => message.content.push(Block::Text(text)),
        Some(Value::Array(blocks)) => {
            for block in blocks {
                let mut fields = Fields::of(block, "messages.content")?;
                let kind = fields.required_text("type")?;
                let mut cached = None;
                match read_block(&kind, &mut fields, &mut cached, losses)? {
                    Some(block) => {
                        if role != Role::System || !is_billing(&block) {
                            message.push(block, cached);
                        }
                        fields.rest(losses);
                    }
                    // Blocks of tools that the provider runs itself.
                    None => losses.add_below("messages.content", &kind),
                }
            }
        }
        Some(_) => return Err(Invalid::new("messages.content", "is neither a string nor a list")),
    }
    Ok(message)
}

/// Whether a block of a system prompt is Claude Code's note about the request, which is for Anthropic alone,
/// and which would change the beginning of every conversation each time.
fn is_billing(block: &Block) -> bool {
    matches!(block, Block::Text(text) if text.starts_with("x-anthropic-billing-header:"))
}

/// Reads how long a beginning is to be kept that ends here. What says nothing that is known is named, and no
/// reason to refuse the rest: it is about costs alone.
pub(crate) fn take_cache_control(fields: &mut Fields, losses: &mut Losses) -> Option<CacheLife> {
    let mut control = Fields::lenient(fields.take("cache_control")?);
    let is_known = control.any_text("type").as_deref() == Some("ephemeral");
    let life = match control.take("ttl").as_ref().map(Value::as_str) {
        None | Some(Some("5m")) => CacheLife::Usual,
        Some(Some("1h")) => CacheLife::Hour,
        Some(_) => {
            losses.add("cache_control.ttl");
            CacheLife::Usual
        }
    };
    control.rest_below("cache_control", losses);
    if !is_known {
        losses.add("cache_control");
    }
    is_known.then_some(life)
}

/// Reads a block of a kind, and whether a beginning that is to be kept ends there; `None` for one that has no
/// counterpart.
pub(crate) fn read_block(
    kind: &str,
    fields: &mut Fields,
    cached: &mut Option<CacheLife>,
    losses: &mut Losses,
) -> Result<Option<Block>, Invalid> {
    *cached = take_cache_control(fields, losses);
    Ok(Some(match kind {
        "text" => Block::Text(fields.required_text("text")?),
        "image" => Block::Image(image(fields, losses)?.into()),
        "document" => document(fields, losses)?,
        "search_result" => search_result(fields, losses)?,
        // All tools are told, whether they are loaded or not.
        "tool_reference" => Block::Text(format!("Tool {} is loaded", fields.required_text("tool_name")?)),
        // What stands for all that was said before.
        "compaction" => match fields.text("content")? {
            Some(summary) => Block::Text(format!("{summary}\n\n")),
            None => return Ok(None),
        },
        "thinking" => Block::Reasoning(Reasoning {
            text: fields.text("thinking")?.unwrap_or_default(),
            signature: fields.text("signature")?.and_then(own_signature),
        }),
        "redacted_thinking" => Block::RedactedReasoning(fields.required_text("data")?),
        "tool_use" => {
            fields.ignore(&["caller"]);
            Block::ToolCall(ToolCall {
                id: fields.required_text("id")?,
                name: fields.required_text("name")?,
                arguments: fields.given_arguments("input", "messages.content.input", losses),
            })
        }
        "tool_result" => {
            let said = read_content(Role::User, fields.take("content"), losses)?;
            // Within a result nothing else can end there.
            *cached = cached.or_else(|| said.cache_points.last().map(|point| point.life));
            Block::ToolResult(ToolResult {
                id: fields.required_text("tool_use_id")?,
                content: said.content,
                is_error: fields.flag("is_error")?.unwrap_or(false),
            })
        }
        _ => return Ok(None),
    }))
}

fn image(fields: &mut Fields, losses: &mut Losses) -> Result<Source, Invalid> {
    read_source(fields, losses, |_, _, _| Err(stored()))
}

/// Where an image or a document is; `other` reads the kinds that only one of them has.
fn read_source(
    fields: &mut Fields,
    losses: &mut Losses,
    other: impl FnOnce(&str, &mut Fields, &mut Losses) -> Result<Source, Invalid>,
) -> Result<Source, Invalid> {
    const AT: &str = "messages.content.source";
    let mut source = fields.object("source", AT)?.ok_or_else(|| Invalid::new(AT, "is missing"))?;
    let read = match source.required_text("type")?.as_str() {
        "base64" => Source::inline(&source.required_text("media_type")?, source.required_text("data")?),
        "url" => Source::Url(source.required_text("url")?),
        kind => other(kind, &mut source, losses)?,
    };
    source.rest(losses);
    Ok(read)
}

fn document(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    let title = fields.text("title")?;
    let source = read_source(fields, losses, |kind, source, losses| {
        let text = match kind {
            "text" => {
                source.ignore(&["media_type"]);
                source.required_text("data")?
            }
            "content" => texts(source, "messages.content.source", losses)?,
            _ => return Err(stored()),
        };
        Ok(Source::inline("text/plain", STANDARD.encode(text)))
    })?;
    Ok(Block::Document(Document { title, source }))
}

/// What was found by a search, with where it was found.
fn search_result(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    let (title, source) = (fields.required_text("title")?, fields.required_text("source")?);
    let found = texts(fields, "messages.content.search_result", losses)?;
    Ok(Block::Text(format!("{title}\n{source}\n\n{found}")))
}

/// The texts of a `content` that holds little else.
fn texts(fields: &mut Fields, at: &'static str, losses: &mut Losses) -> Result<String, Invalid> {
    let said = read_content(Role::User, fields.take("content"), losses)?.content;
    if said.iter().any(|block| !matches!(block, Block::Text(_))) {
        losses.add(at);
    }
    Ok(joined_text(&said, "\n\n"))
}

fn stored() -> Invalid {
    Invalid::new("messages.content.source.type", "names what only its own provider has")
}

/// A block of reasoning that a client of another dialect gives back.
pub(crate) fn read_thinking_block(block: Value, losses: &mut Losses) -> Option<Block> {
    let mut fields = Fields::lenient(block);
    let read = match fields.any_text("type").as_deref() {
        Some("redacted_thinking") => fields.any_text("data").map(Block::RedactedReasoning),
        Some("thinking") => Some(Block::Reasoning(Reasoning {
            text: fields.any_text("thinking").unwrap_or_default(),
            signature: fields.any_text("signature").and_then(own_signature),
        })),
        _ => None,
    };
    if read.is_none() {
        losses.add("thinking_blocks");
    }
    // Of an answer that was streamed, the index.
    fields.ignore(&["cache_control", "index"]);
    fields.rest_below("thinking_blocks", losses);
    read
}

/// A signature that a provider has given.
pub(super) fn own_signature(signature: String) -> Option<String> {
    let stand_in = signature.is_empty() || signature.starts_with(SIGNED_HERE);
    (!stand_in).then_some(signature)
}
