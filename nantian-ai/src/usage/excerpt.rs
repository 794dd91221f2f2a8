//! As much of a long request as is kept to be told.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::Few;
use crate::edit::Object;

/// The members whose values are the conversation.
const CONVERSATIONS: [&str; 2] = ["messages", "input"];

/// The members beside it that say what it is about.
const ABOUT: [&str; 4] = ["model", "max_tokens", "system", "instructions"];

/// A request of at most `most` bytes that says as much of a longer one as fits: what is said of the model, in
/// no more than a half, and of the conversation the latest messages, then the first; what is too long by
/// itself is left out. `None` if it is no JSON or has no conversation.
pub(crate) fn excerpt(body: &[u8], most: usize) -> Option<Bytes> {
    let object = Object::parse(body).ok()?;
    let mut members = Vec::new();
    let mut left = most;
    for name in ABOUT {
        let Some(value) = object.value(name).and_then(|value| std::str::from_utf8(value).ok()) else {
            continue;
        };
        let rest = left.checked_sub(name.len() + value.len() + 4);
        if let Some(rest) = rest.filter(|rest| *rest >= most / 2) {
            left = rest;
            members.push(format!("\"{name}\":{value}"));
        }
    }
    let conversation = |name: &'static str| Some((name, object.value(name)?));
    let (name, conversation) = CONVERSATIONS.into_iter().find_map(conversation)?;
    let Few::<&RawValue>(messages) = serde_json::from_slice(conversation).ok()?;
    left = left.saturating_sub(name.len() + 7);
    let mut fit = vec![false; messages.len()];
    for (message, fits) in messages.iter().zip(&mut fit).rev() {
        *fits = message.get().len() < left;
        if *fits {
            left -= message.get().len() + 1;
        }
    }
    let kept = messages.iter().zip(fit).filter(|(_, fits)| *fits);
    let kept: Vec<&str> = kept.map(|(message, _)| message.get()).collect();
    members.push(format!("\"{name}\":[{}]", kept.join(",")));
    Some(Bytes::from(format!("{{{}}}", members.join(","))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_latest_messages_that_fit_are_kept_with_what_is_said_of_the_model() {
        let long = "x".repeat(500);
        let body = format!(
            r#"{{"tools":["{long}"],"model":"m","system":"be brief","messages":[{{"a":"first"}},{{"b":"{long}"}},{{"c":"last"}}],"max_tokens":9}}"#
        );
        let kept = excerpt(body.as_bytes(), 200).unwrap();
        let expected =
            r#"{"model":"m","max_tokens":9,"system":"be brief","messages":[{"a":"first"},{"c":"last"}]}"#;
        assert_eq!(kept, expected);
        let text = format!(r#"{{"input":"{long}"}}"#);
        assert_eq!(excerpt(text.as_bytes(), 200), None);
        assert_eq!(excerpt(b"[]", 200), None);
    }

    proptest! {
        #[test]
        fn an_excerpt_is_json_and_no_longer_than_it_may_be(
            lengths in proptest::collection::vec(0_usize..200, 0..20),
            about in proptest::array::uniform3(0_usize..400),
            most in 100_usize..1000,
        ) {
            let messages: Vec<String> = lengths.iter().map(|length| format!("\"{}\"", "x".repeat(*length))).collect();
            let [model, system, instructions] = about.map(|length| "y".repeat(length));
            let body = format!(
                r#"{{"input":[{}],"system":"{system}","instructions":"{instructions}","model":"{model}"}}"#,
                messages.join(","),
            );
            let kept = excerpt(body.as_bytes(), most).unwrap();
            prop_assert!(kept.len() <= most, "{} of {most}", kept.len());
            prop_assert!(serde_json::from_slice::<Value>(&kept).is_ok());
        }
    }
}
