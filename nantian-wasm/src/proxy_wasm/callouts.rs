//! Host calls that need no arguments to be answered: what leaves the sandbox is denied, what is gone has no effect.
//!
//! Each answers a status its SDKs accept, where they accept any.

use super::abi::Status;

/// Functions that are known and answer one status, whatever their arguments.
///
/// They are linked with the type a module declares: hosts disagree about some of these types.
pub(super) const CONSTANT: &[(&str, Status)] = &[
    ("proxy_http_call", Status::InternalFailure),
    ("proxy_grpc_call", Status::InternalFailure),
    ("proxy_grpc_stream", Status::InternalFailure),
    ("proxy_grpc_send", Status::NotFound),
    ("proxy_grpc_cancel", Status::NotFound),
    ("proxy_grpc_close", Status::NotFound),
    ("proxy_call_foreign_function", Status::NotFound),
    ("proxy_register_shared_queue", Status::Unimplemented),
    ("proxy_resolve_shared_queue", Status::NotFound),
    ("proxy_dequeue_shared_queue", Status::NotFound),
    ("proxy_enqueue_shared_queue", Status::NotFound),
    ("proxy_redis_init", Status::Unimplemented),
    ("proxy_redis_call", Status::Unimplemented),
    ("proxy_inject_encoded_data_to_filter_chain", Status::Unimplemented),
    ("proxy_inject_encoded_data_to_filter_chain_on_header", Status::Unimplemented),
    ("proxy_get_upstream_hosts", Status::Unimplemented),
    ("proxy_set_upstream_override_host", Status::Unimplemented),
    ("proxy_continue_request", Status::Ok),
    ("proxy_continue_response", Status::Ok),
    ("proxy_clear_route_cache", Status::Ok),
    ("emscripten_notify_memory_growth", Status::Ok),
];
