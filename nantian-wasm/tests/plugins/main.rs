//! Plugins as their users see them: guests in WebAssembly text, requests in, responses out.
#![cfg(test)]

mod abuse;
mod automaton;
mod beats;
mod bodies;
mod call_outs;
mod capabilities;
mod costs;
mod counters;
mod crowds;
mod ends;
mod envoy;
mod filter_state;
mod headers;
mod higress;
mod hostile;
mod invariants;
mod kept;
mod lengths;
mod lies;
mod lifecycle;
mod limits;
mod loading;
mod own_answers;
mod pingora;
mod places;
mod refusals;
mod replies;
mod sdk;
mod shared;
mod slices;
mod stalls;
mod support;
mod threads;
mod toolchains;
