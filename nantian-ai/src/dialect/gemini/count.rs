//! `countTokens`: how many tokens a conversation has, without an answer.

use super::{bare_model, path_name};
use crate::codec::Invalid;
use crate::ir::{Losses, Request};

/// The path below the base URL; `None` for a model that no path can name.
pub(crate) fn path(model: &str) -> Option<String> {
    Some(format!("/models/{}:countTokens", path_name(model)?))
}

/// What is counted: at the Gemini API a whole request, which names its model, at Vertex AI its members.
pub(crate) fn encode(mut request: Request, is_vertex: bool) -> Result<(Vec<u8>, Losses), Invalid> {
    // Vertex AI knows no `toolConfig` here.
    request.tool_choice = None;
    let (body, losses) = super::encode_request(&request)?;
    let Some(members) = body.get(1..).filter(|_| !is_vertex) else { return Ok((body, losses)) };
    let model = serde_json::Value::from(format!("models/{}", bare_model(&request.model)));
    let head = format!(r#"{{"generateContentRequest":{{"model":{model},"#);
    Ok(([head.as_bytes(), members, b"}"].concat(), losses))
}
