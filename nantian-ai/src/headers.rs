//! The headers of this crate's own.

use http::{HeaderName, HeaderValue};

/// Of a response: what could not be said in the other dialect, separated by commas.
///
/// What is lost of an answer that is streamed is named by a trailer of this name, where the client's
/// connection takes trailers.
pub const DROPPED: HeaderName = HeaderName::from_static("x-nantian-dropped");

/// Of an answer to a client of Anthropic's: the model which has been asked, where the answer itself has the
/// name by which the client has asked for one.
pub const MODEL: HeaderName = HeaderName::from_static("x-nantian-model");

/// Of an answer in another dialect, or a trailer of a streamed one, and of a count of tokens: `estimated`
/// where its counts are in part an estimate, because the provider tells none.
pub const USAGE: HeaderName = HeaderName::from_static("x-nantian-usage");

/// Of a request: by `true` the client asks for a refusal rather than for a request of which something is left
/// out.
pub const STRICT: HeaderName = HeaderName::from_static("x-nantian-strict");

pub(crate) const ESTIMATED: HeaderValue = HeaderValue::from_static("estimated");

/// The trailers of a streamed answer in another dialect.
pub(crate) const TRAILERS: &str = "x-nantian-dropped, x-nantian-usage";
