//! A gateway in a process of its own, real backends, and clients that see every byte.

mod backend;
mod certificate;
pub(crate) mod http2;
pub(crate) mod limits;
mod lines;
mod llm;
pub(crate) mod manifests;
mod message;
mod redis;
mod streams;
mod time;
mod wire;
mod world;

pub(crate) use self::{
    backend::Backend,
    certificate::Certificate,
    llm::{chat, llm, llm_service, provider, said, to_ai, unending_provider},
    manifests::{
        backend_tls_policy, gateway, lb_policy, plugin, route, rule, service, to, trusting_authority,
    },
    message::{Message, post},
    redis::Redis,
    streams::{Caller, Echo, stream_route, stream_service, stream_world},
    time::{after, eventually, eventually_within, soon, when_stuck},
    wire::{Stream, Wire},
    world::{Port, Running, World},
};
