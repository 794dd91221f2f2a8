//! New configurations and new bytes of plugins under load.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::support::{Backend, Running, World, eventually, plugin, route, rule, to};

/// Plugins, each on a route of its own.
const PLUGINS: usize = 20;
/// Edits, each of all of them: a thousand swaps.
const EDITS: usize = 50;

/// A module that copies its configuration into the request header `x-config`; its bytes are others in each
/// version.
fn module(version: usize) -> String {
    let mut bytes = wat::parse_str(echo_config()).unwrap();
    // A custom section without a name.
    bytes.extend([0, 2, 0, u8::try_from(version % 128).unwrap()]);
    BASE64_STANDARD.encode(bytes)
}

fn echo_config() -> &'static str {
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../nantian-wasm/tests/guests/echo_config.wat"))
}

/// The plugins, each configured with the version; the first one has new bytes, too. A machine that is busy
/// may leave a guest without its processor for long, which costs no request here.
fn plugins(version: usize) -> String {
    let mut manifest = String::new();
    for index in 0..PLUGINS {
        let wasm = format!("inline: {}", module(if index == 0 { version } else { 0 }));
        let plugin = plugin(&format!("r{index}"), &wasm);
        let fields = format!("config: '{version}'\n  sandbox: {{maxExecutionTimeMs: 60000}}\n  wasm:");
        write!(manifest, "---{}", plugin.replace("wasm:", &fields)).unwrap();
    }
    manifest
}

/// A backend that says which configuration its request has seen.
async fn telling() -> Backend {
    Backend::answering(|request| {
        let version = request.header("x-config").unwrap_or("none");
        format!("HTTP/1.1 200 OK\r\nx-config: {version}\r\ncontent-length: 0\r\n\r\n")
    })
    .await
}

async fn started(backend: &Backend) -> Running {
    let mut routes = String::new();
    for index in 0..PLUGINS {
        let rules = [rule(&format!("/r{index}"), &to("a"))];
        write!(routes, "---{}", route(&format!("r{index}"), "", &rules)).unwrap();
    }
    World::new()
        .service("a", &[backend])
        .manifest("routes", &routes)
        .manifest("plugins", &plugins(0))
        .start()
        .await
}

#[tokio::test]
async fn a_thousand_swaps_under_load_lose_no_request_and_leave_nothing_behind() {
    let backend = telling().await;
    let gateway = started(&backend).await;
    let instances = async || {
        let text = gateway.admin("/metrics").await.text();
        let live = text.lines().filter(|line| line.starts_with("nantian_wasm_live_instances{"));
        live.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = instances().await;
    assert_eq!(before.len(), PLUGINS);

    let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let mut clients = Vec::new();
    for client in 0..8 {
        let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
        let mut wire = gateway.connect().await;
        clients.push(tokio::spawn(async move {
            let mut newest = [0; PLUGINS];
            for turn in client.. {
                if stop.load(Relaxed) {
                    return;
                }
                let index = turn % PLUGINS;
                let reply = wire.get(&format!("/r{index}")).await;
                assert_eq!(reply.status(), 200, "{reply:?}");
                let version: usize = reply.header("x-config").unwrap().parse().unwrap();
                assert!(version >= newest[index], "{version} after {}", newest[index]);
                newest[index] = version;
                served.fetch_add(1, Relaxed);
            }
        }));
    }
    for version in 1..=EDITS {
        let asked = served.load(Relaxed);
        gateway.edit("plugins", &plugins(version)).await;
        eventually("requests go on", async || served.load(Relaxed) > asked).await;
    }
    stop.store(true, Relaxed);
    for client in clients {
        let ended = client.await;
        assert!(ended.is_ok(), "{ended:?}\n{}", gateway.log.text());
    }
    for index in 0..PLUGINS {
        let reply = gateway.get(&format!("/r{index}")).await;
        assert_eq!(reply.header("x-config"), Some(EDITS.to_string().as_str()), "r{index}");
    }
    assert_eq!(instances().await, before, "as many instances as at first");
    assert_eq!(gateway.log.count("plugin instance ended"), 0);
}

#[tokio::test]
async fn edit_for_which_no_place_is_left_is_told_and_the_last_one_serves_on() {
    let cores = std::thread::available_parallelism().unwrap();
    edit_for_which_there_is_too_little(&module(0), "--max-plugin-instances", cores.get()).await;
}

#[tokio::test]
async fn edit_for_which_no_memory_is_left_is_told_and_the_last_one_serves_on() {
    edit_for_which_there_is_too_little(&three_megabytes(), "--max-plugin-memory-bytes", 4 << 20).await;
}

#[tokio::test]
async fn edit_takes_where_there_is_memory_for_one_instance_and_one_beside_it() {
    let (gateway, _backend) = edited(&three_megabytes(), "--max-plugin-memory-bytes", 8 << 20).await;
    assert_eq!(gateway.get("/").await.header("x-config"), Some("2"));
}

/// A module of which an instance has so much memory.
fn three_megabytes() -> String {
    let guest = echo_config().replace("(memory (export \"memory\") 1)", "(memory (export \"memory\") 48)");
    BASE64_STANDARD.encode(wat::parse_str(guest).unwrap())
}

/// Edits a plugin of this module where the option leaves room for its instances and for none beside them.
async fn edit_for_which_there_is_too_little(module: &str, option: &str, value: usize) {
    let (gateway, _backend) = edited(module, option, value).await;
    let condition = gateway.condition("WasmPlugin demo/r", "Programmed").await;
    assert_eq!((&condition["status"], &condition["reason"]), (&"False".into(), &"NoResources".into()));
    let message = condition["message"].as_str().unwrap();
    assert!(message.contains(option), "{message}");
    assert_eq!(gateway.get("/").await.header("x-config"), Some("1"));
}

/// A gateway with this option, and a plugin of this module whose configuration was 1 and is to be 2.
async fn edited(module: &str, option: &str, value: usize) -> (Running, Backend) {
    let backend = telling().await;
    let version = |version: usize| {
        let plugin = plugin("r", &format!("inline: {module}"));
        plugin.replace("wasm:", &format!("config: '{version}'\n  wasm:"))
    };
    let gateway = World::new()
        .options(&[option, &value.to_string()])
        .service("a", &[&backend])
        .route("r", &[rule("/", &to("a"))])
        .manifest("plugin", &version(1))
        .start()
        .await;
    gateway.edit("plugin", &version(2)).await;
    (gateway, backend)
}
