//! What a dialect can say comes back as it was, whole or in a stream, however the stream is cut.
#![cfg(test)]

#[path = "../frames/mod.rs"]
mod frames;
mod written;

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use nantian_ai::codec::{Defaults, Echo, StreamDecoder, StreamEncoder};
use nantian_ai::ir::{
    Block, Collector, Detail, Event, Image, Json, Media, Message, Output, Reasoning, Reply, Request, Role,
    Source, Stop, Tier, Tokens, Tool, ToolCall, ToolChoice, ToolNames, ToolResult, pieces,
};
use nantian_ai::{ClientDialect, Dialect};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn clients() -> impl Strategy<Value = Dialect> {
    prop_oneof![
        Just(Dialect::Anthropic),
        Just(Dialect::Ollama),
        Just(Dialect::OpenAi),
        Just(Dialect::Responses),
    ]
}

fn providers() -> impl Strategy<Value = Dialect> {
    prop_oneof![4 => clients(), 1 => Just(Dialect::Bedrock), 1 => Just(Dialect::Gemini)]
}

fn defaults() -> Defaults {
    Defaults {
        id: "made-here".to_owned(),
        model: "m".to_owned(),
        created: SystemTime::UNIX_EPOCH,
        took: Duration::ZERO,
        stream_usage: true,
        input_estimate: 1,
        echo: Echo::default(),
    }
}

fn text() -> impl Strategy<Value = String> {
    "[a-zé🙂\"\\\\\n{}: ]{0,11}x"
}

/// An object with numbers of every spelling. Those of answers that are built here as values keep only the
/// plain ones.
fn json(dialect: Dialect) -> impl Strategy<Value = Json> {
    let plain = matches!(dialect, Dialect::Bedrock | Dialect::Gemini);
    let number = prop_oneof![
        Just("1.10".to_owned()),
        Just("-0.0".to_owned()),
        Just("1E3".to_owned()),
        "[1-9][0-9]{0,30}",
        "0\\.[0-9]{1,20}",
    ];
    let number = number.prop_map(move |number| if plain { number.len().to_string() } else { number });
    let string = text().prop_map(|text| serde_json::Value::from(text).to_string());
    let value = prop_oneof![string, number.prop_map(|number| format!("[{number},{{}}]"))];
    vec(("[a-z\"é]{1,3}", value), 0..3).prop_map(|members| {
        let mut seen = Vec::new();
        let members: Vec<_> = members
            .into_iter()
            .filter(|(name, _)| {
                !seen.contains(name) && {
                    seen.push(name.clone());
                    true
                }
            })
            .map(|(name, value)| format!("{}:{value}", serde_json::Value::from(name)))
            .collect();
        Json::parse(&format!("{{{}}}", members.join(","))).unwrap()
    })
}

/// What each dialect can say in an answer, in the order in which it says it.
fn reply(dialect: Dialect) -> impl Strategy<Value = Reply> {
    let signature = match dialect {
        Dialect::Ollama => Just(None).boxed(),
        // It has no place for those of others.
        Dialect::Gemini => option::of("google\\.[a-z=]{1,8}").boxed(),
        _ => option::of("[a-z=]{1,8}").boxed(),
    };
    let reasoning = option::of((text(), signature))
        .prop_map(|said| said.map(|(text, signature)| Block::Reasoning(Reasoning { text, signature })));
    let refusal = match dialect {
        Dialect::OpenAi | Dialect::Responses => option::of(text().prop_map(Block::Refusal)).boxed(),
        _ => Just(None).boxed(),
    };
    let said = option::of(text().prop_map(Block::Text));
    let calls = vec(("[a-zA-Z_0-9-]{1,9}", json(dialect)), 0..4).prop_map(|calls| {
        let call =
            |(at, (name, arguments))| Block::ToolCall(ToolCall { id: format!("call_{at}"), name, arguments });
        calls.into_iter().enumerate().map(call).collect::<Vec<_>>()
    });
    let stop = match dialect {
        Dialect::Ollama => prop_oneof![Just(Stop::End), Just(Stop::Length)].boxed(),
        _ => prop_oneof![Just(Stop::End), Just(Stop::Length), Just(Stop::Refused)].boxed(),
    };
    let details = dialect != Dialect::Ollama;
    let reasons = details && dialect != Dialect::Bedrock;
    let named = details && dialect != Dialect::Bedrock;
    let tiered = matches!(dialect, Dialect::Anthropic | Dialect::OpenAi | Dialect::Responses);
    let tokens = (1..9_u64, 0..9_u64, 0..9_u64).prop_map(move |(input, cached, output)| Tokens {
        input: Some(input + cached),
        cache_read: details.then_some(cached),
        cache_write: (dialect == Dialect::Responses).then_some(0),
        output: Some(output),
        reasoning: reasons.then_some(output / 2),
        tier: (tiered && output > 2).then_some(if cached > 4 { Tier::Priority } else { Tier::Default }),
    });
    (reasoning, said, refusal, calls, stop, tokens).prop_map(
        move |(reasoning, said, refusal, calls, stop, tokens)| {
            let stop = if !calls.is_empty() && stop == Stop::End { Stop::ToolCalls } else { stop };
            let content = reasoning.into_iter().chain(said).chain(refusal).chain(calls).collect();
            let id = named.then(|| "id-1".to_owned());
            let model = (dialect != Dialect::Bedrock).then(|| "m-1".to_owned());
            Reply { id, model, content, logprobs: Vec::new(), stop, tokens }
        },
    )
}

/// A reply as a provider of the dialect sends it.
fn sent(reply: Reply, dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Bedrock => written::bedrock_reply(&reply).to_string().into_bytes(),
        Dialect::Gemini => written::gemini_reply(&reply).to_string().into_bytes(),
        _ => {
            let (body, lost) = ClientDialect::try_from(dialect).unwrap().encode_reply(reply, &defaults());
            assert!(lost.is_empty(), "{lost}");
            body.to_vec()
        }
    }
}

/// The same as a stream.
fn streamed(reply: Reply, dialect: Dialect) -> Vec<u8> {
    match dialect {
        Dialect::Bedrock => written::bedrock_stream(&reply),
        Dialect::Gemini => written::gemini_stream(&reply),
        _ => stream(pieces(reply), dialect),
    }
}

fn stream(events: Vec<Event>, dialect: Dialect) -> Vec<u8> {
    let mut encoder = StreamEncoder::new(dialect.try_into().unwrap(), defaults(), ToolNames::default());
    let mut out = Vec::new();
    events.into_iter().for_each(|event| encoder.push(event, &mut out));
    out
}

fn events<'a>(chunks: impl IntoIterator<Item = &'a [u8]>, dialect: Dialect) -> VecDeque<Event> {
    let mut decoder = StreamDecoder::new(dialect, 7);
    let mut events = VecDeque::new();
    chunks.into_iter().for_each(|chunk| decoder.push(chunk, &mut events));
    decoder.finish(&mut events);
    events
}

fn collect(events: VecDeque<Event>) -> Reply {
    let mut collector = Collector::default();
    events.into_iter().for_each(|event| collector.push(event));
    collector.finish().unwrap()
}

/// A tool of which nothing is lost.
fn tool(dialect: Dialect, schema: Json) -> impl Strategy<Value = Tool> {
    let closed = r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"null"}},"required":["a","b"],"additionalProperties":false}"#;
    let closed = Json::parse(closed).unwrap();
    let tool = ("[a-zA-Z_-]{1,8}", option::of(text()), option::of(any::<bool>()));
    tool.prop_map(move |(name, description, strict)| {
        // Responses has no schema of which nothing is said, and OpenAI's are strict only where they leave
        // nothing open.
        let is_responses = dialect == Dialect::Responses;
        let strict = strict.or(is_responses.then_some(false));
        let is_closed = strict == Some(true) && (is_responses || dialect == Dialect::OpenAi);
        let schema = if is_closed { &closed } else { &schema };
        Tool { name, description, schema: schema.clone(), strict, cached: None }
    })
}

/// What each dialect can say in a request.
fn request(dialect: Dialect) -> impl Strategy<Value = Request> {
    let source =
        Source::Inline(Media { media_type: "image/png".to_owned(), base64: "iVBORw0KGgoAAA==".to_owned() });
    let detail = matches!(dialect, Dialect::OpenAi | Dialect::Responses).then_some(Detail::Low);
    let picture = Image { source, detail };
    let user = (text(), any::<bool>()).prop_map(move |(text, shows)| {
        let mut content = vec![Block::Text(text)];
        content.extend(shows.then(|| Block::Image(picture.clone())));
        Message::new(Role::User, content)
    });
    let turn = (user, option::of(text()), vec(("[a-z_]{1,5}", json(dialect), text()), 0..3));
    let messages = (option::of(text()), vec(turn, 1..4)).prop_map(|(system, turns)| {
        let mut messages = Vec::new();
        if let Some(system) = system {
            messages.push(Message::new(Role::System, vec![Block::Text(system)]));
        }
        let mut ids = 0..;
        for (user, said, calls) in turns {
            messages.push(user);
            let mut content: Vec<_> = said.map(Block::Text).into_iter().collect();
            let mut results = Vec::new();
            for (name, arguments, result) in calls {
                let id = format!("call_{}", ids.next().unwrap());
                content.push(Block::ToolCall(ToolCall { id: id.clone(), name, arguments }));
                results.push(Block::ToolResult(ToolResult {
                    id,
                    content: vec![Block::Text(result)],
                    is_error: false,
                }));
            }
            if content.is_empty() {
                content.push(Block::Text("ok".to_owned()));
            }
            messages.push(Message::new(Role::Assistant, content));
            if !results.is_empty() {
                messages.push(Message::new(Role::User, results));
                messages.push(Message::new(Role::Assistant, vec![Block::Text("so".to_owned())]));
            }
        }
        messages.push(Message::new(Role::User, vec![Block::Text("And?".to_owned())]));
        messages
    });
    let schema = Json::parse(r#"{"type":"object","properties":{"b":{},"a":{}}}"#).unwrap();
    let tool = tool(dialect, schema.clone());
    let forced = dialect != Dialect::Ollama;
    let choice = option::of(prop_oneof![Just(ToolChoice::Auto), Just(ToolChoice::Any)])
        .prop_map(move |choice| choice.filter(|_| forced));
    let output = option::of(Just(Output::Schema {
        name: matches!(dialect, Dialect::OpenAi | Dialect::Responses).then(|| "n".to_owned()),
        description: None,
        schema,
        // Those that have no word for it hold every answer to its schema.
        strict: matches!(dialect, Dialect::Anthropic | Dialect::Ollama).then_some(true),
    }));
    // Responses takes no lower limit.
    let numbers = (16..99_u64, option::of(0..10_u8), vec("[a-z]{1,3}", 0..4), any::<bool>());
    // Of several of one name, Responses keeps the last.
    let tools = vec(tool, 0..3).prop_map(|mut tools| {
        tools.dedup_by(|one, other| one.name == other.name);
        tools
    });
    (messages, tools, choice, output, numbers).prop_map(
        move |(messages, tools, choice, output, (limit, temperature, stop, stream))| Request {
            model: "m".to_owned(),
            messages,
            tool_choice: choice.filter(|_| !tools.is_empty()),
            output,
            tools,
            max_output: Some(limit),
            temperature: temperature.map(|tenths| f64::from(tenths) / 10.0),
            stop: if dialect == Dialect::Responses { Vec::new() } else { stop },
            seed: matches!(dialect, Dialect::Ollama | Dialect::OpenAi).then_some(-3),
            top_k: matches!(dialect, Dialect::Anthropic | Dialect::Ollama).then_some(40),
            stream,
            // Each says it wherever it can.
            stream_usage: stream || dialect != Dialect::OpenAi,
            ..Request::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_request_comes_back_as_it_was(
        (dialect, request) in clients().prop_flat_map(|dialect| (Just(dialect), request(dialect))),
    ) {
        let (body, lost) = dialect.encode_request(&request, "any").unwrap();
        let top_k = dialect == Dialect::OpenAi;
        prop_assert!(lost.is_empty() || top_k, "{}", lost);
        let (back, lost) = ClientDialect::try_from(dialect).unwrap().decode_request(&body).unwrap();
        prop_assert!(lost.is_empty(), "{}", lost);
        prop_assert_eq!(back, request);
    }

    #[test]
    fn a_reply_comes_back_as_it_was(
        (dialect, reply) in providers().prop_flat_map(|dialect| (Just(dialect), reply(dialect))),
    ) {
        let (back, lost) = dialect.decode_reply(&sent(reply.clone(), dialect), 7).unwrap();
        prop_assert!(lost.is_empty(), "{}", lost);
        prop_assert_eq!(back, reply);
    }

    #[test]
    fn a_streamed_reply_comes_back_as_it_was(
        (dialect, reply) in providers().prop_flat_map(|dialect| (Just(dialect), reply(dialect))),
        size in 1_usize..40,
    ) {
        let stream = streamed(reply.clone(), dialect);
        let whole = events([&stream[..]], dialect);
        prop_assert_eq!(events(stream.chunks(size), dialect), whole.clone());
        prop_assert_eq!(collect(whole), reply);
    }

    #[test]
    fn any_reply_can_be_said_in_any_dialect(
        (from, reply) in providers().prop_flat_map(|dialect| (Just(dialect), reply(dialect))),
        to in clients(),
    ) {
        let said = streamed(reply.clone(), from);
        let translated = stream(events([&said[..]], from).into(), to);
        let calls = |reply: &Reply| {
            let is_call = |block: &&Block| matches!(block, Block::ToolCall(_));
            reply.content.iter().filter(is_call).cloned().collect::<Vec<_>>()
        };
        let back = collect(events([&translated[..]], to));
        prop_assert_eq!(calls(&back), calls(&reply));
        prop_assert_eq!((back.tokens.input, back.tokens.output), (reply.tokens.input, reply.tokens.output));
    }

    #[test]
    fn whatever_is_cut_has_one_end(
        (dialect, reply) in providers().prop_flat_map(|dialect| (Just(dialect), reply(dialect))),
        cut in any::<prop::sample::Index>(),
    ) {
        let stream = streamed(reply, dialect);
        let at = cut.index(stream.len());
        let events = events([&stream[..at]], dialect);
        prop_assert_eq!(events.iter().filter(|event| event.is_last()).count(), 1);
        prop_assert!(events.back().unwrap().is_last());
    }
}
