//! Manifests, and the gateway that serves them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, ExitStatus, Stdio},
};

use serde_json::Value;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::{Backend, Message, Wire, eventually, lines::Lines, manifests};

/// A port that nobody else is given while this lives, and on which a listener can be opened.
#[derive(Debug)]
pub(crate) struct Port(Socket);

impl Port {
    pub(crate) fn reserve() -> Self {
        let socket = Self::socket();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
        Self(socket)
    }

    /// The same among those that Services in front of Gateways lead to.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn reserve_behind_service() -> Self {
        let free = |port: &u16| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)).is_ok();
        // Each process of the tests looks somewhere else.
        let first = 10_000 + u16::try_from(std::process::id() % 8_000).unwrap();
        let port = (first..19_000).find(free).unwrap();
        let socket = Self::socket();
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into()).unwrap();
        Self(socket)
    }

    fn socket() -> Socket {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap().as_socket().unwrap()
    }

    /// A listener of the Gateway on this port; `rest` is further fields.
    pub(crate) fn listener(&self, name: &str, rest: &str) -> String {
        format!("{{name: {name}, port: {}, {rest}}}", self.address().port())
    }
}

/// A gateway that is not started yet.
#[derive(Debug)]
pub(crate) struct World {
    directory: TempDir,
    port: Port,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    /// What a shell runs before the gateway takes its place.
    before: String,
    /// Where objects come from; the directory, unless it is a cluster.
    source: Vec<String>,
}

impl World {
    /// A Gateway with one HTTP listener.
    pub(crate) fn new() -> Self {
        let port = Port::reserve();
        let listener = port.listener("http", "protocol: HTTP");
        Self::with_listeners(port, &[listener])
    }

    /// A Gateway that sends all requests to this backend: by the route `r`, to the Service `a`.
    pub(crate) fn of_backend(backend: &Backend) -> Self {
        let to_all = manifests::rule("/", &manifests::to("a"));
        Self::new().service("a", &[backend]).route("r", &[to_all])
    }

    /// A Gateway with `listeners` on `port`.
    pub(crate) fn with_listeners(port: Port, listeners: &[String]) -> Self {
        let directory = TempDir::new().unwrap();
        let source = vec!["--manifests".to_owned(), directory.path().to_str().unwrap().to_owned()];
        Self { source, ..Self::empty(port, directory) }.manifest("gateway", &manifests::gateway(listeners))
    }

    /// The objects of a cluster, which the port is not taken from.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn of_cluster(port: Port, kubeconfig: &std::path::Path) -> Self {
        let source = vec!["--kubeconfig".to_owned(), kubeconfig.to_str().unwrap().to_owned()];
        Self { source, ..Self::empty(port, TempDir::new().unwrap()) }
    }

    fn empty(port: Port, directory: TempDir) -> Self {
        let options = ["run", "--workers", "2", "--log-format", "json"];
        let options = options.map(str::to_owned).into();
        // An option on the command line overrules it.
        let environment = vec![("NANTIAN_FEATURE_GATES".to_owned(), "AllAlpha=true".to_owned())];
        Self { directory, port, options, environment, before: "true".to_owned(), source: Vec::new() }
    }

    /// Further options of the command line.
    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options.extend(options.iter().map(|option| (*option).to_owned()));
        self
    }

    /// A variable of the environment of the process.
    pub(crate) fn variable(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A limit of the process, by the option of `ulimit` that sets it.
    pub(crate) fn limited(self, option: &str) -> Self {
        self.prepared_by(&format!("ulimit {option}"))
    }

    /// What a shell runs before the gateway takes its place.
    pub(crate) fn prepared_by(mut self, script: &str) -> Self {
        script.clone_into(&mut self.before);
        self
    }

    /// A file with these documents.
    pub(crate) fn manifest(self, name: &str, text: &str) -> Self {
        fs::write(self.directory.path().join(format!("{name}.yaml")), text).unwrap();
        self
    }

    /// A Service with these endpoints.
    pub(crate) fn service(self, name: &str, backends: &[&Backend]) -> Self {
        self.manifest(&format!("service-{name}"), &manifests::service(name, "http", backends))
    }

    /// A Service that speaks HTTP/2 with prior knowledge.
    pub(crate) fn h2c_service(self, name: &str, backend: &Backend) -> Self {
        self.manifest(&format!("service-{name}"), &manifests::service(name, "kubernetes.io/h2c", &[backend]))
    }

    /// An HTTPRoute with these rules.
    pub(crate) fn route(self, name: &str, rules: &[String]) -> Self {
        self.manifest(&format!("route-{name}"), &manifests::route(name, "", rules))
    }

    /// An HTTPRoute for these hosts.
    pub(crate) fn route_of(self, name: &str, hosts: &str, rules: &[String]) -> Self {
        let spec = format!("hostnames: [{hosts}],");
        self.manifest(&format!("route-{name}"), &manifests::route(name, &spec, rules))
    }

    /// Starts the gateway with an admin server and waits until it serves.
    pub(crate) async fn start(self) -> Running {
        let running = self.options(&["--admin-addr", "127.0.0.1:0"]).start_as_is().await;
        eventually("ready", async || running.admin("/readyz").await.status() == 200).await;
        running
    }

    /// Starts the gateway with no other options than those given, and waits until it serves.
    pub(crate) async fn start_as_is(self) -> Running {
        let running = self.spawn();
        running.log.more(RELOADED, 0).await;
        running
    }

    /// Starts the gateway with an admin server and waits for nothing.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn start_unready(self) -> Running {
        self.options(&["--admin-addr", "127.0.0.1:0"]).spawn()
    }

    fn spawn(self) -> Running {
        let mut process = Command::new("sh")
            .args(["-c", &format!("{} && exec \"$0\" \"$@\"", self.before)])
            .arg(env!("CARGO_BIN_EXE_nantian-gateway"))
            .args(&self.options)
            .envs(self.environment.iter().cloned())
            .args(&self.source)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Lines::of(process.stderr.take().unwrap());
        let output = Lines::of(process.stdout.take().unwrap());
        Running { world: self, process, log, output }
    }
}

/// What the gateway says when it serves a new generation.
const RELOADED: &str = "\"message\":\"reloaded\"";

/// A gateway that serves; it is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    world: World,
    process: Child,
    /// Standard error: the log.
    pub(crate) log: Lines,
    /// Standard output: the access log.
    pub(crate) output: Lines,
}

impl Running {
    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.world.port.address()
    }

    /// A listener on that address; `rest` is further fields.
    pub(crate) fn listener(&self, name: &str, rest: &str) -> String {
        self.world.port.listener(name, rest)
    }

    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    /// `GET path` on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Message {
        self.connect().await.get(path).await
    }

    /// Sends a request on a connection of its own.
    pub(crate) async fn ask(&self, request: impl AsRef<[u8]>) -> Message {
        self.connect().await.ask(request).await
    }

    /// Where the admin server listens.
    pub(crate) async fn admin_address(&self) -> SocketAddr {
        let line = self.log.more("\"admin server\"", 0).await;
        let line: Value = serde_json::from_str(&line).unwrap();
        line["fields"]["address"].as_str().unwrap().parse().unwrap()
    }

    /// `GET path` of the admin server.
    pub(crate) async fn admin(&self, path: &str) -> Message {
        Wire::connect(self.admin_address().await).await.get(path).await
    }

    /// The configuration that it shows.
    pub(crate) async fn config(&self) -> Value {
        self.admin("/config").await.json()
    }

    /// The condition of this kind that `/config` shows for an object, once there is one.
    pub(crate) async fn condition(&self, object: &str, kind: &str) -> Value {
        fn find<'a>(value: &'a Value, kind: &str) -> Option<&'a Value> {
            match value {
                Value::Object(fields) if fields.get("type").is_some_and(|known| known == kind) => Some(value),
                Value::Object(fields) => fields.values().find_map(|value| find(value, kind)),
                Value::Array(values) => values.iter().find_map(|value| find(value, kind)),
                _ => None,
            }
        }
        let mut found = None;
        eventually(&format!("there is {kind} of {object}"), async || {
            found = find(&self.config().await["conditions"][object], kind).cloned();
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// The value of a metric, by its name and labels as they are written.
    pub(crate) async fn metric(&self, series: &str) -> Option<f64> {
        let text = self.admin("/metrics").await.text();
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Writes a manifest and does not wait for it to be read.
    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.world.directory.path().join(format!("{name}.yaml")), text).unwrap();
    }

    /// Puts a manifest in place of another one, so that nobody reads half of it.
    pub(crate) fn replace(&self, name: &str, text: &str) {
        let path = self.world.directory.path().join(name);
        fs::write(&path, text).unwrap();
        fs::rename(&path, path.with_extension("yaml")).unwrap();
    }

    /// Writes a manifest and waits until it has been read.
    pub(crate) async fn edit(&self, name: &str, text: &str) {
        let known = self.log.count(RELOADED);
        self.write(name, text);
        self.log.more(RELOADED, known).await;
    }

    /// Puts manifests in place of others and waits until they have been read.
    pub(crate) async fn edit_all(&self, manifests: &[(&str, String)]) {
        let known = self.log.count(RELOADED);
        manifests.iter().for_each(|(name, text)| self.replace(name, text));
        self.log.more(RELOADED, known).await;
    }

    /// Edits the listeners of the Gateway.
    pub(crate) async fn edit_listeners(&self, listeners: &[String]) {
        self.edit("gateway", &manifests::gateway(listeners)).await;
    }

    /// Edits the endpoints of a Service.
    pub(crate) async fn edit_service(&self, name: &str, backends: &[&Backend]) {
        self.edit(&format!("service-{name}"), &manifests::service(name, "http", backends)).await;
    }

    /// Edits the rules of an HTTPRoute.
    pub(crate) async fn edit_route(&self, name: &str, rules: &[String]) {
        self.edit(&format!("route-{name}"), &manifests::route(name, "", rules)).await;
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Waits until the process has ended.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        self.log.ended().await;
        self.output.ended().await;
        self.process.wait().unwrap()
    }

    /// The limit on open files, as it is and as high as the process may set it.
    pub(crate) fn open_files(&self) -> (u64, u64) {
        let limits = fs::read_to_string(format!("/proc/{}/limits", self.process.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
        let mut numbers = line.split_whitespace().map_while(|number| number.parse().ok());
        (numbers.next().unwrap(), numbers.next().unwrap())
    }

    /// The resident memory of the process, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
