//! Vectors of texts.

use nantian_ai::{ClientDialect, Dialect, ir::VectorForm};
use serde_json::{Map, Value};

use super::{PROVIDERS, defaults};
use crate::draw::Draw;

/// Whatever is a request for vectors in one dialect becomes one in each other, or is refused; vectors that
/// are written can be read, and are the same.
pub fn ai_embed(input: &[u8]) {
    let Some((mut draw, body)) = Draw::split(input) else { return };
    let (from, to) = (draw.of(&PROVIDERS), draw.of(&PROVIDERS));
    if let Ok(client) = ClientDialect::try_from(from)
        && let Ok((request, _)) = client.decode_embed_request(body)
        && let Ok((written, _)) = to.encode_embed_request(&request)
    {
        serde_json::from_slice::<Map<String, Value>>(&written).expect("what is written is an object");
    }
    let Ok(reply) = from.decode_embeddings(body) else { return };
    for (to, form) in [
        (ClientDialect::OpenAi, VectorForm::Numbers),
        (ClientDialect::OpenAi, VectorForm::Base64),
        (ClientDialect::Ollama, VectorForm::Numbers),
    ] {
        let written = to.encode_embeddings(&reply, form, &defaults());
        let again =
            Dialect::from(to).decode_embeddings(&written).expect("vectors that were written can be read");
        assert_eq!(again.vectors, reply.vectors, "{from} to {to}");
    }
}
