//! How an answer is to be made.

use super::MOST_STOPS;
use super::schema::without_neighbours;
use crate::codec::{Object, object};
use crate::dialect::gemini::thoughts::Thoughts;
use crate::dialect::gemini::traits::Traits;
use crate::ir::{Losses, Output, Request};

pub(super) fn write(
    body: &mut Object<'_>,
    request: &Request,
    output: Option<&Output>,
    thinking: &Thoughts,
    traits: Traits,
    losses: &mut Losses,
) {
    let is_sampled = !traits.ignores_sampling;
    let config = object(|config| {
        config.some_count("maxOutputTokens", request.max_output);
        config.some_number("temperature", request.temperature.filter(|_| is_sampled));
        config.some_number("topP", request.top_p.filter(|_| is_sampled));
        config.some_count("topK", request.top_k.filter(|_| is_sampled));
        config.some_number("frequencyPenalty", request.frequency_penalty);
        config.some_number("presencePenalty", request.presence_penalty);
        config.some_integer("seed", request.seed);
        if !request.stop.is_empty() {
            let stops = request.stop.iter().take(MOST_STOPS);
            config.list("stopSequences", |list| stops.for_each(|stop| list.text(stop)));
        }
        if let Some(output) = output {
            config.text("responseMimeType", "application/json");
            if let Output::Schema { schema, .. } = output {
                let narrowed = without_neighbours(schema, &[]);
                if narrowed.is_some() {
                    losses.add("response_format.schema");
                }
                config.json("responseJsonSchema", narrowed.as_ref().unwrap_or(schema));
            }
        }
        thinking.write(config);
    });
    if config != b"{}" {
        body.raw("generationConfig", &config);
    }
}
