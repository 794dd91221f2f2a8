//! What OpenAI's two dialects say in the same words, and no other dialect.

use crate::codec::{Fields, Invalid, Object, Value};
use crate::ir::{Json, Losses, OpenAiOptions, Request, Tier, safe_user};

/// The tiers by which answers are served. What others call theirs, as Groq its `on_demand`, no client of
/// OpenAI knows.
const TIERS: [(&str, Tier); 6] = [
    ("default", Tier::Default),
    ("flex", Tier::Flex),
    ("scale", Tier::Scale),
    ("priority", Tier::Priority),
    ("fast", Tier::Fast),
    ("ultrafast", Tier::Ultrafast),
];

pub(crate) fn read(fields: &mut Fields) -> Result<OpenAiOptions, Invalid> {
    Ok(OpenAiOptions {
        metadata: fields.json("metadata").filter(|metadata| *metadata != Json::empty_object()),
        service_tier: fields.text("service_tier")?.filter(|tier| tier != "auto"),
        cache_retention: fields.text("prompt_cache_retention")?,
        store: None,
    })
}

pub(crate) fn write(body: &mut Object<'_>, request: &Request) {
    let options = &request.openai;
    body.some_text("user", request.user.as_deref().map(safe_user).as_deref());
    let newer_user = request.safety_identifier.as_deref();
    body.some_text("safety_identifier", newer_user.map(safe_user).as_deref());
    body.some_text("prompt_cache_key", request.cache_key.as_deref());
    body.some_text("prompt_cache_retention", options.cache_retention.as_deref());
    body.some_text("service_tier", options.service_tier.as_deref());
}

/// Names all of it.
pub(crate) fn lose(options: &OpenAiOptions, losses: &mut Losses) {
    for (given, name) in [
        (options.metadata.is_some(), "metadata"),
        (options.service_tier.is_some(), "service_tier"),
        (options.cache_retention.is_some(), "prompt_cache_retention"),
        (options.store == Some(true), "store"),
    ] {
        if given {
            losses.add(name);
        }
    }
}

/// Names that log probabilities were asked for.
pub(crate) fn lose_logprobs(request: &Request, losses: &mut Losses) {
    if request.logprobs.is_some() {
        losses.add("logprobs");
    }
    if request.logprobs.is_some_and(|likelier| likelier > 0) {
        losses.add("top_logprobs");
    }
}

/// Takes log probabilities, which both dialects write alike.
pub(crate) fn take_logprobs(fields: &mut Fields, name: &str) -> Vec<Json> {
    fields.any_list(name).iter().filter(|token| matches!(token, Value::Object(_))).map(Json::of).collect()
}

/// Takes the tier by which an answer was served; `auto` is none.
pub(crate) fn take_tier(answer: &mut Fields) -> Option<Tier> {
    let name = answer.any_text("service_tier")?;
    TIERS.iter().find(|(known, _)| *known == name).map(|(_, tier)| *tier)
}

pub(crate) fn write_tier(body: &mut Object<'_>, tier: Option<Tier>) {
    let named = TIERS.iter().find(|(_, known)| tier == Some(*known));
    body.some_text("service_tier", named.map(|(name, _)| *name));
}
