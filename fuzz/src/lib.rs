//! What the fuzz targets check, each a function of arbitrary bytes that panics when a promise is broken.
//!
//! ```text
//! cargo +nightly fuzz run --features fuzzer ai_sse     # from the root of the repository, with cargo-fuzz
//! cargo nextest run -p nantian-fuzz                    # replays the corpora, with no fuzzer
//! ```
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a check says with a panic that a promise is broken"
)]

mod ai;
mod crd;
mod draw;
mod host_calls;
mod lb;
mod ratelimit;
mod wasm;

pub use self::{
    ai::{
        ai_edit, ai_embed, ai_frames, ai_hide, ai_meter, ai_reply, ai_request, ai_sse, ai_stream, ai_token,
    },
    crd::validate_manifest,
    host_calls::wasm_host_calls,
    lb::lb_session,
    ratelimit::{rate_limit_history, rate_limit_words},
    wasm::wasm_module,
};
