//! Gemini's `batchEmbedContents`, which takes one text as well as many.

use serde::Deserialize;

use super::{Usage, bare_model, path_name};
use crate::codec::{Invalid, Value, fault, object};
use crate::ir::{EmbedRequest, Embeddings, Fault, Losses};

/// The most texts of a request.
const MOST_TEXTS: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reply {
    embeddings: Vec<Embedding>,
    usage_metadata: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Embedding {
    values: Vec<f32>,
}

/// The path below the base URL; `None` for a model that no path can name.
pub(crate) fn path(model: &str) -> Option<String> {
    path_name(model).map(|model| format!("/models/{model}:batchEmbedContents"))
}

pub(crate) fn encode_request(request: &EmbedRequest) -> Result<(Vec<u8>, Losses), Invalid> {
    if request.input.len() > MOST_TEXTS {
        let problem = format!("holds more than the {MOST_TEXTS} texts that Gemini takes at a time");
        return Err(Invalid::new("input", problem));
    }
    let mut losses = Losses::default();
    if request.user.is_some() {
        losses.add("user");
    }
    // It cuts texts that are too long.
    if request.truncate == Some(false) {
        losses.add("truncate");
    }
    let model = format!("models/{}", bare_model(&request.model));
    let body = object(|body| {
        body.list("requests", |list| {
            for text in &request.input {
                list.object(|item| {
                    item.text("model", &model);
                    item.object("content", |content| {
                        content.list("parts", |parts| parts.object(|part| part.text("text", text)));
                    });
                    item.some_count("outputDimensionality", request.dimensions);
                });
            }
        });
    });
    Ok((body, losses))
}

pub(crate) fn decode_reply(body: &[u8]) -> Result<Embeddings, Fault> {
    let reply: Reply = serde_json::from_slice(body).map_err(|_| Fault::unreadable())?;
    if let Some(error) = reply.error.filter(|error| !error.is_null()) {
        return Err(fault::of_error(error));
    }
    let vectors: Vec<_> = reply.embeddings.into_iter().map(|embedding| embedding.values).collect();
    if vectors.is_empty() || !vectors.iter().flatten().all(|number| number.is_finite()) {
        return Err(Fault::unreadable());
    }
    let tokens = reply.usage_metadata.and_then(|usage| usage.prompt_token_count.0);
    Ok(Embeddings { model: None, vectors, tokens })
}
