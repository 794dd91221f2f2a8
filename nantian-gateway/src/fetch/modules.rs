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

use super::{FetchError, SourceNetworks, WASM, client::Client, oci};
use crate::{
    ir::{Secret, public},
    respond::ErrorChain,
    runtime::blocking,
    sync::lock,
    tenancy::Tenancy,
};

/// Time of one attempt, from the first name to the last byte.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Wait after the first failed attempt; doubled after each further one, with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Longest wait between attempts.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Modules that are on their way at a time, from the first byte that is fetched until nobody has their bytes any more. More
/// of them wait: whoever may write plugins must not decide how much memory that takes.
const MAX_IN_FLIGHT: usize = 8;

/// How modules are fetched.
#[derive(Debug, Clone)]
pub struct FetchConfig {
    /// Networks inside of which modules may be fetched.
    pub networks: SourceNetworks,
    /// Whether those who write the URLs trust one another.
    pub tenancy: Tenancy,
    /// Roots for TLS.
    pub tls: Arc<TlsConfig>,
}

/// Modules on their way to those who asked for them. A cheap handle; what it fetches ends when nobody
/// [asks](Self::retain) for it any more.
#[derive(Debug, Clone)]
pub struct Modules {
    inner: Arc<Inner>,
}

struct Inner {
    client: Client,
    entries: Mutex<BTreeMap<ModuleKey, Entry>>,
    room: Arc<Semaphore>,
    arrived: Notify,
}

/// What is asked for, and as whom: what a registry gives to one it may not give to another.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
#[expect(clippy::exhaustive_structs, reason = "plain data")]
pub struct ModuleKey {
    /// Where the module is.
    pub url: String,
    /// What a registry is told, as `user:password`.
    pub credentials: Option<Secret>,
    /// The digest of its bytes in hexadecimal digits; any module will do without.
    pub sha256: Option<String>,
}

struct Entry {
    state: Fetched,
    task: JoinHandle<()>,
}

/// Bytes that have their place among those on their way.
struct PermittedBytes {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// What is known of a module.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fetched {
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
    pub fn new(config: FetchConfig) -> Self {
        let client = Client { networks: config.networks, tenancy: config.tenancy, tls: config.tls };
        let room = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
        let inner = Inner { client, entries: Mutex::default(), room, arrived: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    /// A module; the first one to ask starts its being fetched.
    ///
    /// To be called on the control runtime.
    pub fn get(&self, module: &ModuleKey) -> Fetched {
        let mut entries = lock(&self.inner.entries);
        if let Some(entry) = entries.get(module) {
            return entry.state.clone();
        }
        let task = crate::runtime::spawn(fetch(Arc::clone(&self.inner), module.clone()));
        entries.insert(module.clone(), Entry { state: Fetched::Pending, task });
        Fetched::Pending
    }

    /// Forgets all but these modules: their bytes too, and whoever asks for one again has it fetched anew.
    pub fn retain(&self, modules: &[ModuleKey]) {
        let mut entries = lock(&self.inner.entries);
        entries.retain(|module, entry| {
            let is_wanted = modules.contains(module);
            if !is_wanted {
                entry.task.abort();
            }
            is_wanted
        });
    }

    /// Waits until there is news of a module.
    ///
    /// # Cancellation
    /// News that comes before the next call is not lost.
    pub async fn changed(&self) {
        self.inner.arrived.notified().await;
    }
}

impl fmt::Debug for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, credentials, sha256 } = self;
        f.debug_struct("ModuleKey")
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
    let mut wait = FIRST_WAIT;
    loop {
        let state = match attempt(&modules, &module).await {
            Ok(bytes) => Fetched::Ready(bytes),
            Err(error) => Fetched::Failed(ErrorChain(&error).to_string()),
        };
        let is_ready = matches!(state, Fetched::Ready(_));
        if modules.note(&module, state) {
            modules.arrived.notify_one();
        }
        if is_ready {
            tracing::info!(url = public(&module.url), "module fetched");
            return;
        }
        sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Fetches a module once there is room for it, which its bytes have until they are dropped.
async fn attempt(modules: &Inner, module: &ModuleKey) -> Result<Bytes, FetchError> {
    let limit = ATTEMPT;
    let permit = Arc::clone(&modules.room).acquire_owned().await;
    let permit = permit.map_err(|_| FetchError::Timeout { limit })?;
    let bytes = timeout(limit, get(&modules.client, module)).await;
    let bytes = bytes.unwrap_or(Err(FetchError::Timeout { limit }))?;
    Ok(Bytes::from_owner(PermittedBytes { bytes, _permit: permit }))
}

async fn get(client: &Client, module: &ModuleKey) -> Result<Bytes, FetchError> {
    let bytes = match module.url.strip_prefix("oci://") {
        Some(reference) => oci::pull(client, reference, module.credentials.as_ref()).await?,
        None => client.bytes(&module.url).await?,
    };
    if !bytes.starts_with(WASM) {
        return Err(FetchError::NoModule { url: public(&module.url).to_owned() });
    }
    let Some(expected) = module.sha256.clone() else { return Ok(bytes) };
    // What is wrong now may be right at the next attempt. Of many bytes a digest takes long.
    let verified = blocking(move || {
        let actual = Digest::of(&bytes);
        if expected.parse::<Digest>() == Ok(actual) {
            Ok(bytes)
        } else {
            Err(FetchError::Digest { expected, actual })
        }
    });
    verified.await.unwrap_or_else(|error| Err(FetchError::Artifact { reason: error.to_string() }))
}

impl AsRef<[u8]> for PermittedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

// === impl Inner ===

impl Inner {
    /// Returns whether that is news.
    fn note(&self, module: &ModuleKey, state: Fetched) -> bool {
        let mut entries = lock(&self.entries);
        let Some(entry) = entries.get_mut(module).filter(|entry| entry.state != state) else { return false };
        entry.state = state;
        true
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        time::Instant,
    };

    use super::*;

    fn modules() -> Modules {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let tls = tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
        let (networks, tenancy) = (SourceNetworks::default(), Tenancy::Single);
        Modules::new(FetchConfig { networks, tenancy, tls: Arc::new(tls) })
    }

    /// What becomes of the first attempt at a server that answers with these bytes, then says nothing.
    async fn first_attempt(answer: Vec<u8>) -> Fetched {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", server.local_addr().unwrap());
        let (modules, key) = (modules(), ModuleKey { url, credentials: None, sha256: None });
        assert_eq!(modules.get(&key), Fetched::Pending);
        let serving = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            // Who has seen enough closes.
            let _ = stream.write_all(&answer).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = modules.changed() => modules.get(&key),
            () = serving => unreachable!("it serves for ever"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn server_that_says_nothing_is_given_up_after_half_a_minute() {
        let begun = Instant::now();
        let fetched = first_attempt(Vec::new()).await;
        assert_eq!(fetched, Fetched::Failed("not there after 30s".to_owned()));
        assert_eq!(begun.elapsed().as_secs(), 30);
    }

    #[tokio::test]
    async fn module_without_end_is_given_up_at_the_limit() {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec();
        let fetched = first_attempt([head, vec![0; crate::fetch::MAX_BYTES + 1]].concat()).await;
        assert_eq!(fetched, Fetched::Failed("more than 33554432 bytes".to_owned()));
    }

    #[tokio::test]
    async fn what_is_no_module_is_asked_for_again() {
        let error_page = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n<html>".to_vec();
        let Fetched::Failed(why) = first_attempt(error_page).await else { panic!("it is kept") };
        assert!(why.ends_with("no WebAssembly module"), "{why}");
    }

    #[tokio::test]
    async fn bytes_on_their_way_are_bounded_until_nobody_has_them() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = server.local_addr().unwrap();
        crate::runtime::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\0asm").await;
            }
        });
        let modules = modules();
        let keys: Vec<_> = (0..=MAX_IN_FLIGHT)
            .map(|n| ModuleKey { url: format!("http://{origin}/{n}"), credentials: None, sha256: None })
            .collect();
        let ready = || keys.iter().filter(|key| matches!(modules.get(key), Fetched::Ready(_))).count();
        while ready() < MAX_IN_FLIGHT {
            modules.changed().await;
        }
        let held = keys.iter().map(|key| modules.get(key)).collect::<Vec<_>>();
        let last = keys.iter().position(|key| modules.get(key) == Fetched::Pending).unwrap();
        modules.retain(&keys[last..=last]);
        assert_eq!(modules.get(&keys[last]), Fetched::Pending, "the bytes are still somebody's");
        drop(held);
        while modules.get(&keys[last]) == Fetched::Pending {
            modules.changed().await;
        }
        assert!(matches!(modules.get(&keys[last]), Fetched::Ready(_)));
    }
}
