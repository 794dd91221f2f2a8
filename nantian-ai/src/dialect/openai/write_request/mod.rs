//! The common form into a Chat Completions request.

use super::profile::Profile;
use super::strict::{is_strict, loses_strictness};
use super::thinking::{ThinkingBy, Wish};
use super::turns::Turns;
use super::{details, options};
use crate::codec::{Invalid, Object, object};
use crate::dialect::DETAIL;
use crate::dialect::anthropic::{LEAST_BUDGET, Traits};
use crate::ir::{
    Detail, Json, Losses, OpenAiOptions, Output, Request, Role, Thinking, Tool, ToolChoice, Verbosity,
    safe_user,
};

/// The most stop sequences that OpenAI takes.
const MOST_STOPS: usize = 4;

/// Writes it; `echoes` is whether the provider is known to take reasoning back, whatever its name tells.
pub(crate) fn encode(request: &Request, provider: &str, echoes: bool) -> Result<(Vec<u8>, Losses), Invalid> {
    let profile = Profile::of(provider, &request.model);
    let profile = if echoes { profile.echoing() } else { profile };
    let mut losses = Losses::default();
    let wish = profile.wish(thinking(request, profile, &mut losses));
    let sampled = profile.takes_sampling(wish);
    let takes_logprobs = profile.takes_logprobs && sampled;
    if !takes_logprobs {
        options::lose_logprobs(request, &mut losses);
    }
    let mut lost = request.openai.clone();
    if profile.is_openai {
        // What is kept of an answer here no client of Responses could find; `metadata` is refused without.
        lost = OpenAiOptions { service_tier: None, cache_retention: None, ..lost };
    }
    options::lose(&lost, &mut losses);
    name_the_unknown(request, profile, wish, &mut losses);
    let may_be_strict = profile.mixes_strictness || request.tools.iter().all(is_strict);
    let messages = Turns::of(request, profile, &mut losses)?;
    let body = object(|body| {
        body.text("model", &request.model);
        body.list("messages", |list| messages.write(list, profile));
        write_tools(body, offered(request, profile), |tool| {
            tool.strict.filter(|_| may_be_strict).map(|_| is_strict(tool))
        });
        if !request.tools.is_empty() {
            write_choice(body, request, profile);
        }
        write_output(body, enforced(request, profile), profile);
        let verbosity = request.verbosity.filter(|_| profile.takes_verbosity());
        body.some_text("verbosity", verbosity.map(Verbosity::name));
        write_thinking(body, profile, wish, request.max_output);
        body.some_count(profile.limit, request.max_output);
        body.some_number("temperature", request.temperature.filter(|_| sampled));
        body.some_number("top_p", request.top_p.filter(|_| sampled));
        body.some_count("top_k", request.top_k.filter(|_| profile.takes_top_k));
        if profile.takes_penalties {
            body.some_number("frequency_penalty", request.frequency_penalty);
            body.some_number("presence_penalty", request.presence_penalty);
        }
        if let Some(name) = profile.seed {
            body.some_integer(name, request.seed);
        }
        if !request.stop.is_empty() && profile.takes_penalties {
            body.list("stop", |list| request.stop.iter().take(MOST_STOPS).for_each(|stop| list.text(stop)));
        }
        if request.logprobs.is_some() && takes_logprobs {
            body.flag("logprobs", true);
            body.some_count("top_logprobs", request.logprobs.filter(|likelier| *likelier > 0));
        }
        if profile.is_openai {
            options::write(body, request);
        } else {
            let user = request.end_user().filter(|_| profile.takes_user);
            body.some_text("user", user.map(safe_user).as_deref());
        }
        if request.stream {
            body.flag("stream", true);
            if profile.asks_for_usage {
                body.object("stream_options", |options| options.flag("include_usage", true));
            }
        }
    });
    Ok((body, losses))
}

/// What the model is to be told of how to think. Claude does not before a call that it must make, nor, where
/// it wants a budget, in an answer that is no longer than the least one, or in a turn that has begun without
/// thoughts of its own.
fn thinking(request: &Request, profile: Profile, losses: &mut Losses) -> Option<Thinking> {
    let thinking = request.thinking?;
    let traits = Traits::of(&request.model);
    let is_told = matches!(profile.thinking, ThinkingBy::OpenRouter { .. }) && thinking != Thinking::Off;
    let has_room = request.max_output.is_none_or(|most| most > LEAST_BUDGET);
    let cannot = traits.takes_forced_tools && request.must_call()
        || traits.takes_budget && (!has_room || details::are_missed(&request.messages));
    if is_told && traits.is_claude && cannot {
        losses.add("thinking");
        return None;
    }
    Some(thinking)
}

fn name_the_unknown(request: &Request, profile: Profile, wish: Wish, losses: &mut Losses) {
    let penalises = |penalty: Option<f64>| penalty.is_some_and(|penalty| penalty != 0.0);
    // 1 is what they take anyway.
    let draws = |share: Option<f64>| !profile.takes_sampling(wish) && share.is_some_and(|share| share != 1.0);
    let restrained = !profile.takes_penalties;
    let alone = request.parallel_tools == Some(false) && !request.tools.is_empty();
    let strict = request.tools.iter().filter(|tool| is_strict(tool)).count();
    let is_mixed = (1..request.tools.len()).contains(&strict);
    let output = enforced(request, profile);
    let is_loose = match output {
        Some(Output::Schema { schema, strict, .. }) if profile.takes_schema => {
            profile.strict(schema, *strict) != *strict
        }
        _ => false,
    };
    for (given, name) in [
        (wish.is_lost, "thinking"),
        (draws(request.temperature), "temperature"),
        (draws(request.top_p), "top_p"),
        (request.top_k.is_some() && !profile.takes_top_k, "top_k"),
        (request.end_user().is_some() && !profile.takes_user, "user"),
        (request.cache_key.is_some() && !profile.is_openai, "prompt_cache_key"),
        (request.seed.is_some() && profile.seed.is_none(), "seed"),
        (penalises(request.frequency_penalty) && restrained, "frequency_penalty"),
        (penalises(request.presence_penalty) && restrained, "presence_penalty"),
        (request.stop.len() > MOST_STOPS || (restrained && !request.stop.is_empty()), "stop"),
        (alone && !profile.takes_parallel, "parallel_tool_calls"),
        (offered(request, profile).len() < request.tools.len(), "tools"),
        (request.tools.iter().any(loses_strictness), "tools.strict"),
        (is_mixed && !profile.mixes_strictness, "tools.strict"),
        (request.output.is_some() && output.is_none(), "response_format"),
        (is_loose, "response_format.strict"),
        (request.verbosity.is_some() && !profile.takes_verbosity(), "verbosity"),
        (request.has_detail(|detail| detail == Detail::Original), DETAIL),
        (
            matches!(request.output, Some(Output::Schema { .. })) && !profile.takes_schema,
            "response_format.json_schema",
        ),
        (request.messages.last().is_some_and(|last| last.role == Role::Assistant), "messages.prefill"),
    ] {
        if given {
            losses.add(name);
        }
    }
}

fn write_thinking(body: &mut Object<'_>, profile: Profile, wish: Wish, most_output: Option<u64>) {
    if profile.asks_for_reasoning {
        body.text("reasoning_format", "parsed");
    }
    match (profile.thinking, wish.on) {
        (ThinkingBy::OpenRouter { .. }, on) if wish != Wish::default() => {
            // It takes either.
            let budget = wish.budget_in(most_output);
            return body.object("reasoning", |reasoning| {
                reasoning.some_text("effort", wish.effort.filter(|_| budget.is_none()));
                reasoning.some_count("max_tokens", budget);
                reasoning.some_flag("enabled", on);
            });
        }
        (ThinkingBy::DeepSeek, Some(on)) => body.object("thinking", |thinking| {
            thinking.text("type", if on { "enabled" } else { "disabled" });
        }),
        // Templates differ in the name.
        (ThinkingBy::Template, Some(on)) => body.object("chat_template_kwargs", |template| {
            template.flag("enable_thinking", on);
            template.flag("thinking", on);
        }),
        _ => {}
    }
    body.some_text("reasoning_effort", wish.effort);
}

/// The form of the answer, if the provider may see to it.
pub(super) fn enforced(request: &Request, profile: Profile) -> Option<&Output> {
    request.output.as_ref().filter(|_| profile.json_beside_tools || request.tools.is_empty())
}

/// The tools that may be called: the one that must be is the only one where it cannot be named.
fn offered(request: &Request, profile: Profile) -> &[Tool] {
    let place = match &request.tool_choice {
        Some(ToolChoice::Tool(name)) if !profile.names_tools => {
            request.tools.iter().position(|tool| tool.name == *name)
        }
        _ => None,
    };
    place.and_then(|at| request.tools.get(at..=at)).unwrap_or(&request.tools)
}

/// Tools, as OpenAI and Ollama write them.
pub(crate) fn write_tools(body: &mut Object<'_>, tools: &[Tool], strict: impl Fn(&Tool) -> Option<bool>) {
    if tools.is_empty() {
        return;
    }
    body.list("tools", |list| {
        for tool in tools {
            list.object(|item| {
                item.text("type", "function");
                item.object("function", |function| {
                    function.text("name", &tool.name);
                    function.some_text("description", tool.description.as_deref());
                    function.schema("parameters", &tool.schema);
                    function.some_flag("strict", strict(tool));
                });
            });
        }
    });
}

fn write_choice(body: &mut Object<'_>, request: &Request, profile: Profile) {
    match &request.tool_choice {
        None => {}
        Some(ToolChoice::Auto) => body.text("tool_choice", "auto"),
        Some(ToolChoice::Never) => body.text("tool_choice", "none"),
        Some(ToolChoice::Any) => body.text("tool_choice", "required"),
        Some(ToolChoice::Tool(_)) if !profile.names_tools => body.text("tool_choice", "required"),
        Some(ToolChoice::Tool(name)) => body.object("tool_choice", |choice| {
            choice.text("type", "function");
            choice.object("function", |function| function.text("name", name));
        }),
    }
    body.some_flag("parallel_tool_calls", request.parallel_tools.filter(|_| profile.takes_parallel));
}

fn write_output(body: &mut Object<'_>, output: Option<&Output>, profile: Profile) {
    match output {
        None => {}
        Some(Output::Schema { .. }) if !profile.takes_schema => {
            write_output(body, Some(&Output::Json), profile)
        }
        Some(Output::Json) if !profile.takes_any_json => {
            let schema = Json::of(&r#"{"type":"object"}"#);
            let any = Output::Schema { name: None, description: None, schema, strict: None };
            write_output(body, Some(&any), profile);
        }
        Some(Output::Json) => body.object("response_format", |format| format.text("type", "json_object")),
        Some(Output::Schema { name, description, schema, strict }) => {
            body.object("response_format", |format| {
                format.text("type", "json_schema");
                format.object("json_schema", |body| {
                    body.text("name", name.as_deref().unwrap_or("response"));
                    body.some_text("description", description.as_deref());
                    body.json("schema", schema);
                    body.some_flag("strict", profile.strict(schema, *strict));
                });
            });
        }
    }
}

#[cfg(test)]
mod tests;
