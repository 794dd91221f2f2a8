//! Members that some readers take for others: Go's JSON knows a name also by letters of another case, and of
//! several members the last counts. A provider written in Go (Ollama, LocalAI) would serve the model of
//! `"MODEL"`, whatever `"model"` says. And members that name other models besides.

use std::borrow::Cow;

use crate::edit::Object;
use crate::edit::cut::{Edit, cut_out};
use crate::ir::Losses;
use crate::wire::json::Malformed;

/// The members of a body by which an operator decides: what is asked for must be what has been read.
const DECISIVE: [&str; 9] = [
    "include_usage",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "model",
    "n",
    "options",
    "stream",
    "stream_options",
];

/// Members in which a client names models that are to be asked where the first one fails, or has one picked
/// (`route`): OpenRouter's in any dialect, and those of Messages, with what Anthropic has given towards their
/// price. Which models are asked, and paid for, is the operator's to say.
const OTHER_MODELS: [&str; 4] = ["fallback_credit_token", "fallbacks", "models", "route"];

/// Members that are cut out, at most: each of them leaves pieces of the body, and who sends more means harm.
const MOST: usize = 64;

/// What has to change in a body so that no reader finds anything else than what has been read here, nor any
/// model but the one; what is cut out is named, but for a model, which is never the client's.
///
/// # Errors
/// [`Malformed`] where there is more of it than anyone means.
pub(crate) fn edits(object: &Object<'_>, losses: &mut Losses) -> Result<Vec<Edit>, Malformed> {
    let mut cuts = Vec::new();
    let mut seen = 0;
    for (meant, range) in object.members().filter_map(|(name, range)| Some((unwanted(name)?, range))) {
        if seen == MOST {
            return Err(Malformed {
                offset: range.start as u64,
                reason: "too many names that look like others, or are of other models",
            });
        }
        seen += 1;
        if meant != "model" {
            losses.add(meant);
        }
    }
    if seen > 0 {
        cut_out(object.members().map(|(name, range)| (range, unwanted(name).is_some())), 0, &mut cuts);
    }
    Ok(cuts)
}

/// What has to be cut out of a body so that no reader finds another member than those of this name.
pub(crate) fn cuts(object: &Object<'_>, name: &str) -> Vec<Edit> {
    let mut cuts = Vec::new();
    if object.is_shadowed(name) {
        let resembles = |written| resembled(written) == Some(name);
        cut_out(object.members().map(|(written, range)| (range, resembles(written))), 0, &mut cuts);
    }
    cuts
}

/// Whether some reader may find something else in a body than what has been read here.
pub(crate) fn any(object: &Object<'_>) -> bool {
    object.members().any(|(name, _)| resembled(name).is_some())
}

/// The name that another one looks like to some readers, and is not. `written` may hold escapes.
pub(super) fn resembled(written: &[u8]) -> Option<&'static str> {
    // Most names have none of what could make them so.
    let is_plain = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'_';
    if written.iter().all(is_plain) {
        return None;
    }
    let name = read(written)?;
    DECISIVE.into_iter().find(|known| *known != name && name.chars().map(folded).eq(known.chars()))
}

/// What a member is, if it is to be cut out.
fn unwanted(written: &[u8]) -> Option<&'static str> {
    let of_other_models = || {
        let name = read(written)?;
        OTHER_MODELS.into_iter().find(|known| *known == name)
    };
    resembled(written).or_else(of_other_models)
}

/// A name without its escapes.
fn read(written: &[u8]) -> Option<Cow<'_, str>> {
    let written = std::str::from_utf8(written).ok()?;
    match written.contains('\\') {
        true => serde_json::from_str::<String>(&format!("\"{written}\"")).ok().map(Cow::Owned),
        false => Some(Cow::Borrowed(written)),
    }
}

/// A letter as Go compares it: `ſ` and the sign of the kelvin are an `s` and a `k`, too.
fn folded(letter: char) -> char {
    match letter {
        'ſ' => 's',
        '\u{212A}' => 'k',
        letter => letter.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sent(body: &str) -> (String, String) {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let object = Object::parse(&body).unwrap();
        let mut losses = Losses::default();
        let edits = edits(&object, &mut losses).unwrap();
        let sent = object.set_and(&body, &[("model", "\"m\"")], edits).concat();
        serde_json::from_slice::<serde_json::Value>(&sent).unwrap();
        (String::from_utf8(sent).unwrap(), losses.to_string())
    }

    #[test]
    fn no_reader_finds_another_model_or_limit() {
        for (body, expected, lost) in [
            (r#"{"model":"a","MODEL":"b"}"#, r#"{"model":"m"}"#, ""),
            (r#"{"Model":"a" , "x":1}"#, r#"{"model":"m","x":1}"#, ""),
            (r#"{"MODEL":"b"}"#, r#"{"model":"m"}"#, ""),
            (r#"{"mod\u0045l":"b","model":"a"}"#, r#"{"model":"m"}"#, ""),
            (
                r#"{"model":"a","OPTIONS":{"num_predict":9},"x":1,"Stream":true}"#,
                r#"{"model":"m","x":1}"#,
                "options,stream",
            ),
            (r#"{"max_to\u212aens":9,"max_tokenſ":8,"model":"a"}"#, r#"{"model":"m"}"#, "max_tokens"),
            (
                r#"{"models":["b"],"MODEL":"b","model":"a","fallbacks":"default"}"#,
                r#"{"model":"m"}"#,
                "models,fallbacks",
            ),
            (
                r#"{"model":"a","mod\u0065ls":["b"],"x":{"models":1}}"#,
                r#"{"model":"m","x":{"models":1}}"#,
                "models",
            ),
        ] {
            assert_eq!(sent(body), (expected.to_owned(), lost.to_owned()), "{body}");
        }
    }

    #[test]
    fn all_other_names_stay() {
        let body = r#"{"model":"m","Models":1,"mode":2,"x\"MODEL":3,"é":4,"\u00C9":5,"max_tokens":6}"#;
        assert_eq!(sent(body), (body.to_owned(), String::new()));
    }

    #[test]
    fn a_body_of_many_is_refused_at_once() {
        let of = |many: usize| format!("{{{}\"N\":1 }}", "\"N\":1,".repeat(many - 1));
        assert_eq!(sent(&of(MOST)), (r#"{"model":"m" }"#.to_owned(), "n".to_owned()));
        for many in [MOST + 1, 16_000] {
            let body = of(many);
            let object = Object::parse(body.as_bytes()).unwrap();
            let refused = edits(&object, &mut Losses::default()).unwrap_err();
            assert_eq!(refused.offset, 6 * MOST as u64 + 1);
        }
    }
}
