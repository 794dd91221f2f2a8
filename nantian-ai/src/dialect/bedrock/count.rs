//! CountTokens: how many tokens a conversation has, without an answer.

use super::family::Family;
use super::write_request::conversation;
use crate::codec::{Invalid, object};
use crate::dialect::segment;
use crate::ir::{Losses, Request};

/// The path below the base URL; `None` for a model of which Bedrock counts nothing.
///
/// It counts for Claude alone, and by the name of the model itself, not by that of a profile.
pub(crate) fn path(model: &str) -> Option<String> {
    let Family::Claude(_) = Family::of(model) else { return None };
    let own = model.get(model.find("anthropic.")?..)?;
    Some(format!("/model/{}/count-tokens", segment(own)))
}

pub(crate) fn encode(request: &Request) -> Result<(Vec<u8>, Losses), Invalid> {
    let (conversation, losses) = conversation(request, false)?;
    Ok((object(|body| body.object("input", |input| input.raw("converse", &conversation))), losses))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_asked_by_the_name_of_the_model_itself() {
        let claude = "/model/anthropic.claude-haiku-4-5-20251001-v1%3A0/count-tokens";
        for model in [
            "anthropic.claude-haiku-4-5-20251001-v1:0",
            "eu.anthropic.claude-haiku-4-5-20251001-v1:0",
            "arn:aws:bedrock:eu-central-1:1:inference-profile/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
        ] {
            assert_eq!(path(model).as_deref(), Some(claude), "{model}");
        }
        for model in ["amazon.nova-pro-v1:0", "arn:aws:bedrock:us-east-1:1:application-inference-profile/x"] {
            assert_eq!(path(model), None, "{model}");
        }
    }

    #[test]
    fn what_is_counted_is_the_conversation_alone() {
        let request = br#"{"system":"Be brief.","messages":[{"role":"user","content":"Hi"}],"max_tokens":9,
            "tools":[{"name":"now","input_schema":{"type":"object"}}],"temperature":0.5}"#;
        let (mut request, _) = crate::ClientDialect::Anthropic.decode_request(request).unwrap();
        request.model = "anthropic.claude-haiku-4-5-20251001-v1:0".to_owned();
        let (body, losses) = encode(&request).unwrap();
        assert!(losses.is_empty(), "{losses}");
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"input":{"converse":{"system":[{"text":"Be brief."}],"messages":[{"role":"user","content":[{"text":"Hi"}]}],"toolConfig":{"tools":[{"toolSpec":{"name":"now","inputSchema":{"json":{"properties":{},"type":"object"}}}}]}}}}"#
        );
    }
}
