//! The tower face over a fake upstream, as a client and an operator see it.

#[cfg(test)]
mod bedrock;
#[cfg(test)]
mod bounds;
#[cfg(test)]
mod chat_wishes;
#[cfg(test)]
mod codex;
#[cfg(test)]
mod cursor;
#[cfg(test)]
mod deadline;
#[cfg(test)]
mod depth;
#[cfg(test)]
mod embeddings;
#[cfg(test)]
mod ends;
#[cfg(test)]
#[path = "../golden/files.rs"]
#[expect(dead_code, reason = "only streams are read here")]
mod files;
#[cfg(test)]
mod found_tools;
#[cfg(test)]
#[path = "../frames/mod.rs"]
mod frames;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod kept;
#[cfg(test)]
mod logprobs;
mod long;
#[cfg(test)]
mod losses;
#[cfg(test)]
mod makers;
#[cfg(test)]
mod model_wishes;
#[cfg(test)]
mod newer_claude;
#[cfg(test)]
mod no_answers;
#[cfg(test)]
mod passed_over;
#[cfg(test)]
mod passthrough;
#[cfg(test)]
mod pictures;
#[cfg(test)]
mod prefix;
#[cfg(test)]
mod reasoning_wishes;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod repeated_calls;
#[cfg(test)]
mod retries;
#[cfg(test)]
mod route;
#[cfg(test)]
mod stored;
#[cfg(test)]
mod support;
#[cfg(test)]
mod taught;
#[cfg(test)]
mod timeouts;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod too_long;
#[cfg(test)]
mod translation;
#[cfg(test)]
mod troubles;
#[cfg(test)]
mod unfinished;
#[cfg(test)]
mod untyped;
#[cfg(test)]
mod usage;
#[cfg(test)]
mod usage_wish;
#[cfg(test)]
mod vertex;
#[cfg(test)]
mod wishes;
