//! A server that is reached over TLS.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::{fs, io};

use nantian_ratelimit::Limit;
use nantian_ratelimit::redis::rustls::pki_types::PrivateKeyDer;
use nantian_ratelimit::redis::rustls::sign::{CertifiedKey, SingleCertAndKey};
use nantian_ratelimit::redis::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use nantian_ratelimit::redis::{RedisDriver, RedisStore, StoreFault};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::server::{Server, admitted, eventually, policy};

/// Servers that also listen with TLS, as `localhost`.
struct Secured {
    servers: Vec<Server>,
    certificate: rcgen::Certificate,
    key: rcgen::KeyPair,
    _files: TempDir,
}

impl Secured {
    async fn start() -> Self {
        Self::start_with(1, &[]).await
    }

    /// Starts several servers with the same certificate; each has ports of its own.
    async fn start_with(count: usize, more: &[&str]) -> Self {
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TempDir::new().unwrap();
        let file = |name: &str, content: String| {
            let path = files.path().join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, key) = (file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem()));
        let mut servers = Vec::new();
        for _ in 0..count {
            let server = Server::start_with(|| {
                let paths = ["--tls-auth-clients", "no", "--tls-cert-file", &certificate]
                    .into_iter()
                    .chain(["--tls-key-file", &key, "--tls-ca-cert-file", &certificate]);
                let mut options: Vec<String> = paths.chain(more.iter().copied()).map(str::to_owned).collect();
                options.extend(["--tls-port".to_owned(), free_port()]);
                options.extend(["--cluster-port".to_owned(), free_port()]);
                options
            });
            servers.push(server.await);
        }
        Self { servers, certificate: cert, key: signing_key, _files: files }
    }

    fn store(&self, host: &str, tls: Option<Arc<ClientConfig>>) -> (RedisStore, RedisDriver) {
        let url = format!("rediss://{host}:{}/0", self.servers[0].option("--tls-port")).parse().unwrap();
        let builder = RedisStore::builder(url)
            .connect_timeout(Duration::from_secs(10))
            .command_timeout(Duration::from_secs(1));
        match tls {
            Some(tls) => builder.tls(tls).build(),
            None => builder.build(),
        }
    }

    /// Trusts this server.
    fn trust(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).unwrap();
        trust(roots)
    }

    /// Trusts this server, and has its certificate, too.
    fn trust_and_present(&self) -> Arc<ClientConfig> {
        self.trust_as(&self.certificate, &self.key)
    }

    /// Trusts this server, and has a certificate.
    fn trust_as(&self, certificate: &rcgen::Certificate, key: &rcgen::KeyPair) -> Arc<ClientConfig> {
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let key =
            CertifiedKey::from_der(vec![certificate.der().clone()], key, &aws_lc_rs::default_provider());
        let mut config = ClientConfig::clone(&self.trust());
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(key.unwrap()));
        Arc::new(config)
    }
}

fn free_port() -> String {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    free.local_addr().unwrap().port().to_string()
}

fn trust(roots: RootCertStore) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test]
async fn limits_are_shared_over_tls() {
    let secured = Secured::start().await;
    let (store, driver) = secured.store("localhost", Some(secured.trust()));
    let driver = tokio::spawn(driver.run());
    eventually(|| store.status().is_reachable).await;
    let per_day = Limit::requests_per_day(10);
    let limiter = store.limiter("quota", policy([per_day.clone()]));
    assert_eq!(admitted(&limiter, "alice", 8).await, 8);
    let plain = secured.servers[0].replica().await;
    let limiter = plain.store.limiter("quota", policy([per_day]));
    assert_eq!(admitted(&limiter, "alice", 8).await, 2, "both are at the same levels");
    driver.abort();
}

#[tokio::test]
async fn a_server_that_proves_nothing_is_not_asked() {
    let secured = Secured::start().await;
    for (host, tls) in [
        ("127.0.0.1", Some(secured.trust())),
        ("localhost", Some(trust(RootCertStore::empty()))),
        ("localhost", None),
    ] {
        let (store, driver) = secured.store(host, tls);
        let driver = tokio::spawn(driver.run());
        eventually(|| store.status().fault == Some(StoreFault::Tls)).await;
        assert!(!store.status().is_reachable);
        driver.abort();
    }
}

#[tokio::test]
async fn a_server_that_trusts_no_certificate_of_ours_is_told_apart_from_one_that_is_away() {
    let secured = Secured::start_with(1, &["--tls-auth-clients", "yes"]).await;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for tls in [secured.trust(), secured.trust_as(&other.cert, &other.signing_key)] {
        let (store, driver) = secured.store("localhost", Some(tls));
        let driver = tokio::spawn(driver.run());
        eventually(|| store.status().fault == Some(StoreFault::Tls)).await;
        driver.abort();
    }
}

#[tokio::test]
async fn a_certificate_for_the_server_may_come_later() {
    let secured = Secured::start_with(1, &["--tls-auth-clients", "yes"]).await;
    let current = Arc::new(Mutex::new(Ok(secured.trust())));
    let url = format!("rediss://localhost:{}/0", secured.servers[0].option("--tls-port")).parse().unwrap();
    let builder = RedisStore::builder(url).command_timeout(Duration::from_secs(1));
    let read = Arc::clone(&current);
    let (store, driver) =
        builder.tls_from(move || read.lock().unwrap().clone().map_err(io::Error::from)).build();
    let driver = tokio::spawn(driver.run());
    eventually(|| store.status().fault == Some(StoreFault::Tls)).await;
    *current.lock().unwrap() = Err(io::ErrorKind::NotFound);
    eventually(|| store.status().fault == Some(StoreFault::Unreadable)).await;
    *current.lock().unwrap() = Ok(secured.trust_and_present());
    eventually(|| store.status().is_reachable).await;
    driver.abort();
}

#[tokio::test]
async fn the_nodes_of_a_cluster_prove_to_be_the_host_of_its_url() {
    let options = ["--cluster-enabled", "yes", "--tls-cluster", "yes"];
    let secured = Secured::start_with(2, &options).await;
    for (server, slots) in secured.servers.iter().zip(["0 8191", "8192 16383"]) {
        assert_eq!(server.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}")).await, "+OK\r\n");
    }
    let [one, other] = &secured.servers[..] else { panic!() };
    let (port, bus) = (other.option("--tls-port"), other.option("--cluster-port"));
    other.ask("CLUSTER SET-CONFIG-EPOCH 2").await;
    one.ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}")).await;
    // Each is known by its address, which no certificate is for.
    let (store, driver) = secured.store("localhost", Some(secured.trust()));
    let driver = tokio::spawn(driver.run());
    let begun = Instant::now();
    while !store.status().is_reachable || store.status().nodes < 2 {
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", store.status());
        sleep(Duration::from_millis(20)).await;
    }
    let limiter = store.limiter("quota", policy([Limit::requests_per_minute(100)]));
    // So many are of one node only with a chance of one in 2^63.
    for caller in 0..64 {
        assert_eq!(admitted(&limiter, &format!("caller-{caller}"), 1).await, 1);
    }
    for server in &secured.servers {
        assert!(server.calls("evalsha").await > 0);
    }
    driver.abort();
}
