//! One form for the requests, replies and streams of every dialect, so that any of them can become any other.
//!
//! It is a list of blocks, as Anthropic has it: what the other dialects keep in separate fields (reasoning,
//! tool calls, refusals) has a place in an order here. A stream is the same reply in pieces, see [`Event`].
//! Only what at least two dialects can say has a field; whatever else a request holds is named in [`Losses`].

mod call_ids;
mod content;
mod embeddings;
mod event;
mod fault;
mod json;
mod loss;
mod names;
mod pieces;
mod reply;
mod request;

pub use self::content::{Block, Detail, Document, Image, Media, Reasoning, Source, ToolCall, ToolResult};
pub use self::embeddings::{EmbedRequest, Embeddings, VectorForm};
pub use self::event::{Event, Part};
pub use self::fault::{Fault, FaultKind};
pub use self::json::Json;
pub use self::loss::Losses;
pub use self::names::ToolNames;
pub use self::pieces::{Collector, pieces};
pub use self::reply::{Reply, Stop, Tier, Tokens};
pub use self::request::{
    CacheLife, CachePoint, Effort, Message, OpenAiOptions, Output, Request, Role, Thinking, Tool, ToolChoice,
    Verbosity,
};

pub(crate) use self::call_ids::stem_of_call;
pub(crate) use self::names::{
    ToolIds, brief_id, brief_safe_id, own_id, safe_id, safe_item_id, safe_user, short_id,
};
pub(crate) use self::pieces::{RAW, arguments, given_arguments, is_nothing};
