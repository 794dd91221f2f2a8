//! Ollama's `/api/embed`, and the older `/api/embeddings` of its clients.

use serde::Deserialize;

use crate::codec::{Defaults, Fields, Invalid, Value, fault, object, read_input};
use crate::dialect::lenient::Count;
use crate::ir::{EmbedRequest, Embeddings, Fault, Losses, VectorForm};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    model: Option<String>,
    embeddings: Vec<Vec<f32>>,
    prompt_eval_count: Count,
    error: Option<Value>,
}

pub(crate) fn decode_request(body: &[u8]) -> Result<(EmbedRequest, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    let model = fields.text("model")?.unwrap_or_default();
    // The older API has a prompt in the place of inputs.
    let (input, form) = match fields.text("prompt")? {
        Some(prompt) => (vec![prompt], VectorForm::Single),
        None => (read_input(fields.take("input"))?, VectorForm::Numbers),
    };
    let request = EmbedRequest {
        model,
        input,
        dimensions: fields.count("dimensions")?,
        truncate: fields.flag("truncate")?,
        user: None,
        form,
    };
    // How long the model stays in memory changes no answer.
    fields.ignore(&["keep_alive"]);
    fields.rest(&mut losses);
    Ok((request, losses))
}

pub(crate) fn encode_request(request: &EmbedRequest) -> (Vec<u8>, Losses) {
    let mut losses = Losses::default();
    if request.user.is_some() {
        losses.add("user");
    }
    let body = object(|body| {
        body.text("model", &request.model);
        body.list("input", |list| request.input.iter().for_each(|text| list.text(text)));
        // Clients of others expect an error where Ollama would cut.
        body.flag("truncate", request.truncate.unwrap_or(false));
        body.some_count("dimensions", request.dimensions);
    });
    (body, losses)
}

pub(crate) fn decode_reply(body: &[u8]) -> Result<Embeddings, Fault> {
    let reply: Reply = serde_json::from_slice(body).map_err(|_| Fault::unreadable())?;
    if let Some(error) = reply.error.filter(|error| !error.is_null()) {
        return Err(fault::of_error(error));
    }
    let numbers = || reply.embeddings.iter().flatten();
    if reply.embeddings.is_empty() || !numbers().all(|number| number.is_finite()) {
        return Err(Fault::unreadable());
    }
    let tokens = reply.prompt_eval_count.0.filter(|tokens| *tokens > 0);
    Ok(Embeddings { model: reply.model, vectors: reply.embeddings, tokens })
}

pub(crate) fn encode_reply(reply: &Embeddings, form: VectorForm, defaults: &Defaults) -> Vec<u8> {
    object(|body| {
        if form == VectorForm::Single {
            let first = reply.vectors.first().map(Vec::as_slice).unwrap_or_default();
            return body.numbers("embedding", first);
        }
        body.text("model", reply.model.as_deref().unwrap_or(&defaults.model));
        body.list("embeddings", |list| reply.vectors.iter().for_each(|vector| list.numbers(vector)));
        body.count("prompt_eval_count", reply.tokens.unwrap_or(defaults.input_estimate));
    })
}
