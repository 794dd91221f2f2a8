//! The command line.

use std::{num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use nantian_crd::NantianKind;

#[cfg(feature = "kubernetes")]
use super::addressing::AddressOptions;
use super::{admin_addr::AdminAddr, log_filter::LogFilter, ratelimit_store::StoreOptions, wasm::WasmCommand};
#[cfg(feature = "kubernetes")]
use crate::source::kube::Scope;
use crate::{fetch::SourceNetworks, gates::FeatureGates, ir::ControllerName, listen::Networks};

/// A gateway for HTTP and LLM traffic, configured by Gateway API resources.
#[derive(Debug, Parser)]
#[command(name = "nantian-gateway", version, propagate_version = true)]
pub(super) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(super) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
#[non_exhaustive]
pub(super) enum Command {
    /// Serve manifests from files, watched and reloaded; without --manifests, the objects of a Kubernetes
    /// cluster.
    Run(Box<Run>),
    /// Serve an embedded example world and print curl lines to try.
    Demo(Box<Demo>),
    /// Check manifests offline; exit 1 and one line a fault.
    Validate {
        /// Whose classes are checked.
        #[command(flatten)]
        controller: ControllerOptions,
        /// Files, or directories with *.yaml and *.yml below them.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Print the CRDs for kubectl apply -f -.
    Crds {
        /// AIService, TokenPolicy, WasmPlugin or BackendLBPolicy; all of them if none is named.
        /// BackendLBPolicy is in the group of the Gateway API, so that a cluster with the standard channel of
        /// that refuses its definition.
        #[arg(value_name = "KIND")]
        kinds: Vec<NantianKind>,
    },
    /// Try a Wasm plugin before it is deployed.
    Wasm {
        /// What to do with it.
        #[command(subcommand)]
        command: WasmCommand,
    },
}

/// Whose classes are served.
#[derive(Debug, Args)]
pub(super) struct ControllerOptions {
    /// The controllerName of the GatewayClasses that are served, a domain and a path: each installation of a
    /// cluster has another one, and leaves to the others what is theirs.
    #[arg(long, env = "NANTIAN_CONTROLLER_NAME", value_name = "NAME", default_value_t)]
    pub(super) controller_name: ControllerName,
}

/// Options of `run`.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// A file, or a directory with *.yaml and *.yml below it; may be given several times.
    #[arg(long, env = "NANTIAN_MANIFESTS", value_delimiter = ',', value_name = "PATH")]
    pub(super) manifests: Vec<PathBuf>,
    /// Whose classes are served.
    #[command(flatten)]
    pub(super) controller: ControllerOptions,
    /// Options for a cluster.
    #[cfg(feature = "kubernetes")]
    #[command(flatten)]
    pub(super) cluster: ClusterOptions,
    /// The options that every serving command has.
    #[command(flatten)]
    pub(super) common: Common,
}

/// Options of `run` without `--manifests`.
#[cfg(feature = "kubernetes")]
#[derive(Debug, Args)]
pub(super) struct ClusterOptions {
    /// How to reach the API server; by default as KUBECONFIG says, else as a pod of the cluster does.
    #[arg(long, env = "NANTIAN_KUBECONFIG", value_name = "FILE", conflicts_with = "manifests")]
    pub(super) kubeconfig: Option<PathBuf>,
    /// Namespaces whose objects are read, such as team-a,team-b: nothing else that has a namespace is, apart
    /// from where the replicas are, so that no rights are needed for it. Of one where some kinds may not be
    /// read nothing new is served. Of each kind a watch is opened in each of them, so it is meant for some,
    /// not for hundreds. All by default.
    #[arg(long, env = "NANTIAN_WATCH_NAMESPACES", value_name = "NAMESPACE,…", default_value = "",
          value_parser = Scope::parse)]
    pub(super) watch_namespaces: Scope,
    /// How Gateways get their addresses.
    #[command(flatten)]
    pub(super) addresses: AddressOptions,
}

/// Options of `demo`.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// The port to serve the demo on.
    #[arg(long, env = "NANTIAN_DEMO_PORT", default_value_t = 8080, value_name = "PORT")]
    pub(super) port: u16,
    /// The options that every serving command has.
    #[command(flatten)]
    pub(super) common: Common,
}

/// Options of every serving command.
#[derive(Debug, Args)]
pub(super) struct Common {
    /// Alpha kinds to serve, such as AIService=true,TokenPolicy=true,WasmPlugin=true,BackendLBPolicy=true or
    /// AllAlpha=true. `demo` opens all of them.
    #[arg(long, env = "NANTIAN_FEATURE_GATES", value_name = "GATES", default_value = "")]
    pub(super) feature_gates: FeatureGates,
    /// Worker threads, 1 to 512; the default is one for each core.
    #[arg(long, env = "NANTIAN_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub(super) workers: Option<u16>,
    /// How long a worker that has read anything looks for more before its core rests, up to 1s: one that
    /// rests takes tens of microseconds to wake, and one that does not is taken. 0s is not at all.
    #[arg(long, env = "NANTIAN_BUSY_POLL", value_name = "DURATION", default_value = "0s", value_parser = duration::<0, 1_000>)]
    pub(super) busy_poll: Duration,
    /// Where health, metrics and configuration are served: IP:PORT or [IP]:PORT, of which [::] is every
    /// address of IPv4, too; `none` disables it.
    #[arg(long, env = "NANTIAN_ADMIN_ADDR", value_name = "ADDR", default_value = "127.0.0.1:19080")]
    pub(super) admin_addr: AdminAddr,
    /// Where limits are kept.
    #[command(flatten)]
    pub(super) limits: StoreOptions,
    /// Networks whose proxies are believed what they say of clients (X-Forwarded-*, Forwarded, X-Real-IP,
    /// Client-Cert), such as 10.0.0.0/8,192.168.1.1; from others these headers are replaced or removed. None
    /// by default.
    #[arg(long, env = "NANTIAN_TRUSTED_PROXIES", value_name = "CIDR,…", default_value = "")]
    pub(super) trusted_proxies: Networks,
    /// Networks whose connections begin with a PROXY protocol header (version 1 or 2), such as those of a
    /// load balancer: listeners of TCP have the client's address from it, and close connections without one.
    /// Connections of others are served as they are. None by default.
    #[arg(long, env = "NANTIAN_PROXY_PROTOCOL_FROM", value_name = "CIDR,…", default_value = "")]
    pub(super) proxy_protocol_from: Networks,
    /// The bits of an IPv6 address that are one client to limits by `ip`, 32 to 128: whoever is given a
    /// network of 56 or 48 has 256 or 65536 clients by 64.
    #[arg(long, env = "NANTIAN_CLIENT_IPV6_PREFIX", value_name = "BITS", default_value_t = 64,
          value_parser = clap::value_parser!(u8).range(32..=128))]
    pub(super) client_ipv6_prefix: u8,
    /// Private networks that Wasm modules may be fetched from, also over http, such as 10.0.0.0/8; none by
    /// default. A registry there may speak no TLS where no credentials are for it and a sha256 pins the
    /// module. In a cluster this machine has to be named, too (127.0.0.1). Certificates are verified by the
    /// authorities that this machine trusts; SSL_CERT_FILE and SSL_CERT_DIR name others.
    #[arg(long, env = "NANTIAN_PLUGIN_SOURCES", value_name = "CIDR,…", default_value = "")]
    pub(super) plugin_sources: SourceNetworks,
    /// Namespaces whose AIServices may use the gateway's own identity at AWS, Azure or Google: those with
    /// auth of type aws, azure or gcp and without a secret, wherever their endpoint is; none by default. The
    /// environment names it, as the clouds' own tools expect: IAM roles for service accounts and Pod
    /// Identity, workload identity of Azure, the metadata server of Google.
    #[arg(long, env = "NANTIAN_IDENTITY_NAMESPACES", value_name = "NAMESPACE,…", value_delimiter = ',')]
    pub(super) identity_namespaces: Vec<String>,
    /// A file with the keys of session tokens, one a line, each 32 random bytes in base64
    /// (`head -c 32 /dev/urandom | base64`): the first seals, all open, so that replicas with the same file
    /// share sessions. It is watched. Without it the key is random, and sessions end with the process.
    #[arg(long, env = "NANTIAN_SESSION_KEY_FILE", value_name = "PATH")]
    pub(super) session_key_file: Option<PathBuf>,
    /// The zone that this process runs in, such as eu-west-1a: Services with
    /// `trafficDistribution: PreferSameZone`, or with hints at their endpoints, prefer the endpoints there.
    /// By default the zone of the endpoints on --node, or unknown.
    #[arg(long, env = "NANTIAN_ZONE", value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) zone: String,
    /// The node that this process runs on: Services with `trafficDistribution: PreferSameNode` prefer the
    /// endpoints there. Unknown by default.
    #[arg(long, env = "NANTIAN_NODE", value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) node: String,
    /// The form of the log.
    #[arg(long, env = "NANTIAN_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub(super) log_format: LogFormat,
    /// What is logged: off, error, warn, info, debug, trace, or a filter such as info,hyper=debug. The
    /// Kubernetes client and h2 are silent unless they are named, as in debug,h2=debug.
    #[arg(long, env = "NANTIAN_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub(super) log_level: LogFilter,
    /// Whether each request is logged to standard output, as one JSON object a line.
    #[arg(long, env = "NANTIAN_ACCESS_LOG", value_name = "FORMAT", default_value = "off")]
    pub(super) access_log: AccessLogFormat,
    /// How long requests may take to finish after SIGTERM, 0s to 1h.
    #[arg(long, env = "NANTIAN_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration::<0, HOUR>)]
    pub(super) drain_timeout: Duration,
    /// How long a client may take to send the head of a request, and a TLS handshake, 100ms to 1h.
    #[arg(long, env = "NANTIAN_HEADER_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration::<TICK, HOUR>)]
    pub(super) header_timeout: Duration,
    /// How long a client's connection may be unused, 100ms to 24h; longer than load balancers in front keep
    /// theirs. It is less where less than a sixteenth of --max-connections is free.
    #[arg(long, env = "NANTIAN_IDLE_TIMEOUT", value_name = "DURATION", default_value = "75s", value_parser = duration::<TICK, DAY>)]
    pub(super) idle_timeout: Duration,
    /// How long a client may neither send the next bytes of a body nor take the next bytes of a response
    /// (over HTTP/2, the next 16 KiB of each, and four times as long while others of its connection are
    /// taken), and a backend not take the next bytes of an upload, 100ms to 24h. Clients have less where
    /// --max-body-memory-bytes says so.
    #[arg(long, env = "NANTIAN_STALL_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = duration::<TICK, DAY>)]
    pub(super) stall_timeout: Duration,
    /// How long an upgraded connection, such as a WebSocket, or one of a TLSRoute or TCPRoute, may be silent
    /// in both directions, up to 24h; 0s is no limit.
    #[arg(long, env = "NANTIAN_TUNNEL_IDLE_TIMEOUT", value_name = "DURATION", default_value = "1h", value_parser = duration::<0, DAY>)]
    pub(super) tunnel_idle_timeout: Duration,
    /// How long a client and a backend that exchange datagrams may be silent before their session ends, 1s to
    /// 1h.
    #[arg(long, env = "NANTIAN_UDP_SESSION_TIMEOUT", value_name = "DURATION", default_value = "60s", value_parser = duration::<1_000, HOUR>)]
    pub(super) udp_session_timeout: Duration,
    /// The most sessions of datagrams of the process, at least 1, each of which has a socket; datagrams of
    /// further clients are left out.
    #[arg(long, env = "NANTIAN_MAX_UDP_SESSIONS", value_name = "N", default_value_t = 16_384,
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_udp_sessions: u32,
    /// The most instances of all Wasm plugins together, at least 1: each plugin has one for each core, and
    /// twice as many while an edit of it is put in its place. By default 128 for each core, at least 1024 and
    /// at most 4096.
    #[arg(long, env = "NANTIAN_MAX_PLUGIN_INSTANCES", value_name = "N")]
    pub(super) max_plugin_instances: Option<NonZeroU32>,
    /// The most bytes of memory that the instances of all Wasm plugins have together, at least 4194304,
    /// whatever the `sandbox.maxMemoryBytes` of each. A plugin is refused more. It has fewer instances where
    /// they would leave no room for an edit of it, and one, or an edit of one, whose first instance finds too
    /// little is not started. The last quarter is for instances of at most 16777216 bytes, and in a cluster
    /// the plugins of one namespace have half of it. By default what the process may have by its cgroups
    /// and the machine less 1073741824 for all else, at least 536870912, and never more than half of it.
    #[arg(long, env = "NANTIAN_MAX_PLUGIN_MEMORY_BYTES", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(4_194_304..))]
    pub(super) max_plugin_memory_bytes: Option<u64>,
    /// The most client connections of the process, at least 1; further ones wait until another one ends. By
    /// default one for each 65536 bytes of what the process may have by its cgroups and the machine, and at
    /// most 65536.
    #[arg(long, env = "NANTIAN_MAX_CONNECTIONS", value_name = "N")]
    pub(super) max_connections: Option<NonZeroU32>,
    /// How old a client's connection over HTTP may become, a tenth more or less, up to 24h; 0s is no limit.
    /// It ends without losing a request, so that clients spread over replicas that came later.
    #[arg(long, env = "NANTIAN_MAX_CONNECTION_AGE", value_name = "DURATION", default_value = "0s", value_parser = duration::<0, DAY>)]
    pub(super) max_connection_age: Duration,
    /// How long opening a connection to a backend may take, 1ms to 1h.
    #[arg(long, env = "NANTIAN_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "5s", value_parser = duration::<1, HOUR>)]
    pub(super) connect_timeout: Duration,
    /// The most bytes of a request's head, 8192 to 1048576; more is answered with 431.
    #[arg(long, env = "NANTIAN_MAX_REQUEST_HEAD_BYTES", value_name = "BYTES", default_value_t = 65_536,
          value_parser = clap::value_parser!(u32).range(8_192..=1_048_576))]
    pub(super) max_request_head_bytes: u32,
    /// The most bytes of a request's body; more is answered with 413.
    #[arg(long, env = "NANTIAN_MAX_REQUEST_BODY_BYTES", value_name = "BYTES", default_value_t = 134_217_728)]
    pub(super) max_request_body_bytes: u64,
    /// The most bytes that the bodies which are read whole take together, at least 4194304: requests of
    /// AIServices, and answers that are translated, of streams what is kept; what limits by user, model or
    /// tokens read; what plugins hold. What finds no room is answered with 503. A body of more than 1048576
    /// bytes has three quarters of it, and is answered with 413 where these are less. While more than half is
    /// held, clients may be --stall-timeout behind one that sends 16384 bytes of its body a second.
    /// Responses that they do not take have as much besides, 262144 each, or what is left of those that are
    /// over; from half of it on they have ever less than --stall-timeout to go on, down to 2s.
    #[arg(long, env = "NANTIAN_MAX_BODY_MEMORY_BYTES", value_name = "BYTES", default_value_t = 268_435_456,
          value_parser = clap::value_parser!(u64).range(4_194_304..))]
    pub(super) max_body_memory_bytes: u64,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// The form of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[non_exhaustive]
pub(super) enum AccessLogFormat {
    /// No access log.
    Off,
    /// One JSON object a line.
    Json,
}

/// The milliseconds of a day.
const DAY: u64 = 24 * HOUR;
/// The milliseconds of an hour.
const HOUR: u64 = 3_600_000;
/// The milliseconds between two looks at the connections.
const TICK: u64 = 100;

/// Reads a duration such as `500ms`, `30s` or `1m30s` (GEP-2257) of `LEAST` to `MOST` milliseconds.
pub(super) fn duration<const LEAST: u64, const MOST: u64>(text: &str) -> Result<Duration, String> {
    let duration = text.parse::<nantian_crd::Duration>().map_err(|error| error.to_string())?.as_std();
    let range = Duration::from_millis(LEAST)..=Duration::from_millis(MOST);
    if range.contains(&duration) {
        return Ok(duration);
    }
    Err(format!("{duration:?} is not between {:?} and {:?}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::ratelimit_store::{FailureMode, RateLimitStore};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_have_the_documented_defaults() {
        let Cli { command: Command::Run(run) } =
            Cli::parse_from(["nantian-gateway", "run", "--manifests", "a", "--manifests", "b"])
        else {
            panic!("not run");
        };
        assert_eq!(run.manifests, [PathBuf::from("a"), PathBuf::from("b")]);
        assert_eq!(run.common.admin_addr, AdminAddr::At(([127, 0, 0, 1], 19080).into()));
        assert_eq!(run.common.drain_timeout, Duration::from_secs(30));
        assert_eq!(run.common.feature_gates, FeatureGates::default());
        assert!(matches!(run.common.limits.store, RateLimitStore::Memory));
        assert_eq!(run.common.limits.timeout, Duration::from_millis(20));
        assert_eq!(run.common.limits.failure_mode, FailureMode::Local);
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn namespaces_to_watch_are_names_that_one_can_have() {
        let parsed = |text: &str| -> Result<Scope, clap::Error> {
            let cli = Cli::try_parse_from(["nantian-gateway", "run", "--watch-namespaces", text])?;
            let Command::Run(run) = cli.command else { panic!("not run") };
            Ok(run.cluster.watch_namespaces)
        };
        let has_others = |text: &str| parsed(text).unwrap().has_services_of("team-b");
        assert_eq!(["", "team-a,7"].map(has_others), [true, false]);
        for wrong in [",", "team-a, team-b", "team-a,", "Team", "team_a", "team.a", "team-"] {
            let error = parsed(wrong).unwrap_err().to_string();
            assert!(error.contains("is not a DNS label"), "{wrong:?}: {error}");
        }
        let beside_files = ["nantian-gateway", "run", "--manifests", "a", "--watch-namespaces", ""];
        assert!(Cli::try_parse_from(beside_files).is_ok(), "the variable may be there, and empty");
    }

    #[test]
    fn a_store_is_memory_or_a_server_and_its_password_is_never_shown() {
        let with = |store| {
            let options = ["nantian-gateway", "run", "--manifests", "a", "--ratelimit-store", store];
            Cli::try_parse_from(options).map(|cli| match cli.command {
                Command::Run(run) => run.common.limits.store,
                _ => panic!("not run"),
            })
        };
        assert!(matches!(with("memory").unwrap(), RateLimitStore::Memory));
        let shown = format!("{:?}", with("redis://:hidden@10.0.0.1:6379/3").unwrap());
        assert_eq!(shown, "Redis(redis://10.0.0.1:6379/3)");
        let shown = format!("{:?}", with("rediss://:hidden@limits.example/3").unwrap());
        assert_eq!(shown, "Redis(rediss://limits.example:6379/3)");
        for wrong in ["disk", "", "unix://:hidden@h:1/0", "redis://:hidden@h:port/0", "redis://:hidden@h:1/x"]
        {
            let error = with(wrong).unwrap_err().to_string();
            assert!(
                error.contains("--ratelimit-store is neither `memory` nor redis[s]://HOST:PORT/DB"),
                "{error}"
            );
            assert!(!error.contains("hidden"), "{error}");
        }
    }

    #[test]
    fn limits_of_a_plugin_have_the_documented_ranges() {
        for (option, good, bad) in [
            ("--max-memory-bytes", ["65536", "4294967296"], ["65535", "4294967297"]),
            ("--max-execution-time-ms", ["1", "60000"], ["0", "60001"]),
        ] {
            let parses = |value| {
                Cli::try_parse_from(["nantian-gateway", "wasm", "check", "a.wasm", option, value]).is_ok()
            };
            assert!(good.into_iter().all(parses) && !bad.into_iter().any(parses), "{option}");
        }
    }
}
