//! Secrets and ConfigMaps are read when something refers to them.

use super::ApiServer;
use crate::{
    support::{Certificate, Port, Running, World, eventually, manifests},
    tls::{handshake, https, presented},
};

/// The path at which Secrets of the namespace `demo` are read.
const READ: &str = "/api/v1/namespaces/demo/secrets";

/// The Gateway `demo`, whose certificate is in this Secret.
fn gateway(port: &Port, secret: &str) -> String {
    manifests::gateway(&[https(port, "https", "", &[secret])])
}

/// Whether clients are shown this certificate.
async fn shows(gateway: &Running, certificate: &Certificate) -> bool {
    let stream = handshake(gateway, "a.example.org", &[certificate], &[]).await;
    stream.is_ok_and(|stream| presented(&stream) == certificate.der())
}

fn certificate() -> Certificate {
    Certificate::new(&["a.example.org"])
}

#[tokio::test]
async fn a_certificate_is_shown_until_the_next_one_that_is_referred_to_is_read() {
    let (one, two, three) = (certificate(), certificate(), certificate());
    let (server, port) = (ApiServer::start().await, Port::reserve());
    server.apply(&one.secret("one"));
    server.apply(&two.secret("two"));
    server.apply(&gateway(&port, "one"));
    let edited = gateway(&port, "two");
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    assert!(shows(&gateway, &one).await, "it is not ready before");
    assert_eq!(server.requests(READ), 1, "nothing refers to the other one");

    // The watch goes on.
    server.set_hidden(&["secrets"]);
    server.apply(&edited);
    eventually("it is tried twice", async || server.requests(READ) > 2).await;
    assert!(shows(&gateway, &one).await);
    server.set_hidden(&[]);
    eventually("the next one is shown", async || shows(&gateway, &two).await).await;

    server.apply(&three.secret("two"));
    eventually("an edit is shown", async || shows(&gateway, &three).await).await;
    server.delete("secrets", "demo", "two");
    eventually("it is gone", async || !shows(&gateway, &three).await).await;
    server.apply(&two.secret("two"));
    eventually("it is there again", async || shows(&gateway, &two).await).await;
}

#[tokio::test]
async fn secrets_that_nothing_refers_to_take_no_memory() {
    let (one, two) = (certificate(), certificate());
    let (server, port) = (ApiServer::start().await, Port::reserve());
    server.apply(&one.secret("one"));
    server.apply(&gateway(&port, "one"));
    let gateway = World::of_cluster(port, &server.kubeconfig()).start().await;
    assert!(shows(&gateway, &one).await);
    let before = gateway.memory();
    let megabyte = "A".repeat(1 << 20);
    for number in 0..64 {
        server.apply(&format!(
            "{{apiVersion: v1, kind: Secret, metadata: {{name: large-{number}, namespace: demo}}, data: {{a: {megabyte}}}}}"
        ));
    }
    // It is told of after all others.
    server.apply(&two.secret("one"));
    eventually("all are seen", async || shows(&gateway, &two).await).await;
    let more = gateway.memory().saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes");
}
