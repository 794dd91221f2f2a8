use nantian_crd::StreamFraming;
use nantian_wasm::{Digest, Engine, Module};
use tokio::time::Instant;

use super::{
    starter::{Compiled, Retry},
    *,
};
use crate::{
    ir::{ObjectName, Sandbox},
    tenancy::Tenancy,
};

fn plugin(module: Vec<u8>, config: &str) -> ir::Plugin {
    ir::Plugin {
        object: ObjectName::new("demo", "p"),
        source: PluginSource::Bytes(module),
        credentials: None,
        sha256: None,
        hooks: Vec::new(),
        config: config.to_owned(),
        root_id: String::new(),
        vm_id: String::new(),
        vm_configuration: String::new(),
        environment: Vec::new(),
        stream_framing: StreamFraming::Frames,
        allow_on_headers_stop_iteration: false,
        sandbox: Sandbox {
            max_memory_bytes: 1 << 20,
            max_execution_time: Duration::from_millis(100),
            max_pause: Duration::from_secs(1),
            max_buffered_body_bytes: 1 << 20,
            allowed_capabilities: None,
            allow_network: false,
            allow_file_system: false,
        },
        upstreams: Vec::new(),
        grants: ir::CallGrants::default(),
        is_pinned: false,
        failure_policy: FailurePolicy::FailClosed,
    }
}

fn plugins() -> WasmPlugins {
    WasmPlugins::new(PluginResources::bare(ClientConfig::bare().unwrap()))
}

/// Those of a cluster, with so much memory.
fn plugins_of_cluster(max_memory: usize) -> WasmPlugins {
    let client = ClientConfig { tenancy: Tenancy::Shared, ..ClientConfig::bare().unwrap() };
    WasmPlugins::new(PluginResources { max_memory, ..PluginResources::bare(client) })
}

/// Plugins of a process that has reloaded once, with this one.
struct Process {
    plugins: WasmPlugins,
    id: PolicyId,
}

impl Process {
    fn new() -> Self {
        Self::of(plugins())
    }

    fn of(mut plugins: WasmPlugins) -> Self {
        let _threads = plugins.start_engine().unwrap();
        Self { plugins, id: PolicyId("demo/p".to_owned()) }
    }

    /// Why the plugin does not run with this configuration.
    fn reload(&mut self, plugin: &ir::Plugin) -> Option<NotRunning> {
        let wanted = BTreeMap::from([(self.id.clone(), plugin.clone())]);
        self.plugins.update(&wanted, |_| None).pop().map(|(_, why)| why)
    }

    /// As [`reload`](Self::reload), once it has started or has not been able to.
    async fn reload_and_wait(&mut self, plugin: &ir::Plugin) -> Option<NotRunning> {
        self.reload(plugin);
        self.plugins.started_within(Duration::from_secs(60)).await;
        self.reload(plugin)
    }

    fn running(&self) -> &ManagedPlugin {
        &self.plugins.running[&self.id]
    }
}

fn module(text: &str) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) {text})"#
    ))
    .unwrap()
}

#[tokio::test]
async fn reload_does_not_compile_and_what_served_before_serves_on() {
    let mut process = Process::new();
    let good = plugin(module(""), "");
    let why = process.reload(&good).unwrap();
    assert_eq!((why.reason, process.plugins.running().count()), (Reason::Pending, 0));
    assert_eq!(process.reload_and_wait(&good).await, None);

    let another = plugin(module("(func nop)"), "");
    assert_eq!(process.reload(&another).unwrap().reason, Reason::Pending);
    assert_eq!(process.plugins.running().count(), 1, "the last good one");
    process.plugins.started_within(Duration::from_secs(60)).await;
    assert_eq!((process.reload(&another), process.plugins.running().count()), (None, 1));
}

#[tokio::test]
async fn last_good_plugin_reaches_what_an_edit_allows_that_does_not_start() {
    let mut process = Process::new();
    assert_eq!(process.reload_and_wait(&plugin(module(""), "")).await, None);
    let host = Arc::clone(&process.running().host);
    let mut broken = plugin(module("(func (result i32) nop)"), "");
    broken.sandbox.allow_network = true;
    assert!(process.reload_and_wait(&broken).await.is_some());
    assert_eq!(process.plugins.running().count(), 1);
    assert!(Arc::ptr_eq(&host, &process.running().host), "its host is the one that is told");
}

#[tokio::test]
async fn other_credentials_restart_nothing_that_runs() {
    let mut process = Process::new();
    let bytes = module("");
    assert_eq!(process.reload_and_wait(&plugin(bytes.clone(), "")).await, None);
    let mut remote = plugin(Vec::new(), "");
    remote.source = PluginSource::Url("oci://registry.test/p:1".to_owned());
    remote.credentials = Some(ir::Secret(b"robot:old".to_vec()));
    let result = Ok(Module::compile(process.plugins.engine.as_ref().unwrap(), &bytes, None).unwrap());
    let running = process.plugins.running.get_mut(&process.id).unwrap();
    running.module = Some(Arc::new(Compiled { key: module_key(&remote), result, is_program: false }));
    running.config = remote.clone();
    remote.credentials = Some(ir::Secret(b"robot:new".to_vec()));
    assert_eq!(process.reload(&remote), None);
    assert!(matches!(process.running().state, StartState::Runs));
}

#[tokio::test]
async fn program_is_fetched_again_as_what_is_no_module_is() {
    let mut process = Process::new();
    let bytes = wat::parse_str(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "_start") (call $exit (i32.const 0))))"#,
    )
    .unwrap();
    let why = process.reload_and_wait(&plugin(bytes.clone(), "")).await.unwrap();
    assert!(why.message.starts_with("spec.wasm: the module is a program"), "{why:?}");
    assert!(process.running().due().is_none(), "its bytes are in the object");

    let mut remote = plugin(Vec::new(), "");
    remote.source = PluginSource::Url("https://modules.test/p.wasm".to_owned());
    let key = module_key(&remote);
    let result = Ok(Module::compile(process.plugins.engine.as_ref().unwrap(), &bytes, None).unwrap());
    let running = process.plugins.running.get_mut(&process.id).unwrap();
    running.module = Some(Arc::new(Compiled { key: key.clone(), result, is_program: false }));
    running.config = remote.clone();
    running.state = StartState::Waits(managed_plugin::starting());
    assert_eq!(process.reload_and_wait(&remote).await.map(|why| why.reason), Some(Reason::ModuleInvalid));
    let running = process.running();
    assert!(running.due().is_some(), "it may be a library the next time");
    assert!(!running.module.as_ref().unwrap().is_what(&key.unwrap()), "nothing else is to be fetched");
}

#[tokio::test]
async fn module_that_was_a_program_without_its_environment_is_one_no_more() {
    let mut process = Process::new();
    let bytes = wat::parse_str(
        r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))
            (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
            (func (export "_start")
                (drop (call $sizes (i32.const 0) (i32.const 4)))
                (if (i32.eqz (i32.load (i32.const 0))) (then (call $exit (i32.const 0))))))"#,
    );
    let mut plugin = plugin(bytes.unwrap(), "");
    assert!(process.reload_and_wait(&plugin).await.is_some());
    assert!(process.running().module.as_ref().unwrap().is_none());
    plugin.environment = vec![("MODE".to_owned(), ir::Secret(b"library".to_vec()))];
    assert_eq!(process.reload_and_wait(&plugin).await, None);
    assert!(!process.running().module.as_ref().unwrap().is_none(), "it is not fetched again at each edit");
}

#[tokio::test]
async fn gateway_waits_for_plugins_that_fail_closed_until_they_run_or_cannot_be_had() {
    let mut process = Process::new();
    let closed = plugin(module(""), "");
    process.reload(&closed);
    assert!(process.plugins.are_awaited());
    process.reload_and_wait(&closed).await;
    assert!(!process.plugins.are_awaited(), "it runs");
    process.reload(&plugin(module("(func nop)"), ""));
    assert!(!process.plugins.are_awaited(), "the last good one runs");

    let mut process = Process::new();
    let open = ir::Plugin { failure_policy: FailurePolicy::FailOpen, ..closed.clone() };
    process.reload(&open);
    assert!(!process.plugins.are_awaited(), "its targets serve without it");
    let broken = plugin(module("(func (result i32) nop)"), "");
    process.reload_and_wait(&broken).await;
    assert!(!process.plugins.are_awaited(), "it never will");
    let missing = ir::Plugin { source: PluginSource::Missing("no such key".to_owned()), ..closed };
    process.reload(&missing);
    assert!(!process.plugins.are_awaited(), "nobody brings it");
}

#[tokio::test]
async fn module_that_does_not_compile_is_not_compiled_again_before_its_bytes_change() {
    let mut process = Process::new();
    let broken = module("(func (result i32) nop)");
    let why = process.reload_and_wait(&plugin(broken.clone(), "")).await.unwrap();
    assert!(why.message.contains("does not compile"), "{why:?}");
    let compiled = process.running().module.clone().unwrap();
    assert_eq!(process.reload_and_wait(&plugin(broken, "edited")).await, Some(why));
    assert!(Arc::ptr_eq(&compiled, process.running().module.as_ref().unwrap()));
    assert_eq!(process.reload_and_wait(&plugin(module(""), "edited")).await, None);
}

#[tokio::test]
async fn plugin_that_refuses_its_configuration_is_tried_again_later_and_its_module_is_kept() {
    let mut process = Process::new();
    let refuses = plugin(
        module(r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (i32.const 0))"#),
        "",
    );
    process.reload(&refuses);
    process.plugins.started_within(Duration::from_secs(60)).await;
    // Before it is known to fail: its next time does not come by itself.
    tokio::time::pause();
    let why = process.reload(&refuses).unwrap();
    assert!(why.message.contains("refused its configuration"), "{why:?}");
    assert_eq!(process.plugins.engine.as_ref().unwrap().module_count(), 1, "is not to be compiled again");
    assert_eq!(process.reload(&refuses), Some(why), "nothing is tried at every reload");
    assert!(matches!(process.running().state, StartState::Fails(_)));

    while !process.running().is_to_start() {
        process.plugins.news().changed().await;
    }
    process.reload(&refuses);
    assert!(matches!(process.running().state, StartState::Starts(..)), "its time has come");
    process.plugins.started_within(Duration::ZERO).await;
}

#[tokio::test]
async fn plugin_that_takes_long_to_start_keeps_no_other_waiting() {
    let mut plugins = plugins();
    let threads = plugins.start_engine().unwrap().unwrap();
    std::thread::spawn(|| threads.clock.run());
    let text =
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32) (loop (br 0)) (i32.const 0))"#;
    let mut endless = plugin(module(text), "");
    endless.sandbox.max_execution_time = Duration::from_secs(10);
    let [first, second] = ["demo/a", "demo/b"].map(|id| PolicyId(id.to_owned()));
    let wanted = BTreeMap::from([(first.clone(), endless), (second.clone(), plugin(module(""), ""))]);
    while !plugins.is_running(&second) {
        plugins.update(&wanted, |_| None);
        plugins.news().arrived().await;
        plugins.update(&wanted, |_| None);
    }
    assert!(matches!(plugins.running[&first].state, StartState::Starts(..)), "is being started");
}

#[tokio::test]
async fn modules_of_one_namespace_do_not_keep_out_another() {
    let mut plugins = plugins();
    let _threads = plugins.start_engine().unwrap();
    // Each takes some milliseconds to be compiled.
    let long = |number: usize| module(&format!("(func (result i32) (i32.const {number}))").repeat(2_000));
    let mut wanted: BTreeMap<_, _> =
        (0..20).map(|number| (PolicyId(format!("many/{number}")), plugin(long(number), ""))).collect();
    for plugin in wanted.values_mut() {
        plugin.object.namespace = "many".to_owned();
    }
    let few = PolicyId("other/few".to_owned());
    let mut other = plugin(module(""), "");
    other.object.namespace = "other".to_owned();
    wanted.insert(few.clone(), other);
    while !plugins.is_running(&few) {
        plugins.update(&wanted, |_| None);
        plugins.news().arrived().await;
        plugins.update(&wanted, |_| None);
    }
    let before = plugins.running().count() - 1;
    assert!(before < 10, "it has waited for {before}");
}

#[tokio::test]
async fn namespace_of_a_cluster_has_half_of_the_memory_also_when_its_last_plugin_has_gone() {
    let mut process = Process::of(plugins_of_cluster(8 << 20));
    let three_megabytes =
        r#"(module (memory (export "memory") 48) (func (export "proxy_abi_version_0_2_1")))"#;
    let mut large = plugin(wat::parse_str(three_megabytes).unwrap(), "");
    large.sandbox.max_memory_bytes = 4 << 20;
    assert_eq!(process.reload_and_wait(&large).await, None);
    let of_a_stream = process.plugins.running().next().cloned();
    process.plugins.update(&BTreeMap::new(), |_| None);

    let why = process.reload_and_wait(&large).await.unwrap();
    assert_eq!(why.reason, Reason::NoResources);
    assert!(why.message.contains("4194304 bytes of memory for the plugins of its namespace"), "{why:?}");
    let other = ir::Plugin { object: ObjectName::new("other", "p"), ..large.clone() };
    assert_eq!(process.reload_and_wait(&other).await, None);

    process.plugins.update(&BTreeMap::new(), |_| None);
    drop(of_a_stream);
    assert_eq!(process.reload_and_wait(&large).await, None);
    process.plugins.update(&BTreeMap::new(), |_| None);
    assert!(process.plugins.namespaces.is_empty(), "and is forgotten with all that it had");
}

#[test]
fn what_was_fetched_and_is_no_module_is_tried_again_ever_more_seldom() {
    let (engine, _threads) = Engine::new().unwrap();
    let waits = |bytes: &[u8]| {
        let module = Module::compile(&engine, bytes, None);
        let result = module.map_err(|error| (Digest::of(bytes), error));
        let module = Compiled { key: None, result, is_program: false };
        let retry = (0..16).fold(None, |last, _| Some(Retry::after(last, Some(&module))));
        (retry.unwrap().at - Instant::now()).as_secs() / 10
    };
    assert_eq!((waits(b"\0asm"), waits(&module(""))), (89, 5));
}
