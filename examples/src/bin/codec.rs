//! The codecs without tower, as a proxy of callbacks uses them: a request in one call, a stream chunk by
//! chunk.

use std::{collections::VecDeque, time::SystemTime};

use anyhow::ensure;
use nantian_ai::{
    ClientDialect, Dialect,
    codec::{Defaults, Echo, StreamDecoder, StreamEncoder},
    ir::ToolNames,
};

/// What an OpenAI-type provider sends, in chunks that end where they like.
const CHUNKS: [&str; 3] = [
    "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"384,",
    "400 km.\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n",
    "\ndata: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":6}}\n\ndata: [DONE]\n\n",
];

fn main() -> anyhow::Result<()> {
    let (client, provider) = (ClientDialect::Anthropic, Dialect::OpenAi);

    // When the request's body is there.
    let asked = SystemTime::now();
    let body = br#"{"model":"any","max_tokens":99,"stream":true,"messages":[{"role":"user","content":"How far is the moon?"}]}"#;
    let (mut request, mut lost) = client.decode_request(body)?;
    "gpt-4o".clone_into(&mut request.model);
    let names = ToolNames::adapt(&mut request);
    let (body, more) = provider.encode_request(&request, "openai")?;
    lost.extend(more);
    ensure!(lost.is_empty(), "nothing is lost");
    println!("to the provider: {}", String::from_utf8_lossy(&body));

    // With each chunk of the response's body.
    let defaults = Defaults {
        id: "msg_1".to_owned(),
        model: request.model,
        created: SystemTime::now(),
        took: asked.elapsed()?,
        stream_usage: request.stream_usage,
        input_estimate: nantian_ai::estimate_tokens(&body),
        echo: Echo::default(),
    };
    let mut decoder = StreamDecoder::new(provider, 1);
    let mut encoder = StreamEncoder::new(client, defaults, names);
    let mut events = VecDeque::new();
    let mut out = Vec::new();
    for chunk in CHUNKS {
        decoder.push(chunk.as_bytes(), &mut events);
        events.drain(..).for_each(|event| encoder.push(event, &mut out));
    }
    decoder.finish(&mut events);
    events.drain(..).for_each(|event| encoder.push(event, &mut out));

    let out = String::from_utf8(out)?;
    ensure!(
        out.contains("event: message_start") && out.ends_with("data: {\"type\":\"message_stop\"}\n\n"),
        "{out}"
    );
    print!("to the client:\n{out}");
    Ok(())
}
