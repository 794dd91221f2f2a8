//! A real redis-server on a free port.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nantian_ratelimit::redis::{
    OnOutage, RedisDriver, RedisStore, RedisUrl, SharedLimiter, SharedReservation, Verdict,
};
use nantian_ratelimit::{Cost, Denied, Policy};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// A server that ends with the test.
pub(crate) struct Server {
    port: u16,
    /// Bound and not listening: the ports are nobody else's while the server is away.
    _held: (TcpSocket, Option<TcpSocket>),
    options: Vec<String>,
    process: Option<Child>,
    directory: TempDir,
}

/// A process as far as the server is concerned: a store and its driver.
pub(crate) struct Replica {
    pub(crate) store: RedisStore,
    driver: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_with(Vec::new).await
    }

    /// Starts a server with more options, which may name a free port of its own.
    pub(crate) async fn start_with(options: impl Fn() -> Vec<String>) -> Self {
        Self::start_holding(|| (options(), None)).await
    }

    /// The same where another port among the options must be free when the server comes back.
    pub(crate) async fn start_holding(options: impl Fn() -> (Vec<String>, Option<TcpSocket>)) -> Self {
        for _ in 0..10 {
            let directory = TempDir::new().unwrap();
            let ((port, held), (options, more)) = (held_port(), options());
            let mut server = Self { port, _held: (held, more), options, process: None, directory };
            if server.launch().await {
                return server;
            }
        }
        panic!("redis-server does not start");
    }

    /// Starts again after [`Server::kill`], with nothing remembered.
    pub(crate) async fn restart(&mut self) {
        assert!(self.launch().await, "the port is taken");
    }

    async fn launch(&mut self) -> bool {
        self.kill();
        let process = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(self.directory.path())
            .args(&self.options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed, as .ci/setup does");
        // It ends with the server, however this goes.
        let process = self.process.insert(process);
        let (begun, port) = (Instant::now(), self.port);
        while begun.elapsed() < Duration::from_secs(10) {
            if process.try_wait().unwrap().is_some() {
                return false;
            }
            if ask(port, "PING").await.is_some_and(|answer| answer == "+PONG\r\n") {
                return true;
            }
            sleep(Duration::from_millis(10)).await;
        }
        false
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let process = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// The answer to an inline command, as it is on the wire.
    pub(crate) async fn ask(&self, command: &str) -> String {
        ask(self.port, command).await.expect("the server answers")
    }

    /// How often the server has carried out `command`.
    pub(crate) async fn calls(&self, command: &str) -> u64 {
        let stats = self.ask("INFO commandstats").await;
        let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    }

    /// The value of one of the options that it was started with.
    pub(crate) fn option(&self, name: &str) -> &str {
        let at = self.options.iter().position(|option| option == name).unwrap();
        &self.options[at + 1]
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self) -> RedisUrl {
        format!("redis://127.0.0.1:{}/0", self.port).parse().unwrap()
    }

    /// A replica that is connected.
    pub(crate) async fn replica(&self) -> Replica {
        self.replica_that(OnOutage::Local, None).await
    }

    pub(crate) async fn replica_that(&self, on_outage: OnOutage, replicas: Option<u32>) -> Replica {
        // A busy machine is no outage.
        self.replica_within(Duration::from_secs(5), on_outage, replicas).await
    }

    /// A replica that soon notices that the server is frozen.
    pub(crate) async fn hasty_replica(&self, replicas: Option<u32>) -> Replica {
        self.replica_within(TIMEOUT, OnOutage::Local, replicas).await
    }

    async fn replica_within(&self, timeout: Duration, on_outage: OnOutage, replicas: Option<u32>) -> Replica {
        let builder = RedisStore::builder(self.url()).on_outage(on_outage).command_timeout(timeout);
        let (store, driver) = match replicas {
            Some(replicas) => builder.replicas(replicas).build(),
            None => builder.build(),
        };
        let replica = Replica::new(store, driver);
        replica.is_reachable(true).await;
        replica
    }
}

/// A free port, and what keeps it so for others.
pub(crate) fn held_port() -> (u16, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

async fn ask(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok()?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer.strip_suffix("+OK\r\n")?.to_owned())
}

/// How long hasty replicas wait for an answer.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(200);

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Replica {
    pub(crate) fn new(store: RedisStore, driver: RedisDriver) -> Self {
        Self { store, driver: tokio::spawn(driver.run()) }
    }

    /// Waits until the server is reachable, or is not.
    pub(crate) async fn is_reachable(&self, wanted: bool) {
        eventually(|| self.store.status().is_reachable == wanted).await;
    }

    /// Waits until this many replicas are known.
    pub(crate) async fn knows(&self, replicas: u32) {
        eventually(|| self.store.status().replicas == Some(replicas)).await;
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(crate) async fn eventually(holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not come about");
        sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn policy(limits: impl IntoIterator<Item = nantian_ratelimit::Limit>) -> Policy {
    limits.into_iter().fold(Policy::builder(), |policy, limit| policy.limit(limit)).build().unwrap()
}

pub(crate) async fn admit(
    limiter: &SharedLimiter,
    key: &str,
    cost: Cost,
) -> Result<SharedReservation, Denied> {
    match limiter.admit(limiter.key(key.as_bytes()), cost).await {
        Verdict::Admitted(reservation) => Ok(reservation),
        Verdict::Denied(denied) => Err(denied),
        verdict => panic!("{verdict:?}"),
    }
}

/// What is left of each limit.
pub(crate) async fn remaining(limiter: &SharedLimiter, key: &str) -> Vec<u64> {
    let seen = admit(limiter, key, Cost::new(0, 0)).await.unwrap();
    seen.levels().iter().map(|level| level.remaining).collect()
}

/// Waits until this much is left of each limit: settlements take a moment.
pub(crate) async fn reaches(limiter: &SharedLimiter, key: &str, expected: &[u64]) {
    let begun = Instant::now();
    loop {
        let seen = remaining(limiter, key).await;
        if seen == expected {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{seen:?} instead of {expected:?}");
        sleep(Duration::from_millis(1)).await;
    }
}

/// How many of `count` requests pass.
pub(crate) async fn admitted(limiter: &SharedLimiter, key: &str, count: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        admitted += usize::from(admit(limiter, key, Cost::REQUEST).await.is_ok());
    }
    admitted
}
