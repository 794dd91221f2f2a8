//! Plugins are compiled and started apart from reloads: compiled one after the other, started side by side.

use std::{
    error::Error,
    future::poll_fn,
    io,
    num::NonZeroUsize,
    panic::AssertUnwindSafe,
    pin::pin,
    str::FromStr,
    sync::{Arc, Mutex},
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt as _;
use nantian_wasm::{
    Digest, Engine, MemoryOf, Module, ModuleError, Plugin, PluginError, SharedSpace, host::Host,
};
use tokio::{
    sync::{Notify, Semaphore},
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::{NotRunning, config, host::PluginHost, invalid};
use crate::{
    fetch::{LONGEST_WAIT_FOR_OTHER_BYTES, ModuleKey},
    ir,
    respond::ErrorChain,
    runtime::{JobThread, blocking},
    sync::lock,
    translate::conditions::Reason,
};

/// The first wait until a plugin that did not start is tried again.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// How long a plugin starts until it is the next one's turn: most have started by then, and what they replace
/// can go.
const TURN: Duration = Duration::from_secs(1);

/// What a plugin's module was compiled to.
#[derive(Debug)]
pub(super) struct Compiled {
    /// What was fetched, if it was.
    pub(super) key: Option<ModuleKey>,
    /// The module, or why the bytes of this digest are none.
    pub(super) result: Result<Module, (Digest, ModuleError)>,
    /// It was started last and is a program: no plugin is made of it.
    pub(super) is_program: bool,
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

/// A plugin on its way; dropped, it goes no further.
#[derive(Debug)]
pub(super) struct PendingStart {
    task: AbortHandle,
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
    /// Whose turn it is to have a module compiled among them.
    pub(super) turn: Arc<Semaphore>,
    /// How many instances it has.
    pub(super) instances: NonZeroUsize,
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
            none => none.insert(JobThread::start("wasm-start", "wasm-compile")?),
        };
        let outcome = Arc::default();
        let (told, news) = (Arc::clone(&outcome), self.news.clone());
        let task = thread.run(async move {
            let outcome = AssertUnwindSafe(wanted.start()).catch_unwind().await;
            let outcome = outcome.unwrap_or_else(|_| StartOutcome {
                module: None,
                result: Err(StartFailure { why: invalid("spec: its start has panicked"), may_pass: true }),
            });
            *lock(&told) = Some(outcome);
            news.inner.arrived.notify_one();
        });
        Ok(PendingStart { task, outcome, begun: Instant::now() })
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

impl Drop for PendingStart {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl StartRequest ===

impl StartRequest {
    async fn start(mut self) -> StartOutcome {
        let fetched = self.fetched.take();
        let this = Arc::new(self);
        let compiled = match this.unchanged().filter(|_| fetched.is_none()) {
            Some(module) => Ok(module),
            None => this.compiled(fetched).await,
        };
        let module = match compiled {
            Ok(module) => module,
            Err(why) => {
                return StartOutcome { module: None, result: Err(StartFailure { why, may_pass: false }) };
            }
        };
        // What is somewhere else may be a module the next time.
        let why = |error: &(dyn Error + 'static)| invalid(format!("spec.wasm: {}", ErrorChain(error)));
        let (module, result) = match &module.result {
            Ok(compiled) => match this.run(compiled).await {
                Ok(plugin) => (module.known_as(false), Ok(plugin)),
                Err(error @ PluginError::Program) => {
                    let may_pass = this.key.is_some() && !this.config.is_pinned;
                    (module.known_as(true), Err(StartFailure { why: why(&error), may_pass }))
                }
                started => (Arc::clone(&module), started.map_err(StartFailure::of)),
            },
            Err((_, error)) => {
                let failure = StartFailure { why: why(error), may_pass: this.key.is_some() };
                (Arc::clone(&module), Err(failure))
            }
        };
        StartOutcome { module: Some(module), result }
    }

    /// The plugin's module, if an edit has left it as it was.
    fn unchanged(&self) -> Option<Arc<Compiled>> {
        let is_same = |known: &&Arc<Compiled>| match (&self.config.source, &known.result) {
            (ir::PluginSource::Bytes(bytes), Ok(module)) => {
                let sha256 = self.config.sha256.as_deref();
                known.key.is_none()
                    && module.digest() == Digest::of(bytes)
                    && sha256.is_none_or(|sha256| sha256.parse() == Ok(module.digest()))
            }
            (ir::PluginSource::Bytes(_), Err(_)) => false,
            _ => true,
        };
        self.known.as_ref().filter(is_same).cloned()
    }

    /// The plugin's module, or why there is none, when its turn has come. The bytes are let go then.
    async fn compiled(self: &Arc<Self>, fetched: Option<Bytes>) -> Result<Arc<Compiled>, NotRunning> {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        // What is dropped before its turn is not compiled.
        let waits = Arc::downgrade(self);
        let compiled = blocking(move || {
            let _turn = turn;
            let this = waits.upgrade()?;
            match (&fetched, &this.config.source) {
                (Some(bytes), _) => Some(this.compile(bytes)),
                (None, ir::PluginSource::Bytes(bytes)) => Some(this.compile(bytes)),
                (None, _) => None,
            }
        });
        let compiled = compiled.await.ok().flatten();
        compiled.unwrap_or_else(|| Err(invalid("spec.wasm: the module cannot be compiled")))
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
        Ok(Arc::new(Compiled { key: self.key.clone(), result, is_program: false }))
    }

    async fn run(&self, module: &Module) -> Result<Plugin, PluginError> {
        let mut settings = config::plugin(&self.config).with_shared_space(self.space.clone());
        settings.instances = Some(self.instances);
        let host = self.host.clone().map(|host| -> Arc<dyn Host> { host });
        // Shared data, queues and metrics survive an edit.
        let mut start = pin!(Plugin::start(module.clone(), settings, host, self.last_good.clone()));
        let plugin = poll_fn(|cx| {
            let until = Instant::now() + TURN;
            loop {
                match start.as_mut().poll(cx) {
                    Poll::Pending if Instant::now() < until => {}
                    polled => break polled,
                }
            }
        });
        plugin.await
    }
}

// === impl StartFailure ===

impl StartFailure {
    /// What a module has come to that may be started again as it is.
    fn of(error: PluginError) -> Self {
        let lacks =
            |message| Self { why: NotRunning { reason: Reason::NoResources, message }, may_pass: true };
        match error {
            PluginError::Full { .. } => lacks(format!("{error} (--max-plugin-instances)")),
            PluginError::NoMemory { max_memory, of: MemoryOf::Space } => lacks(format!(
                "too little is left of the {max_memory} bytes of memory for the plugins of its namespace \
                 together (half of --max-plugin-memory-bytes)"
            )),
            PluginError::NoMemory { .. } => lacks(format!("{error} (--max-plugin-memory-bytes)")),
            error => Self {
                may_pass: matches!(error, PluginError::Start { .. } | PluginError::Rejected { .. }),
                why: invalid(format!("spec: {}", ErrorChain(&error))),
            },
        }
    }
}

// === impl Compiled ===

impl Compiled {
    /// Whether this is what would be fetched: from the same place, or by its digest. With which credentials
    /// it came makes no other module of it.
    pub(super) fn is_what(&self, wanted: &ModuleKey) -> bool {
        let Some(module) = self.result.as_ref().ok().filter(|_| !self.is_program) else { return false };
        let is_pinned = wanted.sha256.as_deref().is_some_and(|sha256| sha256.parse() == Ok(module.digest()));
        let is_same = |key: &ModuleKey| (&key.url, &key.sha256) == (&wanted.url, &wanted.sha256);
        is_pinned || self.key.as_ref().is_some_and(is_same)
    }

    /// The same, of which has turned out whether a plugin is made of it: its environment may decide.
    fn known_as(self: &Arc<Self>, is_program: bool) -> Arc<Self> {
        if self.is_program == is_program {
            return Arc::clone(self);
        }
        Arc::new(Self { key: self.key.clone(), result: self.result.clone(), is_program })
    }

    /// Whether no plugin is made of these bytes, as far as is known.
    pub(super) fn is_none(&self) -> bool {
        self.result.is_err() || self.is_program
    }

    /// Whether these are the bytes that have turned out to be no module, or a program.
    fn cannot_be(&self, bytes: &[u8]) -> bool {
        match &self.result {
            Ok(module) => self.is_program && module.digest() == Digest::of(bytes),
            Err((_, ModuleError::Digest { .. })) => false,
            Err((digest, _)) => *digest == Digest::of(bytes),
        }
    }
}

// === impl Retry ===

impl Retry {
    /// After one more failure with this module: soon at first, then ever more seldom.
    pub(super) fn after(last: Option<Self>, module: Option<&Compiled>) -> Self {
        // What is none is fetched anew.
        let is_none = module.is_some_and(Compiled::is_none);
        let longest = if is_none { LONGEST_WAIT_FOR_OTHER_BYTES } else { LONGEST_WAIT };
        let wait = last.map_or(FIRST_WAIT, |last| (last.wait * 2).min(longest));
        Self { at: Instant::now() + wait, wait }
    }
}
