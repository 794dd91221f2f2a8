//! Where plugins come from, and what is shut while they are not there.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use nantian_wasm::Digest;

use crate::support::{Backend, World, eventually, plugin, rule, to};

/// A module that adds the request header `x-wasm-plugin`.
fn add_header() -> Vec<u8> {
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/add_header.wat");
    wat::parse_file(guest).unwrap()
}

fn ok(body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn module_is_fetched_once_and_tried_again_until_it_is_there() {
    let (asked, is_there) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let origin = Backend::answering({
        let (asked, is_there) = (Arc::clone(&asked), Arc::clone(&is_there));
        move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            let is_there = is_there.load(Ordering::Relaxed);
            if is_there {
                ok(&add_header())
            } else {
                b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()
            }
        }
    })
    .await;
    let url =
        format!("url: \"http://{}/plugin.wasm\", sha256: {}", origin.address, Digest::of(&add_header()));
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &plugin("r", &url))
        .start()
        .await;

    assert_eq!(gateway.get("/").await.status(), 503, "closed until the module is there");
    eventually("the failure is told", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["reason"] == "FetchFailed"
    })
    .await;
    is_there.store(true, Ordering::Relaxed);
    eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
    eventually("its status follows", async || {
        gateway.condition("WasmPlugin demo/r", "Programmed").await["status"] == "True"
    })
    .await;

    let asked_before = asked.load(Ordering::Relaxed);
    gateway.edit("plugin", &plugin("r", &url).replace("wasm:", "config: edited\n  wasm:")).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), asked_before, "an edit of the configuration fetches nothing");
}

#[tokio::test]
async fn module_of_another_digest_or_from_a_private_place_is_not_served() {
    let origin = Backend::answering(|_| ok(&add_header())).await;
    let backend = Backend::echo("a").await;
    let wrong = format!("url: \"http://{}/\", sha256: {}", origin.address, Digest::of(b"other"));
    let gateway = World::new()
        .service("a", &[&backend])
        .route("digest", &[rule("/digest", &to("a"))])
        .route("metadata", &[rule("/metadata", &to("a"))])
        .manifest("digest", &plugin("digest", &wrong))
        .manifest("metadata", &plugin("metadata", "url: \"http://169.254.169.254/latest\""))
        .start()
        .await;
    for (path, object, reason, words) in [
        ("/digest", "WasmPlugin demo/digest", "ModuleInvalid", "sha256 is"),
        ("/metadata", "WasmPlugin demo/metadata", "FetchFailed", "never asked"),
    ] {
        eventually(path, async || gateway.condition(object, "Programmed").await["reason"] == reason).await;
        let message = gateway.condition(object, "Programmed").await["message"].to_string();
        assert!(message.contains(words), "{message}");
        assert_eq!(gateway.get(path).await.status(), 503);
    }
    assert!(backend.seen().is_empty());
}

#[tokio::test]
async fn plugin_asks_a_service_whether_a_request_may_pass() {
    let guest = concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/call_out.wat");
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, wat::parse_file(guest).unwrap());
    let is_open = Arc::new(AtomicBool::new(true));
    let auth = Backend::answering({
        let is_open = Arc::clone(&is_open);
        move |request| {
            assert!(request.start.starts_with("GET /auth "), "{}", request.start);
            let status = if is_open.load(Ordering::Relaxed) { "200 OK" } else { "401 Unauthorized" };
            format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")
        }
    })
    .await;
    let backend = Backend::echo("a").await;
    let asking = |upstream: &str| {
        let sandbox = format!("sandbox: {{allowNetwork: true}}\n  config: \"{upstream}\"\n  wasm:");
        plugin("r", &format!("inline: {module}")).replace("wasm:", &sandbox)
    };
    let gateway = World::new()
        .service("a", &[&backend])
        .service("auth", &[&auth])
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &asking("auth"))
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status(), 200);
    assert_eq!(auth.last().header("host"), Some("auth"));
    is_open.store(false, Ordering::Relaxed);
    assert_eq!(gateway.get("/").await.status(), 403);
    assert_eq!((backend.seen().len(), auth.seen().len()), (1, 2));

    gateway.edit("plugin", &asking("auth.elsewhere")).await;
    assert_eq!(gateway.get("/").await.status(), 200, "the guest lets pass what it cannot ask about");
    assert_eq!(auth.seen().len(), 2, "a Service of another namespace is not there for it");
}

#[tokio::test]
async fn plugin_whose_first_version_cannot_be_read_keeps_its_target_shut() {
    let module = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, add_header());
    let good = plugin("r", &format!("inline: {module}"));
    let broken = good.replace("wasm:", "hoks: [onRequest]\n  wasm:");
    let backend = Backend::echo("a").await;
    let gateway = World::new()
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .route("open", &[rule("/open", &to("a"))])
        .manifest("plugin", &broken)
        .manifest("open", &plugin("open", "inlin: x").replace("wasm:", "failurePolicy: FailOpen\n  wasm:"))
        .start()
        .await;
    assert_eq!(gateway.get("/").await.status(), 503);
    assert_eq!(gateway.get("/open").await.status(), 200, "as its failure policy says");
    let accepted = gateway.condition("WasmPlugin demo/r", "Accepted").await;
    assert_eq!(accepted["status"], "False");
    assert!(accepted["message"].to_string().contains("hoks"), "{accepted}");

    gateway.edit("plugin", &good).await;
    assert_eq!(gateway.get("/").await.status(), 200);
    gateway.edit("plugin", &broken).await;
    assert_eq!(gateway.get("/").await.status(), 200, "the last good version serves on");
    assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
}

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

/// Answers as a registry does (OCI distribution specification 1.1): nothing without a token, an index for the tag, manifests
/// and layers by digest.
fn registry(request: &str, host: &str, authorization: Option<&str>, layers: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let target = request.split(' ').nth(1).unwrap();
    if let Some(query) = target.strip_prefix("/token?") {
        assert_eq!(query, "service=registry&scope=repository:team/plugin:pull");
        return ok(br#"{"token": "pass"}"#);
    }
    if authorization != Some("Bearer pass") {
        let challenge = format!("Bearer realm=\"http://{host}/token\",service=\"registry\",scope=\"pull\"");
        let head = format!(
            "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: {challenge}\r\ncontent-length: 0\r\n\r\n"
        );
        return head.into_bytes();
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
    for layers in [artifact, image] {
        let origin = Backend::answering(move |request| {
            let host = request.header("host").unwrap();
            registry(&request.start, host, request.header("authorization"), &layers)
        })
        .await;
        let backend = Backend::echo("a").await;
        let gateway = World::new()
            .service("a", &[&backend])
            .route("r", &[rule("/", &to("a"))])
            .manifest("plugin", &plugin("r", &format!("url: \"oci://{}/team/plugin:1.0\"", origin.address)))
            .start()
            .await;
        eventually("the module is served", async || gateway.get("/").await.status() == 200).await;
        assert_eq!(backend.last().header("x-wasm-plugin"), Some("demo/r"));
        let asked = origin.seen().iter().filter(|request| request.start.contains("/token?")).count();
        assert_eq!(asked, 1, "one token serves index, manifest and layer");
    }
}
