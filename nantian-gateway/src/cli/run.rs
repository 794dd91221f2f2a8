//! `run` and what it shares with `demo`: the process from start to drain.

use std::{env, io, num::NonZeroUsize, path::PathBuf, sync::Arc, thread};

use anyhow::Context as _;
use nantian_ai::BodyMemory;
use nantian_ratelimit::redis::{Flushed, RedisStore};
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{
    admin_addr::AdminAddr,
    args::{AccessLogFormat, Common, Run},
    changes::{Changes, WithKeyFile},
    log::{Log, lost_lines},
};
use crate::{
    admin,
    compile::{Outside, Registry},
    control::{Control, SessionKeySource, View},
    fetch::{FetchConfig, Modules},
    gates::FeatureGates,
    hops::Hop,
    ir::ControllerName,
    listen::{Timeouts, bind_alone},
    metrics::Metrics,
    observe::AccessLog,
    policy::{OwnIdentities, PluginNews, PluginResources, Tokens},
    runtime::{WorkerConfig, Workers, memory, raise_open_files},
    source::{Files, Source, Watcher},
    stream::UdpConfig,
    telemetry::{ExportersDone, Telemetry},
    tenancy::Tenancy,
    translate::Locality,
    upstream::{ClientConfig, Roots, tls_client_config},
};

/// How long the end of the process waits for the last lines of the access log.
const LAST_LINES: std::time::Duration = std::time::Duration::from_secs(1);

/// How long the end of the process waits for collectors to take the last records.
const LAST_RECORDS: std::time::Duration = std::time::Duration::from_secs(3);

/// How long the end of the process waits for the store of the limits to take what the last requests used.
const LAST_USE: std::time::Duration = std::time::Duration::from_secs(1);

/// How often it is tried.
const TELLS: std::time::Duration = std::time::Duration::from_millis(50);

/// How long an unused connection to a backend is kept.
const UPSTREAM_IDLE: std::time::Duration = std::time::Duration::from_secs(60);

/// `nantian-gateway run`: serves until a signal ends it.
///
/// # Errors
/// When something that the command line names cannot be had.
pub(super) fn run(options: &Run) -> anyhow::Result<()> {
    let _log = Log::install(&options.common)?;
    if options.manifests.is_empty() {
        return serve_cluster(options);
    }
    #[cfg(feature = "kubernetes")]
    anyhow::ensure!(
        options.cluster.watch_namespaces.has_all(),
        "--watch-namespaces cannot be used with --manifests"
    );
    let gates = options.common.feature_gates;
    let controller = options.controller.controller_name.clone();
    on_control_runtime(serve_files(&options.manifests, controller, gates, &options.common, || {}))
}

#[cfg(feature = "kubernetes")]
fn serve_cluster(options: &Run) -> anyhow::Result<()> {
    on_control_runtime(super::cluster::serve_cluster(
        &options.cluster,
        &options.controller.controller_name,
        &options.common,
    ))
}

#[cfg(not(feature = "kubernetes"))]
fn serve_cluster(_: &Run) -> anyhow::Result<()> {
    anyhow::bail!("--manifests is required: this program was built without its feature kubernetes");
}

/// Runs `serve` on the runtime of everything but the data path, and waits for nothing that is left of it
/// then.
pub(super) fn on_control_runtime(serve: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // One thread reloads, the other answers probes meanwhile.
    let runtime =
        Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("control").build()?;
    let ended = runtime.block_on(serve);
    runtime.shutdown_background();
    ended
}

/// Serves the manifests below `paths` until SIGTERM or SIGINT; `ready` is called once the first snapshot
/// serves.
pub(super) async fn serve_files(
    paths: &[PathBuf],
    controller: ControllerName,
    gates: FeatureGates,
    common: &Common,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    for path in paths {
        // Later it would keep what was read from it; now there is nothing to keep.
        std::fs::metadata(path).with_context(|| format!("--manifests {}", path.display()))?;
    }
    let watcher = Watcher::new(paths)?;
    let files = Files::new(paths.to_vec()).answering_for(controller);
    serve(files, watcher, gates, common, &View::default(), ready).await
}

/// Serves the objects of `source` until SIGTERM or SIGINT; `ready` is called once the first snapshot serves.
pub(super) async fn serve(
    source: impl Source + 'static,
    changes: impl Changes,
    gates: FeatureGates,
    common: &Common,
    view: &View,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    raise_open_files();
    let session_keys = match &common.session_key_file {
        Some(path) => SessionKeySource::file(path.clone()).context("--session-key-file")?,
        None => SessionKeySource::random()?,
    };
    let key_file = session_keys.path().map(|path| Watcher::new(&[path.to_owned()])).transpose()?;
    let count = common.workers.and_then(|count| NonZeroUsize::new(count.into()));
    let count = count.or(thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let metrics = Arc::new(Metrics::new(count.get()));
    metrics.show_log(lost_lines());
    changes.show_source(&metrics);
    let mut changes = WithKeyFile::new(changes, key_file);
    let store_changed = Arc::new(Notify::new());
    let admin = AdminServer::start(common, view, &metrics)?;
    let (access_log, last_line) = start_access_log(common, &metrics)?;
    let roots = Roots::of_system();
    let config = worker_config(common, access_log, &roots, source.tenancy())?;
    metrics.show_body_memory(config.body_memory.clone());
    let tls = Arc::clone(&config.client.tls);
    let (store, _driver) = common.limits.start(&roots, &metrics, &store_changed)?.unzip();
    let (networks, tenancy) = (common.plugin_sources.clone(), config.client.tenancy);
    let modules = Modules::new(FetchConfig { networks, tenancy, tls });
    let mut workers = Workers::start(count.get(), &config, &metrics)?;
    let worker_failed = workers.failure();
    let (telemetry, exported) = Telemetry::new(config.client.clone());
    let own = OwnIdentities::of_environment(common.identity_namespaces.clone(), |name| env::var(name).ok());
    let tokens = Tokens::new(config.client.clone(), own);
    let plugins = PluginResources {
        modules: modules.clone(),
        client: config.client.clone(),
        body_memory: config.body_memory.clone(),
        workers: count,
        max_instances: common.max_plugin_instances,
        max_memory: common.plugin_memory(memory()),
    };
    // The access log ends with the last who can write to it.
    drop(config);
    let client_ipv6_prefix = common.client_ipv6_prefix;
    let outside = Outside { store, client_ipv6_prefix, plugins, telemetry, tokens, roots };
    let registry = Registry::new(Arc::clone(&metrics), session_keys.keys().clone(), outside);
    let plugins = registry.plugin_news().clone();
    let here = Locality { zone: common.zone.clone(), node: common.node.clone() };
    let mut control =
        Control::new(source, gates, session_keys, workers, metrics, view.clone(), registry).located(here);
    let news = ExternalChanges { modules, plugins, store_changed };
    let ended = tokio::select! {
        ended = reload_until_the_end(&mut control, &mut changes, &news, &mut signals, ready) => ended,
        () = worker_failed => Err(anyhow::anyhow!("a worker has ended by itself")),
    };
    if let Err(error) = &ended {
        tracing::error!(error = format!("{error:#}"), "the process ends");
    }
    tracing::info!(timeout = ?common.drain_timeout, "draining");
    let limiters = tokio::select! {
        drained = crate::runtime::blocking(move || control.drain()) => drained?,
        () = signals.end() => anyhow::bail!("a second signal ended it before all was drained"),
    };
    if let Some(store) = limiters.store() {
        settle(store).await;
    }
    drop(limiters);
    end(exported, admin, last_line).await?;
    tracing::info!("drained");
    ended
}

/// Has the store of the limits told what the last requests used.
async fn settle(store: &RedisStore) {
    let settled = async {
        loop {
            match store.flush().await {
                Flushed::Pending => sleep(TELLS).await,
                flushed => break flushed,
            }
        }
    };
    match timeout(LAST_USE, settled).await {
        Ok(Flushed::Lost) => {
            tracing::warn!("some of what requests used while the store of the limits was away is lost");
        }
        Ok(_) => {}
        Err(_) => {
            tracing::warn!("what the last requests used is lost, the store of the limits does not take it");
        }
    }
}

/// Ends what tells of requests, now that there are none.
async fn end(
    mut exported: ExportersDone,
    admin: Option<AdminServer>,
    last_line: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    if timeout(LAST_RECORDS, exported.wait()).await.is_err() {
        tracing::warn!("the last records of calls are lost, their collectors do not take them");
    }
    if let Some(admin) = admin {
        admin.end().await?;
    }
    if timeout(LAST_LINES, last_line).await.is_err() {
        tracing::warn!("the last lines of the access log are lost, nobody reads them");
    }
    Ok(())
}

/// What changes besides the objects.
struct ExternalChanges {
    modules: Modules,
    plugins: PluginNews,
    store_changed: Arc<Notify>,
}

/// Serves what changes until a signal; an error is that no change would be heard of any more.
async fn reload_until_the_end(
    control: &mut Control,
    changes: &mut impl Changes,
    news: &ExternalChanges,
    signals: &mut Signals,
    ready: impl FnOnce(),
) -> anyhow::Result<()> {
    tokio::select! {
        complete = changes.complete() => complete?,
        () = signals.end() => return Ok(()),
    }
    control.reload().await;
    ready();
    loop {
        tokio::select! {
            changed = changes.changed() => {
                changed?;
                control.reload().await;
            }
            () = news.modules.changed() => { control.reload_and_retry().await; }
            () = news.plugins.changed() => { control.reload_and_retry().await; }
            () = control.retry_due() => control.retry().await,
            () = news.store_changed.notified() => control.refresh_conditions(),
            _ = signals.hangup.recv() => {
                tracing::info!("SIGHUP: reloading");
                control.reload_and_retry().await;
            }
            _ = signals.terminate.recv() => return Ok(()),
            _ = signals.interrupt.recv() => return Ok(()),
        }
    }
}

/// The admin server, while it serves.
struct AdminServer {
    /// It ends when this is told or gone.
    stop: oneshot::Sender<()>,
    server: JoinHandle<io::Result<()>>,
}

impl AdminServer {
    /// Starts it, if there is to be one.
    fn start(common: &Common, view: &View, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Self>> {
        let AdminAddr::At(address) = common.admin_addr else { return Ok(None) };
        let listener =
            bind_alone(address).with_context(|| format!("--admin-addr {address} cannot be bound"))?;
        tracing::info!(address = %listener.local_addr()?, "admin server");
        let (stop, stopped) = oneshot::channel();
        let server = admin::serve(listener, view.clone(), Arc::clone(metrics), async move {
            let _ = stopped.await;
        });
        Ok(Some(Self { stop, server: crate::runtime::spawn(server) }))
    }

    async fn end(self) -> anyhow::Result<()> {
        drop(self.stop);
        Ok(self.server.await??)
    }
}

/// Starts the access log, if there is to be one; the receiver is told when its last line is written.
fn start_access_log(
    common: &Common,
    metrics: &Metrics,
) -> io::Result<(Option<AccessLog>, oneshot::Receiver<()>)> {
    let (written, last_line) = oneshot::channel();
    let log = match common.access_log {
        AccessLogFormat::Off => None,
        AccessLogFormat::Json => {
            let (log, write) = AccessLog::new(io::stdout(), metrics.lost_log_lines());
            thread::Builder::new().name("access-log".to_owned()).spawn(move || {
                write();
                drop(written);
            })?;
            Some(log)
        }
    };
    Ok((log, last_line))
}

fn worker_config(
    common: &Common,
    access_log: Option<AccessLog>,
    roots: &Roots,
    tenancy: Tenancy,
) -> anyhow::Result<WorkerConfig> {
    Ok(WorkerConfig {
        timeouts: Timeouts {
            header: common.header_timeout,
            idle: common.idle_timeout,
            stall: common.stall_timeout,
            silence: Some(common.tunnel_idle_timeout).filter(|limit| !limit.is_zero()),
        },
        max_connections: common.connections(memory()),
        max_connection_age: Some(common.max_connection_age).filter(|age| !age.is_zero()),
        max_request_head: usize::try_from(common.max_request_head_bytes)?,
        max_request_body: common.max_request_body_bytes,
        body_memory: BodyMemory::new(common.max_body_memory_bytes),
        untaken_memory: common.max_body_memory_bytes,
        trusted_proxies: common.trusted_proxies.clone(),
        proxy_protocol_from: common.proxy_protocol_from.clone(),
        client: ClientConfig {
            connect_timeout: common.connect_timeout,
            idle_timeout: UPSTREAM_IDLE,
            tunnel_idle_timeout: Some(common.tunnel_idle_timeout).filter(|limit| !limit.is_zero()),
            stall_timeout: common.stall_timeout,
            tls: tls_client_config(roots)?,
            tenancy,
            hop: Hop::default(),
        },
        busy_poll: Some(common.busy_poll).filter(|span| !span.is_zero()),
        udp: UdpConfig {
            session_timeout: common.udp_session_timeout,
            max_sessions: usize::try_from(common.max_udp_sessions)?,
        },
        access_log,
        drain_timeout: common.drain_timeout,
    })
}

/// The signals that the process answers.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for a signal that ends the process.
    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
