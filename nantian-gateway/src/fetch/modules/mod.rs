//! What has been fetched, and what is on its way.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use nantian_wasm::Digest;
use rustls::ClientConfig as TlsConfig;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{FetchError, SourceNetworks, client::Client, oci, unpack};
use crate::{
    ir::{Secret, public},
    respond::ErrorChain,
    runtime::blocking,
    sync::lock,
    tenancy::Tenancy,
};

/// Time of one attempt, from the first name to the last byte.
const ATTEMPT: Duration = Duration::from_secs(30);
/// How long the first attempt waits for a server that says nothing: its place is one that others stand in
/// line for. Those that follow have places of their own, and wait as long as an attempt takes: a registry may
/// have to get a module first.
const FIRST_SILENCE: Duration = Duration::from_secs(5);
/// Wait after the first failed attempt; doubled after each further one, with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Longest wait after bytes have come that are not the ones: each attempt costs as many again.
pub(crate) const LONGEST_WAIT_FOR_OTHER_BYTES: Duration = Duration::from_secs(15 * 60);
/// Modules that are on their way at a time, from the first byte that is fetched until nobody has their bytes
/// any more. More of them wait: whoever may write plugins must not decide how much memory that takes.
const MAX_IN_FLIGHT: usize = 8;
/// How many of these places further attempts have together: sources that say nothing must not keep out what
/// is new.
const RETRIES: usize = 4;
/// How many first attempts of one namespace have places or stand in line for them: namespaces do not wait for
/// one another.
const OF_A_NAMESPACE: usize = 4;
/// The same of further attempts.
const RETRIES_OF_A_NAMESPACE: usize = 2;

/// How modules are fetched.
#[derive(Debug, Clone)]
pub(crate) struct FetchConfig {
    /// Networks inside of which modules may be fetched.
    pub(crate) networks: SourceNetworks,
    /// Whether those who write the URLs trust one another.
    pub(crate) tenancy: Tenancy,
    /// Roots for TLS.
    pub(crate) tls: Arc<TlsConfig>,
}

/// Modules on their way to those who asked for them. A cheap handle; what it fetches ends when nobody
/// [asks](Self::retain) for it any more.
#[derive(Debug, Clone)]
pub(crate) struct Modules {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    entries: Mutex<BTreeMap<ModuleKey, Entry>>,
    room: Arc<Semaphore>,
    retries: Arc<Semaphore>,
    /// Of a namespace, for its first attempts and for further ones.
    namespaces: Mutex<BTreeMap<(String, AttemptKind), Arc<Semaphore>>>,
    arrived: Notify,
}

/// What is asked for, and as whom: what a registry gives to one it may not give to another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ModuleKey {
    /// Who asks: the namespace of the plugin.
    pub(crate) namespace: String,
    /// Where the module is.
    pub(crate) url: String,
    /// What a registry is told, as `user:password`.
    pub(crate) credentials: Option<Secret>,
    /// The digest of its bytes in hexadecimal digits; any module will do without.
    pub(crate) sha256: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AttemptKind {
    First,
    Retry,
}

struct Entry {
    state: Fetched,
    task: JoinHandle<()>,
}

/// Bytes that have their place among those on their way.
struct PermittedBytes {
    bytes: Bytes,
    _permits: [OwnedSemaphorePermit; 2],
}

/// What is known of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Fetched {
    /// The bytes.
    Ready(Bytes),
    /// The first attempt is under way.
    Pending,
    /// The last attempt failed, and another one will follow.
    Failed(String),
}

// === impl Modules ===

impl Modules {
    /// Fetches nothing yet.
    pub(crate) fn new(config: FetchConfig) -> Self {
        let FetchConfig { networks, tenancy, tls } = config;
        let client = Client { networks, tenancy, tls, silence: ATTEMPT };
        let room = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let retries = Arc::new(Semaphore::new(RETRIES));
        let (entries, namespaces) = Default::default();
        let inner = Inner { client, entries, room, retries, namespaces, arrived: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// A module; the first one to ask starts its being fetched.
    ///
    /// To be called on the control runtime.
    pub(crate) fn get(&self, module: &ModuleKey) -> Fetched {
        let mut entries = lock(&self.inner.entries);
        if let Some(entry) = entries.get(module) {
            return entry.state.clone();
        }
        let task = crate::runtime::spawn(fetch(Arc::clone(&self.inner), module.clone()));
        entries.insert(module.clone(), Entry { state: Fetched::Pending, task });
        Fetched::Pending
    }

    /// Forgets all but these modules: their bytes too, and whoever asks for one again has it fetched anew.
    pub(crate) fn retain(&self, modules: &[ModuleKey]) {
        let mut entries = lock(&self.inner.entries);
        entries.retain(|module, entry| {
            let is_wanted = modules.contains(module);
            if !is_wanted {
                entry.task.abort();
            }
            is_wanted
        });
        // Whoever has a place of a namespace, or waits for one, has a handle.
        lock(&self.inner.namespaces).retain(|_, places| Arc::strong_count(places) > 1);
    }

    /// Waits until there is news of a module.
    ///
    /// # Cancellation
    /// News that comes before the next call is not lost.
    pub(crate) async fn changed(&self) {
        self.inner.arrived.notified().await;
    }
}

impl fmt::Debug for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, url, credentials, sha256 } = self;
        f.debug_struct("ModuleKey")
            .field("namespace", namespace)
            .field("url", &public(url))
            .field("credentials", credentials)
            .field("sha256", sha256)
            .finish()
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = lock(&self.entries);
        f.debug_struct("Modules")
            .field("modules", &entries.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Tries until the module is there.
async fn fetch(modules: Arc<Inner>, module: ModuleKey) {
    let (mut wait, mut kind) = (FIRST_WAIT, AttemptKind::First);
    loop {
        let error = match attempt(&modules, &module, kind).await {
            Ok((bytes, sha256)) => {
                modules.note(&module, Fetched::Ready(bytes));
                tracing::info!(url = public(&module.url), %sha256, "module fetched");
                return;
            }
            Err(error) => error,
        };
        modules.note(&module, Fetched::Failed(ErrorChain(&error).to_string()));
        sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        (wait, kind) = (next_wait(wait, &error), AttemptKind::Retry);
    }
}

/// How long the attempt after the next one is waited for.
fn next_wait(wait: Duration, error: &FetchError) -> Duration {
    let longest = match error {
        FetchError::Digest { .. }
        | FetchError::NoModule
        | FetchError::TooLarge { .. }
        | FetchError::Artifact { .. } => LONGEST_WAIT_FOR_OTHER_BYTES,
        _ => LONGEST_WAIT,
    };
    (wait * 2).min(longest)
}

/// Fetches a module once there is room for it, which its bytes have until they are dropped.
async fn attempt(
    modules: &Inner,
    module: &ModuleKey,
    kind: AttemptKind,
) -> Result<(Bytes, Digest), FetchError> {
    let limit = ATTEMPT;
    // In this order a namespace never has more in the lines of all.
    let of_namespace = place(&modules.of_namespace(&module.namespace, kind)).await?;
    let _retry = match kind {
        AttemptKind::First => None,
        AttemptKind::Retry => Some(place(&modules.retries).await?),
    };
    let permits = [of_namespace, place(&modules.room).await?];
    let silence = match kind {
        AttemptKind::First => FIRST_SILENCE,
        AttemptKind::Retry => ATTEMPT,
    };
    let client = Client { silence, ..modules.client.clone() };
    let bytes = timeout(limit, get(&client, module)).await;
    let (bytes, digest) = bytes.unwrap_or(Err(FetchError::Timeout { limit }))?;
    Ok((Bytes::from_owner(PermittedBytes { bytes, _permits: permits }), digest))
}

async fn place(places: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, FetchError> {
    let place = Arc::clone(places).acquire_owned().await;
    place.map_err(|_| FetchError::Timeout { limit: ATTEMPT })
}

async fn get(client: &Client, module: &ModuleKey) -> Result<(Bytes, Digest), FetchError> {
    let bytes = match module.url.strip_prefix("oci://") {
        Some(reference) => {
            oci::pull(client, reference, module.credentials.as_ref(), module.sha256.is_some()).await?
        }
        None => client.bytes(&module.url).await?,
    };
    let expected = module.sha256.clone();
    // Of many bytes it takes long, and whoever decides for all replicas is heard on this thread.
    let unpacked = blocking(move || {
        let bytes = unpack::module(bytes)?;
        let actual = Digest::of(&bytes);
        match expected {
            // What is wrong now may be right at the next attempt.
            Some(expected) if expected.parse() != Ok(actual) => Err(FetchError::Digest { expected, actual }),
            _ => Ok((bytes, actual)),
        }
    });
    unpacked.await.unwrap_or_else(|error| Err(FetchError::Artifact { reason: error.to_string() }))
}

impl AsRef<[u8]> for PermittedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Inner ===

impl Inner {
    /// Keeps what is known of a module, and tells of it if that is news.
    fn note(&self, module: &ModuleKey, state: Fetched) {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(module) else { return };
        if !matches!((&entry.state, &state), (Fetched::Failed(last), Fetched::Failed(now)) if last == now) {
            entry.state = state;
            self.arrived.notify_one();
        }
    }

    fn of_namespace(&self, namespace: &str, kind: AttemptKind) -> Arc<Semaphore> {
        let most = match kind {
            AttemptKind::First => OF_A_NAMESPACE,
            AttemptKind::Retry => RETRIES_OF_A_NAMESPACE,
        };
        let mut namespaces = lock(&self.namespaces);
        let places = namespaces.entry((namespace.to_owned(), kind));
        Arc::clone(places.or_insert_with(|| Arc::new(Semaphore::new(most))))
    }
}

#[cfg(test)]
mod tests;
