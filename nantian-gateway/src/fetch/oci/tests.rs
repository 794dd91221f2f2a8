use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rcgen::{CertifiedKey, KeyPair};
use rustls::{RootCertStore, ServerConfig};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::{sync::lock, tenancy::Tenancy};

const MODULE: &str = "\0asm";

/// What a server was asked for, and with which `Authorization`.
type Asked = (String, Option<String>);

/// A server, and what it was asked for.
struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// A server whose answers follow from its address, what it is asked for, and with which `Authorization`.
    async fn start(
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(SocketAddr, &str, Option<&str>) -> String + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<_>>>::default());
        let log = Arc::clone(&asked);
        crate::runtime::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = |target: &str, authorization: Option<&str>| {
                    lock(&log).push((target.to_owned(), authorization.map(str::to_owned)));
                    answer(address, target, authorization)
                };
                match &tls {
                    Some(tls) => {
                        let stream = TlsAcceptor::from(Arc::clone(tls)).accept(stream).await.unwrap();
                        Box::pin(exchange(stream, answer)).await;
                    }
                    None => Box::pin(exchange(stream, answer)).await,
                }
            }
        });
        Self { address, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(&str, Option<&str>) -> String,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
        // A record of TLS: to close with bytes unread would take the answer back.
        if head == [0x16] {
            let _ = stream.read(&mut [0; 16 << 10]).await;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n").await.unwrap();
            return;
        }
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap();
    let authorization = head.lines().find_map(|line| line.strip_prefix("authorization: "));
    stream.write_all(answer(target, authorization).as_bytes()).await.unwrap();
    let _ = stream.shutdown().await;
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn refusal(challenges: &str) -> String {
    format!("HTTP/1.1 401 Unauthorized\r\n{challenges}\r\ncontent-length: 0\r\n\r\n")
}

fn redirect(elsewhere: SocketAddr, target: &str) -> String {
    format!("HTTP/1.1 307 Elsewhere\r\nlocation: http://{elsewhere}{target}\r\ncontent-length: 0\r\n\r\n")
}

fn manifest() -> String {
    let digest = Digest::of(MODULE.as_bytes());
    format!(r#"{{"layers": [{{"digest": "sha256:{digest}"}}]}}"#)
}

/// The manifest, or its only layer.
fn repository(target: &str) -> String {
    if target.contains("/manifests/") { ok(&manifest()) } else { ok(MODULE) }
}

/// A client that asks this machine, and trusts one certificate.
fn client(key: &CertifiedKey<KeyPair>) -> Client {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let mut roots = RootCertStore::empty();
    roots.add(key.cert.der().clone()).unwrap();
    let tls = Arc::new(tls.unwrap().with_root_certificates(roots).with_no_client_auth());
    let (networks, silence) = ("127.0.0.0/8".parse().unwrap(), Duration::from_secs(30));
    Client { networks, tenancy: Tenancy::Single, tls, silence }
}

fn key() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "::ffff:127.0.0.1".to_owned()]).unwrap()
}

fn with_tls(key: &CertifiedKey<KeyPair>) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let private = key.signing_key.serialize_der().try_into().unwrap();
    Arc::new(
        tls.unwrap().with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap(),
    )
}

/// A registry's own name, behind which another one stands that has tokens for everybody.
#[tokio::test]
async fn whom_a_registry_redirects_to_is_told_of_its_own_token_and_of_no_credentials() {
    let key = key();
    let tokens = Server::start(Some(with_tls(&key)), |_, _, _| ok(r#"{"token": "anybody"}"#)).await;
    let challenge = format!(
        "www-authenticate: Bearer realm=\"https://{}/token\",service=\"s\",scope=\"repository:real/name:pull\"",
        tokens.address
    );
    let real = Server::start(None, move |_, target, authorization| match authorization {
        Some("Bearer anybody") => repository(target),
        _ => refusal(&challenge),
    })
    .await;
    let elsewhere = real.address;
    let named = Server::start(None, move |_, target, _| redirect(elsewhere, target)).await;
    let credentials = Secret(b"robot:sk".to_vec());
    for credentials in [None, Some(&credentials)] {
        let reference = format!("{}/team/plugin:1", named.address);
        assert_eq!(pull(&client(&key), &reference, credentials, false).await.unwrap(), MODULE);
    }
    let of_token = ("/token?service=s&scope=repository:real/name:pull".to_owned(), None);
    assert_eq!(tokens.asked(), [of_token.clone(), of_token]);
    assert!(named.asked().iter().all(|(_, authorization)| authorization.is_none()));
    let basic = real.asked().into_iter().filter_map(|(_, told)| told).find(|told| told.starts_with("Basic"));
    assert_eq!(basic, None);
}

#[tokio::test]
async fn server_that_leads_to_others_without_end_has_few_tokens_kept() {
    let key = key();
    let tokens = Server::start(None, |_, _, _| ok(r#"{"token": "anybody"}"#)).await;
    let challenge =
        format!("www-authenticate: Bearer realm=\"http://{}/token\",service=\"s\"", tokens.address);
    let mut next = None;
    for _ in 0..5 {
        let (challenge, elsewhere) = (challenge.clone(), next.as_ref().map(|server: &Server| server.address));
        let answer = move |_, target: &str, authorization: Option<&str>| match (authorization, elsewhere) {
            (Some(_), Some(elsewhere)) => redirect(elsewhere, target),
            _ => refusal(&challenge),
        };
        next = Some(Server::start(None, answer).await);
    }
    let reference = format!("{}/team/plugin:1", next.unwrap().address);
    let error = pull(&client(&key), &reference, None, false).await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
    assert_eq!(tokens.asked().len(), MAX_AUTHORIZATIONS);
}

#[tokio::test]
async fn token_that_is_no_token_is_not_kept() {
    let key = key();
    let long = "t".repeat(MAX_TOKEN);
    let registry = Server::start(None, move |own, target, authorization| match authorization {
        _ if target.starts_with("/token") => ok(&format!(r#"{{"token": "{long}"}}"#)),
        Some(_) => repository(target),
        None => refusal(&format!("www-authenticate: Bearer realm=\"http://{own}/token\",service=\"r\"")),
    })
    .await;
    let reference = format!("{}/team/plugin:1", registry.address);
    let error = pull(&client(&key), &reference, None, false).await.unwrap_err();
    assert!(error.to_string().contains("credentials"), "{error}");
}

#[tokio::test]
async fn store_behind_a_registry_that_refuses_is_not_blamed_on_the_credentials() {
    let key = key();
    let store = Server::start(None, |_, _, _| refusal("www-authenticate: Basic realm=\"s\"")).await;
    let elsewhere = store.address;
    let registry = Server::start(None, move |_, target, _| match target.contains("/manifests/") {
        true => repository(target),
        false => redirect(elsewhere, target),
    })
    .await;
    let reference = format!("{}/team/plugin:1", registry.address);
    let error = pull(&client(&key), &reference, None, false).await.unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
}

#[tokio::test]
async fn challenge_is_answered_that_can_be() {
    for challenges in [
        "www-authenticate: Basic realm=\"r\"\r\nwww-authenticate: Bearer REALM",
        "www-authenticate: Negotiate, Basic realm=\"r\", Bearer REALM",
    ] {
        let registry = Server::start(None, move |own, target, authorization| match authorization {
            _ if target.starts_with("/token") => ok(r#"{"token": "anybody"}"#),
            Some("Bearer anybody" | "Basic cm9ib3Q6c2s=") => repository(target),
            _ => {
                refusal(&challenges.replace("REALM", &format!("realm=\"http://{own}/token\",service=\"r\"")))
            }
        })
        .await;
        let credentials = Secret(b"robot:sk".to_vec());
        for credentials in [None, Some(&credentials)] {
            let reference = format!("{}/team/plugin:1", registry.address);
            assert_eq!(
                pull(&client(&key()), &reference, credentials, false).await.unwrap(),
                MODULE,
                "{challenges}"
            );
        }
        let tokens = registry.asked().into_iter().filter(|(target, _)| target.starts_with("/token"));
        assert_eq!(tokens.count(), 1, "who has a password shows it");
    }
}

/// This machine by an address that does not say so.
#[tokio::test]
async fn registry_without_tls_is_asked_in_the_networks_of_the_operator_and_without_credentials() {
    let key = key();
    let registry = Server::start(None, |_, target, _| repository(target)).await;
    let reference = format!("[::ffff:127.0.0.1]:{}/team/plugin:1", registry.address.port());
    assert_eq!(pull(&client(&key), &reference, None, true).await.unwrap(), MODULE);
    let asked = registry.asked().len();
    let credentials = Secret(b"robot:sk".to_vec());
    let refused = pull(&client(&key), &reference, Some(&credentials), true).await.unwrap_err();
    assert_eq!(refused.to_string(), "::ffff:127.0.0.1 speaks no TLS");
    assert_eq!(registry.asked().len(), asked);
    let elsewhere = Client { networks: "10.0.0.0/8".parse().unwrap(), ..client(&key) };
    let refused = pull(&elsewhere, &reference, None, true).await.unwrap_err();
    assert!(matches!(refused, FetchError::Denied { .. }), "{refused}");
}

/// Whoever is on the way can make a registry seem to speak no TLS.
#[tokio::test]
async fn registry_without_tls_is_asked_for_what_a_digest_pins_alone() {
    let key = key();
    let registry = Server::start(None, |_, target, _| repository(target)).await;
    let by = |version: &str| format!("[::ffff:127.0.0.1]:{}/team/plugin{version}", registry.address.port());
    let refused = pull(&client(&key), &by(":1"), None, false).await.unwrap_err();
    assert!(refused.to_string().ends_with("speaks no TLS, and no sha256 pins the module"), "{refused}");
    assert_eq!(registry.asked(), []);
    let digest = Digest::of(manifest().as_bytes());
    assert_eq!(pull(&client(&key), &by(&format!("@sha256:{digest}")), None, false).await.unwrap(), MODULE);
    let other = Digest::of(b"other");
    for version in [format!("@sha256:{other}"), format!("@sha512:{digest}")] {
        let refused = pull(&client(&key), &by(&version), None, false).await.unwrap_err();
        assert!(matches!(refused, FetchError::Artifact { .. }), "{refused}");
    }
}

/// It has proved who it is; whom it leads to has not.
#[tokio::test]
async fn registry_with_tls_is_not_asked_without_it_where_another_host_speaks_none() {
    let key = key();
    let other = Server::start(None, |_, target, _| repository(target)).await.address;
    let registry = Server::start(Some(with_tls(&key)), move |_, target, _| {
        redirect(other, target).replace("http://", "https://")
    })
    .await;
    let reference = format!("[::ffff:127.0.0.1]:{}/team/plugin:1", registry.address.port());
    let error = pull(&client(&key), &reference, None, true).await.unwrap_err();
    assert_eq!(error.to_string(), "127.0.0.1 speaks no TLS");
}

#[test]
fn references_name_a_tag_a_digest_or_the_latest() {
    assert_eq!(split("team/plugin:1.0"), ("team/plugin", "1.0"));
    assert_eq!(split("team/plugin"), ("team/plugin", "latest"));
    assert_eq!(split("team/plugin@sha256:ab"), ("team/plugin", "sha256:ab"));
    assert_eq!(split("team/plugin:1.0@sha256:ab"), ("team/plugin", "sha256:ab"));
}

#[test]
fn images_of_docker_hub_are_where_they_are() {
    assert_eq!(located("docker.io", "plugin"), ("registry-1.docker.io", "library/plugin".to_owned()));
    assert_eq!(located("docker.io", "team/plugin"), ("registry-1.docker.io", "team/plugin".to_owned()));
    assert_eq!(located("ghcr.io", "team/plugin"), ("ghcr.io", "team/plugin".to_owned()));
}

#[test]
fn what_a_registry_says_of_itself_keeps_its_place_in_the_url_of_the_token() {
    let url = token_url("https://auth.test/token?account=x", "a&scope=b c", "repository:team/plugin:pull");
    assert_eq!(
        url,
        "https://auth.test/token?account=x&service=a%26scope%3Db%20c&scope=repository:team/plugin:pull"
    );
}

#[test]
fn bytes_of_another_digest_are_refused() {
    let digest = format!("sha256:{}", Digest::of(b"module"));
    assert!(verified(Bytes::from_static(b"module"), &digest).is_ok());
    assert!(verified(Bytes::from_static(b"other"), &digest).is_err());
    assert!(verified(Bytes::from_static(b"module"), "md5:00").is_err());
}
