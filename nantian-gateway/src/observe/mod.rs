//! Counts and logs each exchange of a route.

mod access_log;
mod ai_calls;
mod body;
mod layer;
mod line_writer;
mod refusals;
mod store;

pub(crate) use self::{
    access_log::{AccessLog, StreamEntry},
    ai_calls::{AiCalls, PendingCall},
    body::ObservedBody,
    layer::ObserveLayer,
    line_writer::LineWriter,
    refusals::Refusals,
    store::{limits_remark, store},
};
