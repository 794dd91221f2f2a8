//! Options of `wasm`.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand};

/// What to do with a plugin.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub(in crate::cli) enum WasmCommand {
    /// Say whether a plugin runs here: its ABI, imports and callbacks, how much of each limit it uses, and
    /// whether it takes its configuration. Exit 0 if it does, 1 if not.
    Check(PluginOptions),
    /// Take one exchange through a plugin and show what it logs, changes and costs. Exit 0 if the request was
    /// passed on or answered by the plugin, 1 if the plugin failed it.
    Run(Box<RunOptions>),
}

/// The plugin and how it is started.
#[derive(Debug, Args)]
pub(in crate::cli) struct PluginOptions {
    /// The module; with a manifest that brings one, another in its place.
    #[arg(value_name = "PLUGIN.WASM", required_unless_present = "manifest")]
    pub(super) plugin: Option<PathBuf>,
    /// A file or directory with a WasmPlugin, as `run --manifests` takes it: the plugin has its module,
    /// configuration, environment, hooks, limits and capabilities.
    #[arg(long, value_name = "PATH", conflicts_with_all =
        ["config", "config_file", "root_id", "env", "max_memory_bytes", "max_execution_time_ms"])]
    pub(super) manifest: Option<PathBuf>,
    /// The plugin's configuration, as in `spec.config` of a WasmPlugin.
    #[arg(long, value_name = "TEXT", conflicts_with = "config_file")]
    pub(super) config: Option<String>,
    /// A file with the plugin's configuration.
    #[arg(long, value_name = "FILE")]
    pub(super) config_file: Option<PathBuf>,
    /// Which of several root contexts in the module runs.
    #[arg(long, value_name = "ID", default_value = "")]
    pub(super) root_id: String,
    /// An environment variable of the plugin; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) env: Vec<String>,
    /// Linear memory the plugin may have, 65536 to 4294967296.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 20,
        value_parser = clap::value_parser!(u64).range(65_536..=4_294_967_296))]
    pub(super) max_memory_bytes: u64,
    /// Time of one call into the plugin, 1 to 60000 ms.
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(super) max_execution_time_ms: u64,
}

/// Options of `wasm run`.
#[derive(Debug, Args)]
pub(in crate::cli) struct RunOptions {
    /// The plugin.
    #[command(flatten)]
    pub(super) plugin: PluginOptions,
    /// The client's address: `source.address` and `source.port`.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:50000")]
    pub(super) source: SocketAddr,
    /// The client speaks TLS, and has asked for the request's host: `connection.tls_version`,
    /// `connection.requested_server_name` and `:scheme`.
    #[arg(long)]
    pub(super) tls: bool,
    /// Name of the route: `route_name`.
    #[arg(long, value_name = "NAME", default_value = "default/route")]
    pub(super) route: String,
    /// A file with the request: request line, header lines, an empty line, body, whose length is added where
    /// no header says it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["method", "path", "header", "data"])]
    pub(super) request: Option<PathBuf>,
    /// The request's method.
    #[arg(short = 'X', long, value_name = "METHOD")]
    pub(super) method: Option<String>,
    /// The request's path and query.
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub(super) path: String,
    /// A header of the request; may be given several times.
    #[arg(short = 'H', long, value_name = "NAME: VALUE")]
    pub(super) header: Vec<String>,
    /// The request's body; its method is then POST unless another is given, and its type that of a form, as
    /// with `curl -d`.
    #[arg(short = 'd', long, value_name = "TEXT")]
    pub(super) data: Option<String>,
    /// A file with the upstream's response: status line, header lines, an empty line, body. By default a 200
    /// that says `ok`.
    #[arg(long, value_name = "FILE")]
    pub(super) response: Option<PathBuf>,
    /// Shows bodies in pieces of this many bytes; by default whole.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) chunk_bytes: Option<u32>,
    /// Lets the plugin call out, unless a manifest says whether it may, and answers each call to UPSTREAM
    /// with the response in FILE; may be given several times. Over gRPC the body is the message, and
    /// `grpc-status` and `grpc-message` among the headers say how the call ends.
    #[arg(long, value_name = "UPSTREAM=FILE")]
    pub(super) reply: Vec<String>,
}
