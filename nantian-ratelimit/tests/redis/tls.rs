//! A server that is reached over TLS.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use nantian_ratelimit::redis::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};
use nantian_ratelimit::redis::{RedisDriver, RedisStore, StoreFault};
use nantian_ratelimit::{Limit, LimitName, Unit};
use rcgen::CertifiedKey;
use tempfile::TempDir;

use crate::server::{Server, admitted, eventually, policy};

/// A server that also listens with TLS, as `localhost`.
struct Secured {
    server: Server,
    certificate: rcgen::Certificate,
    _files: TempDir,
}

impl Secured {
    async fn start() -> Self {
        let CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TempDir::new().unwrap();
        let file = |name: &str, content: String| {
            let path = files.path().join(name);
            fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let (certificate, key) = (file("cert.pem", cert.pem()), file("key.pem", signing_key.serialize_pem()));
        let server = Server::start_with(|| {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = free.local_addr().unwrap().port().to_string();
            drop(free);
            let options = ["--tls-port", &port, "--tls-auth-clients", "no", "--tls-cert-file", &certificate]
                .into_iter()
                .chain(["--tls-key-file", &key, "--tls-ca-cert-file", &certificate]);
            options.map(str::to_owned).collect()
        });
        Self { server: server.await, certificate: cert, _files: files }
    }

    fn store(&self, host: &str, tls: Option<Arc<ClientConfig>>) -> (RedisStore, RedisDriver) {
        let url = format!("rediss://{host}:{}/0", self.server.option("--tls-port")).parse().unwrap();
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
    let name = LimitName::new("requests-per-day").unwrap();
    let per_day = Limit::new(name, Unit::Requests, 10, Duration::from_secs(24 * 3600));
    let limiter = store.limiter("quota", policy([per_day.clone()]));
    assert_eq!(admitted(&limiter, "alice", 8).await, 8);
    let plain = secured.server.replica().await;
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
