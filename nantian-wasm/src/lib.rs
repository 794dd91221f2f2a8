//! A wasmtime sandbox for Proxy-Wasm plugins as a tower Layer.
//!
//! Runs the plugins people already have for Envoy, Istio, Higress or Kong around any HTTP service: a plugin
//! reads and changes headers and bodies, answers by itself, logs and counts. It gets memory and time within
//! limits and nothing else: no network, no files, no way to put bytes on the wire that are not HTTP.
//!
//! ```
//! use nantian_wasm::{Engine, Module, Plugin, PluginConfig, WasmLayer};
//! use tower::{ServiceBuilder, ServiceExt as _, service_fn};
//!
//! # let guest = wat::parse_str(include_str!("../tests/guests/add_header.wat")).unwrap();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let (engine, threads) = Engine::new()?;
//! std::thread::spawn(|| threads.clock.run());
//! std::thread::spawn(|| threads.upkeep.run());
//!
//! # /*
//! let guest = std::fs::read("plugin.wasm")?;
//! # */
//! let module = Module::compile(&engine, &guest, None)?;
//! let plugin = Plugin::new(&module, PluginConfig::new("greeter"))?;
//!
//! let service = ServiceBuilder::new().layer(WasmLayer::new([plugin])).service(service_fn(
//!     async |request: http::Request<_>| {
//!         assert_eq!(request.headers()["x-wasm-plugin"], "greeter");
//!         Ok::<_, std::convert::Infallible>(http::Response::new(String::from("hello")))
//!     },
//! ));
//!
//! let response = service.oneshot(http::Request::new(String::new())).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```
//!
//! A guest runs on the thread that polls its stream, in slices of a millisecond: one that takes longer gives
//! way to the other tasks of the thread until it is polled again, and ends when its slices exceed its time
//! limit.
//!
//! Proxies that are not built of tower services drive a [`StreamContext`] instead: the same core, without
//! futures.
//!
//! # Which modules run
//!
//! The ABI is found in the bytes: modules that export a marker of Proxy-Wasm 0.1.0, 0.2.0, 0.2.1 or Higress'
//! 0.2.100, and those that import from the module `pingora` ([`Abi::Pingora`]). Every function these ABIs and
//! WASI preview 1 let a module import is there, so that modules made with the SDKs instantiate. HTTP and gRPC
//! call-outs and foreign functions go through the embedder's [`Host`](host::Host); Higress' additions (Redis,
//! upstream hosts) answer that they are not available.
//!
//! Statuses, ids, the order of callbacks and when a header map can be read are those of Envoy.
//!
//! # Where plugins behave differently from Envoy
//!
//! * A header that is no HTTP ends the stream and never reaches the wire: 503 for one of the request, 502 for
//!   one of a response or of the plugin's own answer.
//! * Bytes of a header value that are no UTF-8 are shown as if they were ISO 8859-1, since SDKs give guests
//!   strings and that of Rust traps where there is none. What is written back as it was shown, by replacing
//!   it or with all headers, is what it was; properties have the bytes themselves.
//! * The headers of one connection are not a plugin's to write; such writes are ignored. Removing them is
//!   honoured.
//! * A `content-length` that leaves is that of the body that plugins have made: headers that announce one
//!   wait for the first part of a body that a plugin looks at. If more of it is to come and its length has
//!   changed, or the plugin has written one itself, none is announced. One that has left is binding: a body
//!   that changes later breaks off. A [`StreamContext`], which cannot wait, leaves out the length of a body
//!   that a plugin looks at.
//! * A response that a plugin has made one without content (204, 304) has none, shows none, and has the
//!   length of none.
//! * Changing a request's headers or path does not choose another route. Clearing the cache of routes, in
//!   either form, is answered by `Ok` and has no effect; the log says so, once a minute.
//! * A stream has budgets: bytes that go in and out of its guests, header fields they add, lines they log,
//!   call-outs. The reason that a plugin gives for its answer is cut at 256 bytes.
//! * Call-outs are over in 60 s at most, but for streams over gRPC, which last until they are closed. A
//!   stream makes sixteen at a time, and 64 of them and one for each KiB of its bodies; a plugin makes 1024
//!   at a time, with 64 MiB of requests to be sent and responses to be read. Those of a [`SharedSpace`] have
//!   twice as much together, and all of an engine four times. One too many at a time is an internal failure,
//!   as where Envoy's circuit breaker is open. What is sent is twice [`Sandbox::max_buffered_body`] long at
//!   most, but no more than 63 MiB, and 1 MiB in any case; a response is 4 MiB.
//! * A call-out whose path, method or authority is no HTTP, though it has no CR, LF or NUL, is not sent, nor
//!   is one whose path does not begin with a slash: the guest hears of a 503, as of a header of which the
//!   value is none.
//! * A message may be held for [`Sandbox::max_pause`], or until a second after the time limit of a call-out
//!   made for it, in which the module hears that it was reached; then the failure policy decides. Waiting for
//!   more of a body does not count. Holding a body back buffers up to [`Sandbox::max_buffered_body`], or less
//!   where the plugin says so as it does in Higress (`set_decoder_buffer_limit`, `set_encoder_buffer_limit`):
//!   these raise nothing. What all streams hold together is the embedder's to limit
//!   ([`EngineBuilder::body_memory`]).
//! * Continuing a message that is not held has no effect, unless the callback that does so holds it, and
//!   neither have answers for the root context, or while a stream is logged and deleted.
//! * The end of a body cannot be withheld by discarding it, unless a call-out is under way.
//! * Headers that a plugin holds until it is shown the body (`StopIteration`, where
//!   [that is what it means](PluginConfig::allow_on_headers_stop_iteration)) wait until it continues them if
//!   it has no callback for bodies: it must be waiting for something else. If it has one and [`Hooks`] leave
//!   it out they wait for the call-outs that it has made for the stream, and go on when these are over. A
//!   stream over gRPC is over when it is closed, not when its messages have come. What a plugin ends in a
//!   tick, or in a callback of another stream, counts until the next callback or reply of this one.
//! * A held body is shown once more, as its end, before trailers.
//! * Adding to a pseudo header replaces it. Replacing all headers keeps pseudo headers that the plugin left
//!   out. One that it removes is hidden from plugins: without a path or a method a request is answered as in
//!   Envoy, and it keeps its authority.
//! * A plugin that traps costs its own streams on that instance; [`Engine::maintain`] replaces the instance.
//!   Requests that come before that and find no other instance fail with [`Cause::NoInstance`]. An instance
//!   that asks to be replaced, as modules made for Higress do (`wasm_need_rebuild`), has new streams only
//!   where no other can have them. It ends once it has none and another one has started in its place, or
//!   before that where the engine has no place for both.
//! * An instance has 10 000 streams at a time. One that is full leaves further ones to the others; where all
//!   are, a stream fails with [`Cause::Budget`].
//! * All callbacks of a stream together have ten times the time limit of one, which comes back in twenty
//!   times the time that it was spent in; one that has none left fails. Replies to its call-outs are counted
//!   among them, and cost its other budgets too. A guest ticks every ten milliseconds at most, and more
//!   rarely if its `proxy_on_tick` takes long.
//! * What clients can make much of costs no instance. A stream that writes more headers or properties, makes
//!   more call-outs or sends more by one of them than it may fails under either failure policy
//!   ([`Cause::StreamBudget`]); a thousand metrics have names of their own, of at most 256 bytes, and all
//!   others of a kind are one that is not shown; shared data keeps what was written last, a thousand keys and
//!   4 MiB of it, and so do queues. [`PluginStatus`](observe::PluginStatus) counts what is lost.
//! * A body too large to be held, or for which there is no memory, or made longer than one that may be held,
//!   and an answer that is no response, end the stream under either failure policy.
//! * Properties of the request stay readable in the response's phases; `route_name`, `cluster_name` and
//!   `listener_direction` are answered without `xds`, too. Declaring a property (`declare_property`) is
//!   answered by `Ok` however often and has no effect: those that guests set are bytes and last as long as
//!   their stream. `proxy_get_status` says how a call-out ended to the stream that made it, too, not to the
//!   root alone, and only in the callback that is about it. A header of headers or trailers that a call-out
//!   has not brought is not found (1), which Envoy answers by a bad argument (2).
//! * Of Envoy's foreign functions `clear_route_cache` and `declare_property` are there; `compress` and
//!   `uncompress`, `sign` and `verify_signature`, `expr_create`, `expr_evaluate` and `expr_delete`, and
//!   `set_envoy_filter_state` are not found (1) unless the [`Host`](host::Host) has them, as that of
//!   nantian-gateway has the first four.
//! * A module without an allocator runs, where Envoy loads none.
//! * What a plugin that fails open has changed in the callback that failed is taken back.
//! * A plugin that did not see the request does not see its end either, and one that answers as its context
//!   is created is not shown the request.
//! * An answer of the inner service's own is shown in HTTP to plugins of gRPC clients, too, if that is what
//!   the inner service says. What Envoy says of a cause (the texts of its own answers, and of gRPC calls that
//!   fail, with their details) is said in other words, `upstream_reset_after_response_started` always with
//!   `protocol_error`, and nothing of a client that leaves before it has all of a response.
//! * Headers of one name stand beside one another, and pseudo headers in front, in whichever order they were
//!   written.
//! * Shared data and queues belong to the plugins of a VM id in a [`SharedSpace`], or to one plugin where it
//!   has no VM id or no space, and metrics to one plugin in any case. They outlive a new configuration
//!   ([`Plugin::successor`]), but not the last plugin that has them. A guest that resolves a queue of the
//!   empty VM id means its own. Where there is no room for another queue or metric, one that only
//!   configurations have named which are gone makes room.
//!
//! # Logs and metrics
//!
//! What guests log goes to `tracing`, at the level that they give, with the target `nantian_wasm::guest` and
//! the fields `plugin` and `context`, which is the number of the stream or of the root; failures are logged
//! under `nantian_wasm`. Metrics that guests define, and what plugins cost, are in [`Plugin::status`].
//!
//! # Properties
//!
//! `request`, `response`, `source` and `destination` have what Envoy's have, `connection` its `id`, `mtls`,
//! `requested_server_name`, `tls_version`, `uri_san_peer_certificate`, `dns_san_peer_certificate` and
//! `sha256_peer_certificate_digest`, `upstream` its `address` and `port`, `xds` its `route_name`,
//! `cluster_name`, `listener_direction` and `filter_chain_name`, which is empty; `plugin_name`,
//! `plugin_root_id`, `plugin_vm_id`, Higress' `plugin_vm_memory`, `listener_direction` and what guests have
//! set stand by themselves, and these last in `filter_state`, too, behind `wasm.`: those of all streams of a
//! request that have one [`FilterState`]. What the messages do not say comes from [`StreamInfo`] and
//! [`UpstreamAddress`]; what these do not say is not found, and neither is what only Envoy has: its `node`,
//! the metadata of its listeners, routes, clusters and hosts (that of filters is there and empty), the
//! subjects of certificates and the gateway's own one, and how long the backend took.

mod background_calls;
mod callout_limits;
mod config;
mod engine;
mod error;
mod guest_store;
mod handle;
mod headers_phase;
mod held_bodies;
mod held_message;
mod inbox;
mod instance;
mod layer;
mod lease;
mod limits;
mod linear_memory;
mod log_rate;
mod module;
mod pending_message;
mod plugin;
mod pool;
mod proxy_wasm;
mod rebuild_budget;
mod retiring;
mod room;
mod running;
mod sandbox;
mod service;
mod stream;
mod sync;
mod tally;
mod thread_key;

pub mod body;
pub mod future;
pub mod host;
pub mod observe;
pub mod respond;

pub use self::config::{Capabilities, FailurePolicy, Hooks, PluginConfig, Sandbox, StreamFraming};
pub use self::engine::{Allocation, Engine, EngineBuilder, EngineThread, EngineThreads};
pub use self::error::{BoxError, Cause, EngineError, Failure, MemoryOf, ModuleError, Phase, PluginError};
pub use self::layer::WasmLayer;
pub use self::module::{Digest, Inventory, Module, ParseDigestError};
pub use self::plugin::Plugin;
pub use self::proxy_wasm::{Abi, SharedSpace};
pub use self::service::WasmService;
pub use self::stream::{
    Action, ClientCertificate, FilterState, LocalResponse, StreamContext, StreamInfo, UpstreamAddress,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
