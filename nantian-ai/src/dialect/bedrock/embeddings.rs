//! Vectors of texts at Bedrock: no common form as for chats, each maker's own one in `InvokeModel`.

use serde::Deserialize;

use crate::codec::{Invalid, object};
use crate::dialect::lenient::Count;
use crate::dialect::segment;
use crate::ir::{EmbedRequest, Embeddings, Fault, Losses};

/// Who has made a model, as far as its name says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Maker {
    /// Amazon's Titan, which takes one text; the second version can be told how long vectors are to be.
    Titan { sizes: bool },
    /// Cohere's Embed; the fourth version can be told how long vectors are to be, and has other words for
    /// where texts are cut.
    Cohere { sizes: bool },
    /// Amazon's Nova, which takes one text and is told what becomes of one that is too long.
    Nova,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Reply {
    /// Titan's vector.
    embedding: Option<Vec<f32>>,
    input_text_token_count: Count,
    /// Cohere's vectors.
    embeddings: Option<Vectors>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Vectors {
    Plain(Vec<Vec<f32>>),
    ByType { float: Vec<Vec<f32>> },
    OfNova(Vec<OfNova>),
}

#[derive(Debug, Deserialize)]
struct OfNova {
    embedding: Vec<f32>,
}

/// The path below the base URL.
pub(crate) fn path(model: &str) -> String {
    format!("/model/{}/invoke", segment(model))
}

pub(crate) fn encode_request(request: &EmbedRequest) -> Result<(Vec<u8>, Losses), Invalid> {
    let maker = Maker::of(&request.model)
        .ok_or_else(|| Invalid::new("model", "is none at Bedrock whose form of embeddings is known"))?;
    let mut losses = Losses::default();
    if request.user.is_some() {
        losses.add("user");
    }
    if request.dimensions.is_some() && !maker.sizes() {
        losses.add("dimensions");
    }
    let dimensions = request.dimensions.filter(|_| maker.sizes());
    let body = match maker {
        Maker::Titan { .. } => {
            let text = only_text(request)?;
            // It refuses texts that are too long.
            if request.truncate == Some(true) {
                losses.add("truncate");
            }
            object(|body| {
                body.text("inputText", text);
                body.some_count("dimensions", dimensions);
            })
        }
        Maker::Cohere { sizes } => object(|body| {
            body.list("texts", |list| request.input.iter().for_each(|text| list.text(text)));
            // Clients do not say what they want vectors for.
            body.text("input_type", "search_document");
            if request.truncate == Some(true) {
                body.text("truncate", if sizes { "RIGHT" } else { "END" });
            }
            body.some_count("output_dimension", dimensions);
        }),
        Maker::Nova => {
            let text = only_text(request)?;
            object(|body| {
                body.text("taskType", "SINGLE_EMBEDDING");
                body.object("singleEmbeddingParams", |params| {
                    params.text("embeddingPurpose", "GENERIC_INDEX");
                    params.some_count("embeddingDimension", dimensions);
                    params.object("text", |body| {
                        body.text(
                            "truncationMode",
                            if request.truncate == Some(true) { "END" } else { "NONE" },
                        );
                        body.text("value", text);
                    });
                });
            })
        }
    };
    Ok((body, losses))
}

fn only_text(request: &EmbedRequest) -> Result<&str, Invalid> {
    match request.input.as_slice() {
        [text] => Ok(text),
        _ => Err(Invalid::new("input", "holds several texts, and this model takes one at a time")),
    }
}

pub(crate) fn decode_reply(body: &[u8]) -> Result<Embeddings, Fault> {
    let reply: Reply = serde_json::from_slice(body).map_err(|_| Fault::unreadable())?;
    let vectors = match (reply.embedding, reply.embeddings) {
        (Some(one), _) => vec![one],
        (None, Some(Vectors::Plain(many) | Vectors::ByType { float: many })) => many,
        (None, Some(Vectors::OfNova(many))) => many.into_iter().map(|one| one.embedding).collect(),
        (None, None) => Vec::new(),
    };
    if vectors.is_empty() || !vectors.iter().flatten().all(|number| number.is_finite()) {
        return Err(Fault::unreadable());
    }
    Ok(Embeddings { model: None, vectors, tokens: reply.input_text_token_count.0 })
}

// === impl Maker ===

impl Maker {
    fn of(model: &str) -> Option<Self> {
        let after = |name: &str| model.find(name).and_then(|at| model.get(at + name.len()..));
        if let Some(version) = after("amazon.titan-embed-text-") {
            return Some(Self::Titan { sizes: version.starts_with("v2") });
        }
        if after("amazon.nova-").is_some_and(|rest| rest.contains("-embeddings")) {
            return Some(Self::Nova);
        }
        after("cohere.embed-").map(|version| Self::Cohere { sizes: version.starts_with("v4") })
    }

    fn sizes(self) -> bool {
        match self {
            Self::Titan { sizes } | Self::Cohere { sizes } => sizes,
            Self::Nova => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(model: &str, input: &[&str], truncate: Option<bool>) -> (String, String) {
        let request = EmbedRequest {
            model: model.to_owned(),
            input: input.iter().map(|&text| text.to_owned()).collect(),
            dimensions: Some(256),
            truncate,
            user: Some("u".to_owned()),
            ..EmbedRequest::default()
        };
        let (body, losses) = encode_request(&request).unwrap();
        (String::from_utf8(body).unwrap(), losses.to_string())
    }

    #[test]
    fn each_maker_is_asked_in_its_own_form() {
        for (model, input, truncate, body, lost) in [
            (
                "amazon.titan-embed-text-v2:0",
                &["a"][..],
                None,
                r#"{"inputText":"a","dimensions":256}"#,
                "user",
            ),
            (
                "amazon.titan-embed-text-v1",
                &["a"],
                Some(true),
                r#"{"inputText":"a"}"#,
                "user,dimensions,truncate",
            ),
            (
                "cohere.embed-multilingual-v3",
                &["a", "b"],
                Some(true),
                r#"{"texts":["a","b"],"input_type":"search_document","truncate":"END"}"#,
                "user,dimensions",
            ),
            (
                "us.cohere.embed-v4:0",
                &["a", "b"],
                Some(true),
                r#"{"texts":["a","b"],"input_type":"search_document","truncate":"RIGHT","output_dimension":256}"#,
                "user",
            ),
            (
                "amazon.nova-2-multimodal-embeddings-v1:0",
                &["a"],
                None,
                r#"{"taskType":"SINGLE_EMBEDDING","singleEmbeddingParams":{"embeddingPurpose":"GENERIC_INDEX","embeddingDimension":256,"text":{"truncationMode":"NONE","value":"a"}}}"#,
                "user",
            ),
        ] {
            assert_eq!(asked(model, input, truncate), (body.to_owned(), lost.to_owned()), "{model}");
        }
    }

    #[test]
    fn what_a_model_cannot_be_asked_is_refused() {
        let request = |model: &str| EmbedRequest {
            model: model.to_owned(),
            input: vec!["a".to_owned(), "b".to_owned()],
            ..EmbedRequest::default()
        };
        for (model, field) in [
            ("amazon.titan-embed-text-v2:0", "input"),
            ("amazon.nova-pro-v1:0", "model"),
            ("amazon.nova-2-multimodal-embeddings-v1:0", "input"),
            ("arn:aws:bedrock:us-east-1:1:application-inference-profile/x", "model"),
        ] {
            assert_eq!(encode_request(&request(model)).unwrap_err().field, field, "{model}");
        }
    }

    #[test]
    fn vectors_are_read_in_each_form() {
        for (body, vectors, tokens) in [
            (r#"{"embedding":[0.5,1],"inputTextTokenCount":3}"#, vec![vec![0.5, 1.0]], Some(3)),
            (r#"{"embeddings":[[0.5],[1]],"id":"i","texts":["a","b"]}"#, vec![vec![0.5], vec![1.0]], None),
            (r#"{"embeddings":{"float":[[0.5]]}}"#, vec![vec![0.5]], None),
            (r#"{"embeddings":[{"embeddingType":"TEXT","embedding":[0.5,1]}]}"#, vec![vec![0.5, 1.0]], None),
        ] {
            let read = decode_reply(body.as_bytes()).unwrap();
            assert_eq!((read.vectors, read.tokens), (vectors, tokens), "{body}");
        }
        for body in ["", "{}", r#"{"embeddings":{"int8":[[1]]}}"#, r#"{"embedding":[1e99]}"#] {
            decode_reply(body.as_bytes()).unwrap_err();
        }
    }
}
