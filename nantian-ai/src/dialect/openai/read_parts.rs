//! The content of a message of a Chat Completions request into the common form.

use super::read_reply::read_thoughts;
use super::read_request::read_detail;
use crate::codec::{Fields, Invalid, Value};
use crate::dialect::anthropic;
use crate::ir::{Block, CacheLife, Document, Image, Losses, Media, Message, Source};

pub(super) fn read_content(
    content: Option<Value>,
    message: &mut Message,
    losses: &mut Losses,
) -> Result<(), Invalid> {
    match content {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => message.content.push(Block::Text(text)),
        Some(Value::Array(parts)) => {
            for part in parts {
                let (block, cached) = read_part(part, losses)?;
                message.push(block, cached);
            }
        }
        Some(_) => return Err(Invalid::new("messages.content", "is neither a string nor a list")),
    }
    Ok(())
}

/// A part, and whether a beginning that is to be kept ends there, which some clients say as Anthropic has it.
fn read_part(part: Value, losses: &mut Losses) -> Result<(Block, Option<CacheLife>), Invalid> {
    let mut fields = Fields::of(part, "messages.content")?;
    let kind = fields.required_text("type")?;
    let mut cached = None;
    let block = match kind.as_str() {
        "text" => Block::Text(fields.required_text("text")?),
        "refusal" => Block::Refusal(fields.required_text("refusal")?),
        "image_url" => image(&mut fields, losses)?,
        "file" => file(&mut fields, losses)?,
        "input_audio" => audio(&mut fields, losses)?,
        "document_url" => document_at(&mut fields)?,
        // Mistral's; a text is one of Anthropic's.
        "thinking" if fields.has("thinking") && fields.peek("thinking").is_none() => {
            fields.ignore(&["closed"]);
            read_thoughts(fields.take("thinking").unwrap_or_default(), losses)
        }
        // Some clients mix Anthropic's blocks in.
        other => match anthropic::read_block(other, &mut fields, &mut cached, losses)? {
            Some(block) => block,
            None => return Err(Invalid::new("messages.content.type", format!("`{kind}` is not translated"))),
        },
    };
    let cached = cached.or(anthropic::take_cache_control(&mut fields, losses));
    fields.rest(losses);
    Ok((block, cached))
}

fn image(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    const AT: &str = "messages.content.image_url";
    let mut detail = None;
    let url = match fields.take("image_url") {
        Some(Value::String(url)) => url,
        Some(object) => {
            let mut object = Fields::of(object, AT)?;
            let url = object.required_text("url")?;
            detail = read_detail(&mut object, "messages.content.image_url.detail", losses)?;
            object.rest(losses);
            url
        }
        None => return Err(Invalid::new(AT, "is missing")),
    };
    let source = Source::of_url(&url)
        .ok_or_else(|| Invalid::new(AT, "is neither an http URL nor a data URL in base64"))?;
    Ok(match &source {
        Source::Inline(media) if media.media_type == "application/pdf" => {
            Block::Document(Document { title: None, source })
        }
        _ => Block::Image(Image { source, detail }),
    })
}

/// A document in Mistral's form.
fn document_at(fields: &mut Fields) -> Result<Block, Invalid> {
    let source = Source::of_url(&fields.required_text("document_url")?)
        .ok_or_else(|| fields.invalid("document_url", "is neither an http URL nor a data URL in base64"))?;
    Ok(Block::Document(Document { title: fields.text("document_name")?, source }))
}

fn file(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    const AT: &str = "messages.content.file";
    let mut file = fields.object("file", AT)?.ok_or_else(|| Invalid::new(AT, "is missing"))?;
    let data = file.text("file_data")?.ok_or_else(|| {
        Invalid::new("messages.content.file.file_id", "names a file that only its own provider has")
    })?;
    let source = Source::of_url(&data)
        .filter(|source| matches!(source, Source::Inline(_)))
        .ok_or_else(|| Invalid::new("messages.content.file.file_data", "is not a data URL in base64"))?;
    let title = file.text("filename")?;
    file.rest(losses);
    Ok(Block::Document(Document { title, source }))
}

fn audio(fields: &mut Fields, losses: &mut Losses) -> Result<Block, Invalid> {
    const AT: &str = "messages.content.input_audio";
    let mut audio = fields.object("input_audio", AT)?.ok_or_else(|| Invalid::new(AT, "is missing"))?;
    let media_type = format!("audio/{}", audio.required_text("format")?);
    let base64 = audio.required_text("data")?;
    audio.rest(losses);
    Ok(Block::Audio(Media { media_type, base64 }))
}
