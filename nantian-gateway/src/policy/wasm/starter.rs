//! Plugins are compiled and started apart from reloads, one after the other.

use std::{
    io,
    num::NonZeroUsize,
    str::FromStr,
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use nantian_wasm::{Digest, Engine, Module, ModuleError, Plugin, PluginError, SharedSpace};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{NotRunning, config, host::PluginHost, invalid};
use crate::{
    fetch::{LONGEST_WAIT_FOR_OTHER_BYTES, ModuleKey},
    ir,
    respond::ErrorChain,
    runtime::JobThread,
    sync::lock,
    translate::conditions::Reason,
};

/// The first wait until a plugin that did not start is tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What a plugin's module was compiled to.
#[derive(Debug)]
pub(super) struct Compiled {
    /// What was fetched, if it was.
    pub(super) key: Option<ModuleKey>,
    /// The module, or why the bytes of this digest are none.
    pub(super) result: Result<Module, (Digest, ModuleError)>,
}

/// Starts plugins.
#[derive(Debug, Default)]
pub(super) struct PluginStarter {
    /// Started with the first plugin.
    thread: Option<JobThread>,
    news: PluginNews,
}

/// Tells when there is news of plugins. A cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct PluginNews {
    inner: Arc<News>,
}

#[derive(Debug, Default)]
struct News {
    arrived: Notify,
    /// When a plugin is to be tried again.
    due: Mutex<Option<Instant>>,
}

/// A plugin on its way; dropped, it does not set out any more.
#[derive(Debug)]
pub(super) struct PendingStart {
    outcome: Arc<Mutex<Option<StartOutcome>>>,
    pub(super) begun: Instant,
}

/// What it needs to set out.
pub(super) struct StartRequest {
    pub(super) engine: Engine,
    pub(super) config: ir::Plugin,
    /// The bytes that were fetched; none if the configuration has them, or the module is known.
    pub(super) fetched: Option<Bytes>,
    /// The plugin's module as far as it is known.
    pub(super) known: Option<Arc<Compiled>>,
    /// What was to be fetched, if anything.
    pub(super) key: Option<ModuleKey>,
    pub(super) last_good: Option<Plugin>,
    pub(super) host: Option<Arc<PluginHost>>,
    /// Where it finds what the plugins of its namespace share.
    pub(super) space: SharedSpace,
    /// How many instances it has; one for each core if nothing is said.
    pub(super) instances: Option<NonZeroUsize>,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct StartOutcome {
    pub(super) module: Option<Arc<Compiled>>,
    pub(super) result: Result<Plugin, StartFailure>,
}

/// Why a plugin did not start.
#[derive(Debug)]
pub(super) struct StartFailure {
    pub(super) why: NotRunning,
    /// Whether it can be otherwise another time.
    pub(super) may_pass: bool,
}

/// When to try again what has failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) at: Instant,
    wait: Duration,
}

// === impl PluginStarter ===

impl PluginStarter {
    pub(super) fn news(&self) -> &PluginNews {
        &self.news
    }

    /// Lets a plugin set out.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn begin(&mut self, wanted: StartRequest) -> io::Result<PendingStart> {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(JobThread::start("wasm-start")?),
        };
        let outcome = Arc::default();
        let (told, news) = (Arc::downgrade(&outcome), self.news.clone());
        thread.run(move || {
            if let Some(told) = Weak::<Mutex<Option<StartOutcome>>>::upgrade(&told) {
                let outcome = wanted.start();
                *lock(&told) = Some(outcome);
                news.inner.arrived.notify_one();
            }
        });
        Ok(PendingStart { outcome, begun: Instant::now() })
    }
}

// === impl PluginNews ===

impl PluginNews {
    /// Waits until there is news of a plugin, or one is to be tried again.
    ///
    /// # Cancellation
    /// News that comes before the next call is not lost.
    pub(crate) async fn changed(&self) {
        let due = *lock(&self.inner.due);
        match due {
            Some(due) => tokio::select! {
                () = self.arrived() => {}
                () = sleep_until(due) => {}
            },
            None => self.arrived().await,
        }
    }

    /// Waits until a plugin has started or has not been able to.
    pub(super) async fn arrived(&self) {
        self.inner.arrived.notified().await;
    }

    /// To be told when `due` has come, and not before.
    pub(super) fn remind_at(&self, due: Option<Instant>) {
        *lock(&self.inner.due) = due;
    }
}

// === impl PendingStart ===

impl PendingStart {
    pub(super) fn is_over(&self) -> bool {
        lock(&self.outcome).is_some()
    }

    /// What became of it, once.
    pub(super) fn take(&self) -> Option<StartOutcome> {
        lock(&self.outcome).take()
    }
}

// === impl StartRequest ===

impl StartRequest {
    fn start(self) -> StartOutcome {
        let compiled = match (&self.fetched, &self.config.source) {
            (Some(bytes), _) => self.compile(bytes),
            (None, ir::PluginSource::Bytes(bytes)) => self.compile(bytes),
            (None, _) => self.known.clone().ok_or_else(|| invalid("spec.wasm.url: nothing was fetched")),
        };
        let module = match compiled {
            Ok(module) => module,
            Err(why) => {
                return StartOutcome { module: None, result: Err(StartFailure { why, may_pass: false }) };
            }
        };
        let result = match &module.result {
            Ok(module) => self.run(module),
            // What is somewhere else may be a module the next time.
            Err((_, error)) => Err(StartFailure {
                why: invalid(format!("spec.wasm: {}", ErrorChain(error))),
                may_pass: self.key.is_some(),
            }),
        };
        StartOutcome { module: Some(module), result }
    }

    /// The module of these bytes, or why there is none. The engine knows those that are in use by their
    /// digest.
    fn compile(&self, bytes: &[u8]) -> Result<Arc<Compiled>, NotRunning> {
        let expected = self.config.sha256.as_deref().map(Digest::from_str).transpose();
        let expected = expected.map_err(|error| invalid(format!("spec.wasm.sha256: {error}")))?;
        if let Some(known) = self.known.as_ref().filter(|known| known.cannot_be(bytes)) {
            return Ok(Arc::clone(known));
        }
        let module = Module::compile(&self.engine, bytes, expected);
        let result = module.map_err(|error| (Digest::of(bytes), error));
        Ok(Arc::new(Compiled { key: self.key.clone(), result }))
    }

    fn run(&self, module: &Module) -> Result<Plugin, StartFailure> {
        let mut settings = config::plugin(&self.config).with_shared_space(self.space.clone());
        settings.instances = self.instances;
        let plugin = match (&self.last_good, self.host.clone()) {
            // Shared data, queues and metrics survive an edit.
            (Some(last_good), Some(host)) => last_good.successor_with_host(module, settings, host),
            (Some(last_good), None) => last_good.successor(module, settings),
            (None, Some(host)) => Plugin::with_host(module, settings, host),
            (None, None) => Plugin::new(module, settings),
        };
        plugin.map_err(|error| match error {
            PluginError::Full { .. } => StartFailure {
                why: NotRunning {
                    reason: Reason::NoResources,
                    message: format!("{error} (--max-plugin-instances)"),
                },
                may_pass: true,
            },
            error => StartFailure {
                may_pass: matches!(error, PluginError::Start { .. } | PluginError::Rejected { .. }),
                why: invalid(format!("spec: {}", ErrorChain(&error))),
            },
        })
    }
}

// === impl Compiled ===

impl Compiled {
    /// Whether this is what would be fetched: from the same place, or by its digest. With which credentials
    /// it came makes no other module of it.
    pub(super) fn is_what(&self, wanted: &ModuleKey) -> bool {
        let Ok(module) = &self.result else { return false };
        let is_pinned = wanted.sha256.as_deref().is_some_and(|sha256| sha256.parse() == Ok(module.digest()));
        let is_same = |key: &ModuleKey| (&key.url, &key.sha256) == (&wanted.url, &wanted.sha256);
        is_pinned || self.key.as_ref().is_some_and(is_same)
    }

    /// Whether these are the bytes that have turned out to be no module.
    fn cannot_be(&self, bytes: &[u8]) -> bool {
        let Err((digest, error)) = &self.result else { return false };
        !matches!(error, ModuleError::Digest { .. }) && *digest == Digest::of(bytes)
    }
}

// === impl Retry ===

impl Retry {
    /// After one more failure with this module: soon at first, then ever more seldom.
    pub(super) fn after(last: Option<Self>, module: Option<&Compiled>) -> Self {
        // What is none is fetched anew.
        let is_none = module.is_some_and(|module| module.result.is_err());
        let longest = if is_none { LONGEST_WAIT_FOR_OTHER_BYTES } else { LONGEST_WAIT };
        let wait = last.map_or(FIRST_WAIT, |last| (last.wait * 2).min(longest));
        Self { at: Instant::now() + wait, wait }
    }
}
