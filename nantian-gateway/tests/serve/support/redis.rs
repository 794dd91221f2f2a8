//! A real redis-server on a free port.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{Port, eventually};

/// A server that ends with the test.
#[derive(Debug)]
pub(crate) struct Redis {
    port: Port,
    process: Child,
    _directory: TempDir,
}

impl Redis {
    /// Starts a server that asks for this password.
    pub(crate) async fn start(password: &str) -> Self {
        Self::start_with(password, &[]).await
    }

    /// Starts two servers that have half of all keys each.
    pub(crate) async fn cluster(password: &str) -> [Self; 2] {
        let reserved = [Port::reserve(), Port::reserve()];
        let bus = reserved.each_ref().map(|port| port.address().port().to_string());
        let node = async |number: usize, slots: &str| {
            let options = ["--cluster-enabled", "yes", "--cluster-port", &bus[number]];
            let node = Self::start_with(password, &options).await;
            node.does(password, &format!("CLUSTER ADDSLOTSRANGE {slots}")).await;
            node.does(password, &format!("CLUSTER SET-CONFIG-EPOCH {}", number + 1)).await;
            node
        };
        let nodes = [node(0, "0 8191").await, node(1, "8192 16383").await];
        let port = nodes[1].address().port();
        nodes[0].does(password, &format!("CLUSTER MEET 127.0.0.1 {port} {}", bus[1])).await;
        for node in &nodes {
            eventually("the cluster is whole", async || {
                let said = node.ask(password, "CLUSTER INFO").await;
                said.contains("cluster_state:ok") && said.contains("cluster_size:2")
            })
            .await;
        }
        nodes
    }

    /// Starts a server that also listens with TLS, to clients that have its own certificate: `cert.pem` and
    /// `key.pem` in a directory.
    pub(crate) async fn secured(password: &str, files: &Path, tls: &Port) -> Self {
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| files.join(name).to_str().unwrap().to_owned());
        let port = tls.address().port().to_string();
        let options = ["--tls-port", &port, "--tls-cert-file", &cert, "--tls-key-file", &key];
        let options: Vec<&str> = options.into_iter().chain(["--tls-ca-cert-file", &cert]).collect();
        Self::start_with(password, &options).await
    }

    async fn start_with(password: &str, options: &[&str]) -> Self {
        let (port, directory) = (Port::reserve(), TempDir::new().unwrap());
        // The port is reserved by a socket that does not listen: the server binds beside it, as it reuses
        // addresses.
        let process = Command::new("redis-server")
            .args(["--port", &port.address().port().to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--requirepass", password, "--dir"])
            .arg(directory.path())
            .args(options)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed, as .ci/setup does");
        let server = Self { port, process, _directory: directory };
        eventually("redis-server answers", async || server.answers().await.is_some()).await;
        server
    }

    async fn answers(&self) -> Option<()> {
        let mut stream = TcpStream::connect(self.address()).await.ok()?;
        stream.write_all(b"PING\r\n").await.ok()?;
        stream.read_u8().await.ok().map(drop)
    }

    /// Has it keep to a setting from now on.
    pub(crate) async fn configure(&self, password: &str, setting: &str) {
        self.does(password, &format!("CONFIG SET {setting}")).await;
    }

    /// Has it leave all that are connected.
    pub(crate) async fn disconnect(&self, password: &str) {
        let answers = self.ask(password, "CLIENT KILL TYPE normal").await;
        assert!(answers.contains(':'), "{answers}");
    }

    /// What is in use of a limit per hour of whoever uses most of it, when it was written last.
    pub(crate) async fn used_of_an_hour(&self, password: &str) -> u64 {
        let script = "local used = 0 \
             for _, key in ipairs(redis.call('KEYS', 'nrl3:*')) do \
                 local state = redis.call('GET', key) \
                 local limit, _, level = struct.unpack('>I4<dd', state) \
                 if limit % 2 ^ 31 == 3600000 then used = math.max(used, level) end \
             end \
             return math.floor(used + 0.5)";
        let answers = self.ask(password, &format!("EVAL \"{script}\" 0")).await;
        let used = answers.lines().find_map(|line| line.strip_prefix(':')).expect(&answers);
        used.parse().unwrap()
    }

    async fn does(&self, password: &str, command: &str) {
        assert_eq!(self.ask(password, command).await, "+OK\r\n".repeat(3), "{command}");
    }

    /// What it answers, between its consent to the password and to be left.
    async fn ask(&self, password: &str, command: &str) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        let commands = format!("AUTH {password}\r\n{command}\r\nQUIT\r\n");
        stream.write_all(commands.as_bytes()).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        answers
    }

    fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port.address().port()).into()
    }

    /// The option that keeps limits here.
    pub(crate) fn store(&self, password: &str) -> String {
        format!("redis://:{password}@{}/0", self.address())
    }

    /// `STOP` freezes it, `CONT` lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("kill").args([&format!("-{name}"), &self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
