//! What is read of LLM traffic.

mod chat;
mod edit;
mod embed;
mod meter;
mod token;
mod wire;

pub use self::{
    chat::{ai_reply, ai_request, ai_stream},
    edit::{ai_edit, ai_hide},
    embed::ai_embed,
    meter::ai_meter,
    token::ai_token,
    wire::{ai_frames, ai_sse},
};

use std::time::{Duration, SystemTime};

use nantian_ai::{
    ClientDialect, Dialect,
    codec::{Defaults, Echo},
};

const CLIENTS: [ClientDialect; 4] = ClientDialect::ALL;
const PROVIDERS: [Dialect; 6] = Dialect::ALL;
const MODEL: &str = "operator's \"model\"";

/// In bytes, what chunks of a stream may be.
const SIZES: [usize; 3] = [1, 2, 7];

fn defaults() -> Defaults {
    Defaults {
        id: "id".to_owned(),
        model: MODEL.to_owned(),
        created: SystemTime::UNIX_EPOCH,
        took: Duration::ZERO,
        stream_usage: true,
        input_estimate: 1,
        echo: Echo::default(),
    }
}
