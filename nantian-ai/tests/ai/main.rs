//! The tower face over a fake upstream, as a client and an operator see it.

#![cfg(test)]

mod bedrock;
mod bounds;
mod chat_wishes;
mod codex;
mod cursor;
mod deadline;
mod depth;
mod embeddings;
mod ends;
#[path = "../golden/files.rs"]
#[expect(dead_code, reason = "only streams are read here")]
mod files;
mod found_tools;
#[path = "../frames/mod.rs"]
mod frames;
mod golden;
mod kept;
mod logprobs;
mod long;
mod losses;
mod makers;
mod model_wishes;
mod newer_claude;
mod no_answers;
mod passed_over;
mod passthrough;
mod pictures;
mod prefix;
mod reasoning_wishes;
mod refusals;
mod repeated_calls;
mod retries;
mod route;
mod stored;
mod support;
mod taught;
mod timeouts;
mod tokens;
mod too_long;
mod translation;
mod troubles;
mod unfinished;
mod untyped;
mod usage;
mod usage_wish;
mod vertex;
mod wishes;
