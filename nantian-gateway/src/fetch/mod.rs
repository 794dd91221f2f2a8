//! Wasm modules from elsewhere: fetched once, outside of reloads, from nowhere they must not come from.

mod challenge;
mod client;
mod error;
mod guard;
mod modules;
mod oci;
mod origin;
mod unpack;

pub(crate) use self::modules::LONGEST_WAIT_FOR_OTHER_BYTES;
pub(crate) use self::{
    error::FetchError,
    guard::SourceNetworks,
    modules::{FetchConfig, Fetched, ModuleKey, Modules},
};

/// Largest module, and largest response on the way to one, in bytes.
const MAX_BYTES: usize = 32 << 20;

/// What every module begins with.
const WASM: &[u8] = b"\0asm";
