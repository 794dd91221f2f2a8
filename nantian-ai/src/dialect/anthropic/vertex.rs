//! Claude at Vertex AI, which takes Messages otherwise than Anthropic: the path names the model and says
//! whether the answer is a stream, the body says the version.

use std::ops::Range;

use bytes::Bytes;

use crate::dialect::{Operation, segment};
use crate::edit::Object;
use crate::edit::cut::cut_out;

/// How its base URLs end, at whatever host.
pub(crate) const BASE: &str = "/publishers/anthropic";

/// The version of its API, as JSON.
const VERSION: &str = r#""vertex-2023-10-16""#;

/// The path of an operation below the base URL; `None` for one that is where Anthropic has it.
pub(crate) fn path(operation: Operation, model: &str, streams: bool) -> Option<String> {
    match operation {
        Operation::Chat => {
            // Dated models are written with it, and Google does not encode it.
            let model = segment(model).replace("%40", "@");
            let verb = if streams { "streamRawPredict" } else { "rawPredict" };
            Some(format!("/models/{model}:{verb}"))
        }
        Operation::CountTokens => Some("/models/count-tokens:rawPredict".to_owned()),
        _ => None,
    }
}

/// A body of Messages as it is taken there: a count alone names its model in it.
pub(crate) fn body(operation: Operation, body: Bytes) -> Vec<Bytes> {
    let Ok(object) = Object::parse(&body) else { return vec![body] };
    let mut cuts = Vec::new();
    if operation == Operation::Chat {
        let is_model = |at: &Range<usize>| object.keys("model").any(|key| key.start - 1 == at.start);
        cut_out(object.members().map(|(_, at)| (at.clone(), is_model(&at))), 0, &mut cuts);
    }
    object.set_and(&body, &[("anthropic_version", VERSION)], cuts)
}
