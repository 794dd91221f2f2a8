//! TLS to the providers of AIServices.

use crate::support::{
    Backend, Certificate, Port, Running, World, backend_tls_policy, chat, llm, manifests, rule, said, to_ai,
    trusting_authority as trusting,
};

/// A provider behind TLS, which can speak HTTP/2 as well.
async fn provider(config: std::sync::Arc<rustls::ServerConfig>) -> Backend {
    let answer = r#"{"id":"x","object":"chat.completion","model":"m","choices":[]}"#;
    Backend::tls_answering(config, move |_| said("application/json", answer)).await
}

/// The AIService `llm` at `https://localhost`, on the port of `provider`.
fn service(provider: &Backend) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: llm, namespace: demo}}
spec: {{provider: openai, model: m, endpoint: 'https://localhost:{}/v1', auth: {{type: none}}}}
",
        provider.address.port()
    )
}

/// Adds the AIService, and `certificate` as the authority `ca`.
fn with_llm(world: World, provider: &Backend, certificate: &Certificate) -> World {
    let world = world.manifest("llm", &service(provider)).manifest("ca", &certificate.authority("ca"));
    world.route("llm", &[rule("/", &to_ai("llm"))])
}

fn world(provider: &Backend, certificate: &Certificate) -> World {
    with_llm(World::new(), provider, certificate)
}

/// A BackendTLSPolicy for the AIService.
fn policy(validation: &str) -> String {
    backend_tls_policy("llm", "", validation)
        .replace("group: '', kind: Service", "group: gateway.nantian.dev, kind: AIService")
}

async fn status(gateway: &Running) -> u16 {
    gateway.ask(chat("llm.example", false)).await.status()
}

#[tokio::test]
async fn a_provider_is_verified_by_the_host_of_its_endpoint_and_the_roots_of_the_system() {
    let certificate = Certificate::new(&["localhost"]);
    let provider = provider(certificate.server_offering(&["h2", "http/1.1"])).await;
    let roots = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(roots.path(), certificate.pem()).unwrap();
    let gateway = world(&provider, &certificate)
        .variable("SSL_CERT_FILE", roots.path().to_str().unwrap())
        .start()
        .await;
    assert_eq!(status(&gateway).await, 200);
    assert_eq!(
        provider.last().header("host"),
        Some(format!("localhost:{}", provider.address.port()).as_str())
    );

    gateway.edit("tls", &policy(&trusting("ca", "llm.internal"))).await;
    assert_eq!(status(&gateway).await, 502, "a policy wants another name");
    assert_eq!(provider.seen().len(), 1, "and nothing arrives");
}

#[tokio::test]
async fn a_policy_says_who_a_provider_is_and_lets_nothing_through_where_it_cannot() {
    let certificate = Certificate::new(&["llm.internal"]);
    let provider = provider(certificate.server()).await;
    let gateway = world(&provider, &certificate).start().await;
    assert_eq!(status(&gateway).await, 502, "its authority is not known to the system");
    gateway.edit("tls", &policy(&trusting("ca", "llm.internal"))).await;
    assert_eq!(status(&gateway).await, 200);
    for kind in ["Accepted", "ResolvedRefs"] {
        assert_eq!(gateway.condition("BackendTLSPolicy demo/llm", kind).await["status"], "True", "{kind}");
    }
    gateway.edit("tls", &policy(&trusting("nowhere", "llm.internal"))).await;
    assert_eq!(status(&gateway).await, 500);
    assert_eq!(provider.seen().len(), 1, "nothing has arrived");
    gateway.edit("nowhere", &certificate.authority("nowhere")).await;
    assert_eq!(status(&gateway).await, 200, "what was missing has come");
    gateway.edit("tls", "").await;
    assert_eq!(status(&gateway).await, 502);
}

#[tokio::test]
async fn connections_outlive_an_edit_that_is_not_of_the_policy() {
    let certificate = Certificate::new(&["llm.internal"]);
    let provider = provider(certificate.server()).await;
    let world = world(&provider, &certificate);
    let gateway = world.manifest("tls", &policy(&trusting("ca", "llm.internal"))).start().await;
    // One worker's.
    let mut wire = gateway.connect().await;
    assert_eq!(wire.ask(chat("llm.example", false)).await.status(), 200);
    let retrying = service(&provider).replace("auth:", "retry: {maxRetries: 1}, auth:");
    gateway.edit("llm", &retrying).await;
    assert_eq!(wire.ask(chat("llm.example", false)).await.status(), 200);
    assert_eq!(provider.connections(), 1);
}

#[tokio::test]
async fn a_policy_puts_an_endpoint_in_clear_text_behind_tls() {
    let certificate = Certificate::new(&["llm.internal"]);
    let provider = provider(certificate.server()).await;
    let gateway = llm(&provider, "")
        .manifest("ca", &certificate.authority("ca"))
        .manifest("tls", &policy(&trusting("ca", "llm.internal")))
        .start()
        .await;
    assert_eq!(status(&gateway).await, 200);
}

#[tokio::test]
async fn a_provider_that_asks_for_a_certificate_is_shown_that_of_the_gateway() {
    let (certificate, own) = (Certificate::new(&["llm.internal"]), Certificate::new(&["gateway"]));
    let provider = provider(certificate.server_for(&own)).await;
    let port = Port::reserve();
    let listener = port.listener("http", "protocol: HTTP");
    let tls = "  tls: {backend: {clientCertificateRef: {name: own}}}\n";
    let with_certificate = manifests::gateway(std::slice::from_ref(&listener)) + tls;
    let gateway = with_llm(World::with_listeners(port, &[listener]), &provider, &certificate)
        .manifest("own", &own.secret("own"))
        .manifest("tls", &policy(&trusting("ca", "llm.internal")))
        .start()
        .await;
    assert_eq!(status(&gateway).await, 502);
    gateway.edit("gateway", &with_certificate).await;
    assert_eq!(status(&gateway).await, 200);
}
