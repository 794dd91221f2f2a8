//! The gateway as a process: manifests and bytes in, bytes out.
#![cfg(test)]

mod admin;
mod ai;
mod ai_telemetry;
mod backend_tls;
mod balancing;
mod clients;
#[cfg(feature = "kubernetes")]
mod cluster;
mod conformance;
mod connections;
mod cors;
mod drain;
mod forwarding;
mod grpc;
mod grpc_peers;
mod hostile;
mod http1;
mod http2;
mod limits;
mod listener_sets;
mod mirror;
mod plugin_fields;
mod plugin_registries;
mod plugin_swaps;
mod plugins;
mod policies;
mod rate_limits;
mod refused;
mod reload;
mod retry;
mod routing;
mod sessions;
mod shared_limits;
mod stalls;
mod streaming;
mod support;
mod tcp;
mod tls;
mod tls_routes;
mod token_flow;
mod token_limits;
mod udp;
mod upgrade;
mod upstream;
