//! Where references may lead that teams write who need not trust one another.

use super::Cluster;
use crate::support::{Backend, chat, eventually, manifests, plugin, rule, to, to_ai};

/// What leads to `backend` by a name or a URL: a Service that is a name, one whose endpoint is a name, and an
/// AIService.
fn leading_to(backend: &Backend) -> String {
    let port = backend.address.port();
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: named, namespace: demo}}
spec: {{type: ExternalName, externalName: localhost, ports: [{{port: 80, targetPort: {port}}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: fqdn, namespace: demo}}
spec: {{ports: [{{port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: fqdn-1, namespace: demo, labels: {{kubernetes.io/service-name: fqdn}}}}
addressType: FQDN
ports: [{{port: {port}}}]
endpoints: [{{addresses: [localhost]}}]
---
apiVersion: gateway.nantian.dev/v1alpha1
kind: AIService
metadata: {{name: llm, namespace: demo}}
spec: {{provider: ollama, model: m, endpoint: 'http://127.0.0.1:{port}'}}
"
    )
}

#[tokio::test]
async fn no_reference_in_a_cluster_leads_to_the_gateways_own_machine() {
    let (backend, inside) = (Backend::echo("a").await, Backend::echo("inside").await);
    let cluster = Cluster::start(&backend).await;
    cluster.server.apply(&nantian_crd::crds_yaml());
    cluster.server.apply(&leading_to(&inside));
    let rules = [rule("/named", &to("named")), rule("/fqdn", &to("fqdn")), rule("/v1", &to_ai("llm"))];
    for (name, rule) in ["named", "fqdn", "llm"].into_iter().zip(rules) {
        cluster.server.apply(&manifests::route(name, "", &[rule]));
    }
    cluster.becomes("/named", 500).await;
    cluster.becomes("/fqdn", 500).await;
    eventually("the AIService is asked", async || {
        cluster.gateway.connect().await.ask(chat("h", false)).await.status() == 502
    })
    .await;
    let url = format!("url: \"http://{}/plugin.wasm\"", inside.address);
    cluster.server.apply(&plugin("all", &url));
    eventually("it is told why the plugin has no module", async || {
        let told = cluster.gateway.config().await["conditions"]["WasmPlugin demo/all"].to_string();
        told.contains("FetchFailed") && told.contains("--plugin-sources")
    })
    .await;
    assert_eq!(inside.connections(), 0);
    let conditions = cluster.gateway.config().await["conditions"].clone();
    for (route, why) in [
        ("named", "Service demo/named is of type ExternalName, which is not served in a cluster"),
        (
            "fqdn",
            "Service demo/fqdn has EndpointSlices of addressType FQDN alone, which are not served in a cluster",
        ),
    ] {
        let told = conditions[format!("HTTPRoute demo/{route}")].to_string();
        assert!(told.contains("InvalidKind") && told.contains(why), "{told}");
    }

    for name in ["named", "fqdn"] {
        cluster.server.apply(&manifests::service(name, "http", &[&inside]));
        cluster.becomes(&format!("/{name}"), 200).await;
    }
}
