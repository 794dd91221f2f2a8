//! From changed objects to a new generation of the data path, and the truth about it.

mod backoff;
mod engine_threads;
mod log_once;
mod news;
mod reload;
mod session_keys;
mod startup_gate;
mod view;

pub(crate) use self::engine_threads::start_engine_threads;
pub(crate) use self::{
    reload::Control,
    session_keys::SessionKeySource,
    view::{ConfigView, View},
};
