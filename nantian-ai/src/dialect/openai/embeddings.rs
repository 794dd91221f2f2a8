//! OpenAI's `/embeddings`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::codec::{Defaults, Fields, Invalid, Value, fault, object, read_input};
use crate::dialect::lenient::Count;
use crate::ir::{EmbedRequest, Embeddings, Fault, Losses, VectorForm};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reply {
    data: Vec<Item>,
    model: Option<String>,
    usage: Option<Usage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Item {
    #[serde(default)]
    index: Count,
    embedding: Vector,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: Count,
}

pub(crate) fn decode_request(body: &[u8]) -> Result<(EmbedRequest, Losses), Invalid> {
    let mut fields = Fields::parse(body)?;
    let mut losses = Losses::default();
    let form = match fields.text("encoding_format")?.as_deref() {
        None | Some("float") => VectorForm::Numbers,
        Some("base64") => VectorForm::Base64,
        Some(_) => return Err(Invalid::new("encoding_format", "is neither `float` nor `base64`")),
    };
    let request = EmbedRequest {
        model: fields.text("model")?.unwrap_or_default(),
        input: read_input(fields.take("input"))?,
        dimensions: fields.count("dimensions")?,
        // Here a text that is too long is always refused.
        truncate: None,
        user: fields.text("user")?,
        form,
    };
    fields.rest(&mut losses);
    Ok((request, losses))
}

pub(crate) fn encode_request(request: &EmbedRequest) -> (Vec<u8>, Losses) {
    let mut losses = Losses::default();
    if request.truncate == Some(true) {
        losses.add("truncate");
    }
    let body = object(|body| {
        body.text("model", &request.model);
        match request.input.as_slice() {
            [one] => body.text("input", one),
            many => body.list("input", |list| many.iter().for_each(|text| list.text(text))),
        }
        body.text("encoding_format", "float");
        body.some_count("dimensions", request.dimensions);
        body.some_text("user", request.user.as_deref());
    });
    (body, losses)
}

pub(crate) fn decode_reply(body: &[u8]) -> Result<Embeddings, Fault> {
    let mut reply: Reply = serde_json::from_slice(body).map_err(|_| Fault::unreadable())?;
    if let Some(error) = reply.error.filter(|error| !error.is_null()) {
        return Err(fault::of_error(error));
    }
    if reply.data.is_empty() {
        return Err(Fault::unreadable());
    }
    // Items without an index are in order.
    reply.data.sort_by_key(|item| item.index.0.unwrap_or(0));
    let vectors = reply.data.into_iter().map(|item| item.embedding.numbers().ok_or_else(Fault::unreadable));
    Ok(Embeddings {
        vectors: vectors.collect::<Result<_, _>>()?,
        model: reply.model,
        tokens: reply.usage.and_then(|usage| usage.prompt_tokens.0),
    })
}

pub(crate) fn encode_reply(reply: &Embeddings, form: VectorForm, defaults: &Defaults) -> Vec<u8> {
    object(|body| {
        body.text("object", "list");
        body.list("data", |list| {
            for (index, vector) in (0..).zip(&reply.vectors) {
                list.object(|item| {
                    item.text("object", "embedding");
                    item.count("index", index);
                    match form {
                        VectorForm::Base64 => item.text("embedding", &pack(vector)),
                        VectorForm::Numbers | VectorForm::Single => item.numbers("embedding", vector),
                    }
                });
            }
        });
        body.text("model", reply.model.as_deref().unwrap_or(&defaults.model));
        let tokens = reply.tokens.unwrap_or(defaults.input_estimate);
        body.object("usage", |usage| {
            usage.count("prompt_tokens", tokens);
            usage.count("total_tokens", tokens);
        });
    })
}

fn pack(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    STANDARD.encode(bytes)
}

// === impl Vector ===

impl Vector {
    fn numbers(self) -> Option<Vec<f32>> {
        let numbers = match self {
            Self::Numbers(numbers) => numbers,
            Self::Base64(text) => {
                let bytes = STANDARD.decode(text).ok()?;
                let (numbers, rest) = bytes.as_chunks();
                rest.is_empty().then_some(())?;
                numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
        };
        numbers.iter().all(|number| number.is_finite()).then_some(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            id: String::new(),
            model: "m".to_owned(),
            created: std::time::SystemTime::UNIX_EPOCH,
            took: std::time::Duration::ZERO,
            stream_usage: false,
            input_estimate: 7,
            echo: crate::codec::Echo::default(),
        }
    }

    #[test]
    fn vectors_are_put_in_order_and_read_in_both_forms() {
        let reply = Embeddings { model: None, vectors: vec![vec![0.1, -2.0], vec![3.5, 1e-9]], tokens: None };
        for form in [VectorForm::Numbers, VectorForm::Base64] {
            let body = encode_reply(&reply, form, &defaults());
            let read = decode_reply(&body).unwrap();
            assert_eq!((read.vectors, read.tokens), (reply.vectors.clone(), Some(7)));
        }
        let body = br#"{"data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[1.0]}],"usage":null}"#;
        assert_eq!(decode_reply(body).unwrap().vectors, [[1.0], [2.0]]);
    }

    #[test]
    fn numbers_keep_their_digits() {
        let body = br#"{"data":[{"embedding":[0.0023064255,-0.009327292,1e-7]}]}"#;
        let body = encode_reply(&decode_reply(body).unwrap(), VectorForm::Numbers, &defaults());
        let body = String::from_utf8(body).unwrap();
        assert!(body.contains("[0.0023064255,-0.009327292,1e-7]"), "{body}");
    }

    #[test]
    fn what_is_no_vector_is_no_answer() {
        for body in [
            &b"{}"[..],
            b"[]",
            br#"{"data":[{"embedding":null}]}"#,
            br#"{"data":[{"embedding":"AAA="}]}"#,
            br#"{"data":[{"embedding":"AADAfw=="}]}"#,
            br#"{"data":[{"embedding":[1e99]}]}"#,
        ] {
            assert!(decode_reply(body).is_err(), "{}", String::from_utf8_lossy(body));
        }
        let fault = decode_reply(br#"{"error":{"message":"later","code":429}}"#).unwrap_err();
        assert_eq!(fault.message, "later");
    }

    #[test]
    fn only_texts_can_be_said_to_others() {
        for (input, problem) in [
            ("[[1,2]]", "token numbers"),
            ("[1,2]", "token numbers"),
            ("[]", "empty"),
            ("null", "missing"),
            ("{}", "neither"),
        ] {
            let invalid = decode_request(format!(r#"{{"input":{input}}}"#).as_bytes()).unwrap_err();
            assert!(invalid.to_string().contains(problem), "{invalid}");
        }
    }
}
