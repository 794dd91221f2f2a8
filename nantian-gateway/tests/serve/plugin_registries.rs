//! Modules in OCI registries, and the credentials that these want.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nantian_wasm::Digest;

use crate::{
    plugins::{add_header, ok},
    support::{Backend, Message, Running, World, eventually, plugin, rule, to},
};

/// A tar archive, compressed, as container images have it.
fn layer(name: &str, content: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    let padding = vec![0; content.len().next_multiple_of(512) - content.len() + 1024];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&[&header[..], content, &padding].concat()).unwrap();
    gzip.finish().unwrap()
}

/// Who a registry gives modules to.
#[derive(Clone, Copy)]
pub(crate) enum Door {
    /// Whoever has asked for a token.
    Open,
    /// Whoever gets one with this `Authorization`.
    Token(&'static str),
    /// Whoever has this `Authorization`.
    Basic(&'static str),
}

fn refuse(challenge: &str) -> Vec<u8> {
    let head = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nwww-authenticate: ";
    format!("{head}{challenge}\r\n\r\n").into_bytes()
}

/// Answers as a registry does (OCI distribution specification 1.1): nothing to who is not let in, an index
/// for the tag, manifests and layers by digest.
fn registry(request: &Message, door: Door, layers: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (host, authorization) = (request.header("host").unwrap(), request.header("authorization"));
    let target = request.start.split(' ').nth(1).unwrap();
    if let Some(query) = target.strip_prefix("/token?") {
        assert_eq!(query, "service=registry&scope=repository:team/plugin:pull");
        return match door {
            Door::Token(wanted) if authorization != Some(wanted) => refuse("Basic realm=\"tokens\""),
            Door::Token(_) => ok(br#"{"access_token": "pass"}"#),
            // As Docker Hub answers.
            _ => ok(br#"{"token": "pass", "access_token": "pass", "expires_in": 300}"#),
        };
    }
    match door {
        Door::Basic(wanted) if authorization != Some(wanted) => return refuse("Basic realm=\"registry\""),
        Door::Open | Door::Token(_) if authorization != Some("Bearer pass") => {
            return refuse(&format!(
                "Bearer realm=\"http://{host}/token\",service=\"registry\",scope=\"pull\""
            ));
        }
        _ => {}
    }
    let described = layers.iter().map(|(media_type, bytes)| {
        format!("{{\"mediaType\": \"{media_type}\", \"digest\": \"sha256:{}\"}}", Digest::of(bytes))
    });
    let manifest = format!("{{\"layers\": [{}]}}", described.collect::<Vec<_>>().join(","));
    let digest = format!("sha256:{}", Digest::of(manifest.as_bytes()));
    let (what, reference) = target.strip_prefix("/v2/team/plugin/").unwrap().split_once('/').unwrap();
    match (what, reference) {
        ("manifests", "1.0") => ok(format!("{{\"manifests\": [{{\"digest\": \"{digest}\"}}]}}").as_bytes()),
        ("manifests", reference) if reference == digest => ok(manifest.as_bytes()),
        ("blobs", reference) => {
            let found = layers.iter().find(|(_, bytes)| format!("sha256:{}", Digest::of(bytes)) == reference);
            ok(&found.unwrap().1)
        }
        _ => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
    }
}

#[tokio::test]
async fn modules_are_pulled_from_a_registry_with_a_token_as_artifact_or_as_image() {
    let artifact = vec![("application/vnd.module.wasm.content.layer.v1+wasm", add_header())];
    let image = vec![
        ("application/vnd.oci.image.layer.v1.tar+gzip", layer("etc/passwd", b"root")),
        ("application/vnd.oci.image.layer.v1.tar+gzip", layer("plugin.wasm", &add_header())),
    ];
    // What is told of a module is no module, wherever it stands.
    let described = vec![
        ("application/vnd.module.wasm.config.v1+json", b"{}".to_vec()),
        ("application/vnd.module.wasm.content.layer.v1+wasm", add_header()),
    ];
    let higress = vec![
        ("application/vnd.module.wasm.spec.v1+yaml", b"apiVersion: 1.0.0".to_vec()),
        ("application/vnd.module.wasm.doc.v1+markdown", b"# Plugin".to_vec()),
        ("application/vnd.oci.image.layer.v1.tar+gzip", layer("plugin.wasm", &add_header())),
    ];
    for layers in [artifact, image, described, higress] {
        let origin = Backend::answering(move |request| registry(request, Door::Open, &layers)).await;
        let backend = Backend::echo("a").await;
        let gateway = World::of_backend(&backend)
            .manifest("plugin", &plugin("r", &format!("url: \"oci://{}/team/plugin:1.0\"", origin.address)))
            .start()
            .await;
        eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
        assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
        let asked = origin.seen().iter().filter(|request| request.start.contains("/token?")).count();
        assert_eq!(asked, 1, "one token serves index, manifest and layer");
    }
}

/// `robot:sk-registry`, as a registry is told.
pub(crate) const ROBOT: &str = "Basic cm9ib3Q6c2stcmVnaXN0cnk=";

/// A registry with the module in it.
pub(crate) async fn guarded(door: Door) -> Backend {
    let layers = [("application/vnd.module.wasm.content.layer.v1+wasm", add_header())];
    Backend::answering(move |request| registry(request, door, &layers)).await
}

/// A Secret as `kubectl create secret docker-registry` makes it.
pub(crate) fn pull_secret(registry: &str, password: &str) -> String {
    let auth = BASE64_STANDARD.encode(format!("robot:{password}"));
    let config = format!(r#"{{"auths":{{"{registry}":{{"auth":"{auth}"}}}}}}"#);
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{name: registry, namespace: demo}}
type: kubernetes.io/dockerconfigjson
data: {{.dockerconfigjson: {}}}
",
        BASE64_STANDARD.encode(config)
    )
}

async fn pulling(origin: &Backend, backend: &Backend, secret: Option<&str>) -> Running {
    let wasm = format!("url: \"oci://{}/team/plugin:1.0\", imagePullSecret: registry", origin.address);
    let world =
        World::of_backend(backend).manifest("plugin", &plugin("r", &wasm)).options(&["--log-level", "debug"]);
    match secret {
        Some(secret) => world.manifest("secret", secret).start().await,
        None => world.start().await,
    }
}

#[tokio::test]
async fn credentials_of_the_pull_secret_open_a_registry_and_are_shown_nowhere() {
    for door in [Door::Basic(ROBOT), Door::Token(ROBOT)] {
        let (origin, backend) = (guarded(door).await, Backend::echo("a").await);
        let registry = origin.address.to_string();
        let gateway = pulling(&origin, &backend, Some(&pull_secret(&registry, "sk-registry"))).await;
        eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
        assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
        eventually("its status follows", async || {
            gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
        })
        .await;
        assert_eq!(gateway.condition("WasmPlugin demo/r", "ResolvedRefs").await["status"], "True");
        assert_eq!(gateway.log.count("WasmPlugin demo/r is served"), 1);
        let log = gateway.log.text();
        let awaited = log.lines().filter(|line| line.contains("the module is being fetched"));
        assert!(awaited.into_iter().all(|line| line.contains("INFO")), "{log}");
        let config = gateway.config().await;
        assert_eq!(config["ir"]["plugins"]["demo/r"]["credentials"], "[redacted]");
        for shown in [config.to_string(), gateway.log.text()] {
            for secret in ["sk-registry", "cm9ib3Q6c2stcmVnaXN0cnk"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
    }
}

#[tokio::test]
async fn plugin_is_shut_until_its_pull_secret_is_there_and_lets_the_gateway_in() {
    let (origin, backend) = (guarded(Door::Basic(ROBOT)).await, Backend::echo("a").await);
    let registry = origin.address.to_string();
    let gateway = pulling(&origin, &backend, None).await;
    let condition = async |kind: &'static str| gateway.condition("WasmPlugin demo/r", kind).await;
    for (secret, words) in [
        (None, "Secret demo/registry does not exist"),
        (Some(pull_secret("elsewhere.test", "sk-registry")), "has no credentials for the registry"),
        (Some(pull_secret(&registry, "x").replace(".dockerconfigjson:", "other:")), "has no entry"),
    ] {
        if let Some(secret) = secret {
            gateway.edit("secret", &secret).await;
        }
        let resolved = condition("ResolvedRefs").await;
        assert_eq!((&resolved["status"], &resolved["reason"]), (&"False".into(), &"SecretNotFound".into()));
        assert!(resolved["message"].to_string().contains(words), "{resolved}");
        assert_eq!(condition("Programmed").await["reason"], "SecretNotFound");
        assert_eq!(gateway.get("/").await.status(), 503);
    }
    assert!(origin.seen().is_empty(), "nobody is asked without the credentials");

    gateway.edit("secret", &pull_secret(&registry, "sk-wrong")).await;
    eventually("the registry refuses", async || condition("Programmed").await["reason"] == "FetchFailed")
        .await;
    assert_eq!(gateway.get("/").await.status(), 503);
    gateway.edit("secret", &pull_secret(&registry, "sk-registry")).await;
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
}

#[tokio::test]
async fn new_password_of_a_registry_fetches_and_restarts_nothing_that_runs() {
    let (origin, backend) = (guarded(Door::Basic(ROBOT)).await, Backend::echo("a").await);
    let registry = origin.address.to_string();
    let gateway = pulling(&origin, &backend, Some(&pull_secret(&registry, "sk-registry"))).await;
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
    let is_programmed =
        async || gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True";
    eventually("its status follows", is_programmed).await;
    let asked = origin.seen().len();
    // What the registry would refuse.
    gateway.edit("secret", &pull_secret(&registry, "sk-rotated")).await;
    assert!(is_programmed().await);
    let wasm = format!("url: \"oci://{registry}/team/plugin:1.0\", imagePullSecret: registry");
    let edited = plugin("r", &wasm).replace("  wasm:", "  config: edited\n  wasm:");
    gateway.edit("plugin", &edited).await;
    eventually("the edit runs", is_programmed).await;
    assert_eq!((gateway.get("/").await.status(), origin.seen().len()), (200, asked));
}

#[tokio::test]
async fn module_that_one_plugin_may_have_is_not_given_to_another() {
    let (origin, backend) = (guarded(Door::Basic(ROBOT)).await, Backend::echo("a").await);
    let registry = origin.address.to_string();
    let gateway = pulling(&origin, &backend, Some(&pull_secret(&registry, "sk-registry"))).await;
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
    let stranger = plugin("other", &format!("url: \"oci://{registry}/team/plugin:1.0\""));
    gateway.edit("stranger", &stranger).await;
    gateway.edit("route-other", &crate::support::route("other", "", &[rule("/other", &to("a"))])).await;
    eventually("it is refused", async || {
        gateway.condition("WasmPlugin demo/other", "Programmed").await["reason"] == "FetchFailed"
    })
    .await;
    assert_eq!(gateway.get("/other").await.status(), 503);
    assert_eq!(gateway.get("/").await.status(), 200);
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() {
    let stranger = Backend::answering(|_| ok(b"no module")).await;
    let (asked, elsewhere) = (Arc::<AtomicUsize>::default(), stranger.address);
    let origin = Backend::answering({
        let asked = Arc::clone(&asked);
        move |request| {
            if request.header("authorization") != Some(ROBOT) {
                return refuse("Basic realm=\"registry\"");
            }
            asked.fetch_add(1, Relaxed);
            format!("HTTP/1.1 307 Elsewhere\r\nlocation: http://{elsewhere}/\r\ncontent-length: 0\r\n\r\n")
                .into()
        }
    })
    .await;
    let backend = Backend::echo("a").await;
    let secret = pull_secret(&origin.address.to_string(), "sk-registry");
    let wasm = format!("url: \"oci://{}/team/plugin:1.0\", imagePullSecret: registry", origin.address);
    let gateway = World::of_backend(&backend)
        .manifest("secret", &secret)
        .manifest("plugin", &plugin("r", &wasm))
        // A redirect leads nowhere on this machine unless the operator says so.
        .options(&["--plugin-sources", "127.0.0.0/8"])
        .start()
        .await;
    eventually("the redirect was followed", async || !stranger.seen().is_empty()).await;
    assert!(asked.load(Relaxed) > 0);
    assert!(stranger.seen().iter().all(|request| request.header("authorization").is_none()));
    assert_eq!(gateway.get("/").await.status(), 503);
}
