//! Routes of connections and datagrams, and what is at their ends.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use tokio::{io::AsyncWriteExt, net::UdpSocket};

use super::{Backend, Port, World, soon};

/// A TLSRoute, TCPRoute or UDPRoute of the Gateway `demo`; `spec` is further fields.
pub(crate) fn stream_route(kind: &str, name: &str, parent: &str, spec: &str, backends: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: {name}, namespace: demo}}
spec: {{parentRefs: [{{name: demo, {parent}}}], {spec} rules: [{{backendRefs: [{backends}]}}]}}
"
    )
}

/// A Service whose port 80 is reached by `transport`, and its endpoints.
pub(crate) fn stream_service(name: &str, transport: &str, endpoints: &[SocketAddr]) -> String {
    let mut manifest = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: demo}}
spec: {{ports: [{{name: p, port: 80, protocol: {transport}, appProtocol: whatever}}]}}
"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        manifest.push_str(&format!(
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{index}, namespace: demo, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: p, port: {}, protocol: {transport}}}]
endpoints: [{{addresses: [{}]}}]
",
            endpoint.port(),
            endpoint.ip(),
        ));
    }
    manifest
}

/// A Gateway with one listener of this protocol, and Services.
pub(crate) fn stream_world(protocol: &str, services: &[(&str, &[SocketAddr])]) -> World {
    let port = Port::reserve();
    let listener = port.listener(&protocol.to_lowercase(), &format!("protocol: {protocol}"));
    services.iter().fold(World::with_listeners(port, &[listener]), |world, (name, endpoints)| {
        world.manifest(&format!("service-{name}"), &stream_service(name, protocol, endpoints))
    })
}

impl Backend {
    /// Says its name, then sends every byte back until the client ends, then `end`.
    pub(crate) async fn greeting(name: &'static str) -> Self {
        Self::raw(move |wire| async move {
            let (mut read, mut write) = tokio::io::split(wire.into_io());
            if write.write_all(name.as_bytes()).await.is_err() {
                return;
            }
            if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                let _ = write.write_all(b"end").await;
                let _ = write.shutdown().await;
            }
        })
        .await
    }
}

/// A server that sends every datagram back behind its name.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    seen: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Echo {
    pub(crate) async fn new(name: &'static str) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                count.fetch_add(1, Relaxed);
                let answer = [name.as_bytes(), &buffer[..length]].concat();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, seen, task }
    }

    /// How many datagrams it has got.
    pub(crate) fn seen(&self) -> usize {
        self.seen.load(Relaxed)
    }

    /// Listens no more.
    pub(crate) async fn stop(self) -> SocketAddr {
        self.task.abort();
        let _ = self.task.await;
        self.address
    }
}

/// A client of a server of datagrams.
pub(crate) struct Caller(UdpSocket);

impl Caller {
    pub(crate) async fn new(to: SocketAddr) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(to).await.unwrap();
        Self(socket)
    }

    pub(crate) async fn say(&self, datagram: &[u8]) {
        self.0.send(datagram).await.unwrap();
    }

    /// The next datagram, which must come soon.
    pub(crate) async fn hear(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = soon(self.0.recv(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    /// Sends a datagram and waits for its answer.
    pub(crate) async fn ask(&self, datagram: &str) -> String {
        self.say(datagram.as_bytes()).await;
        String::from_utf8(self.hear().await).unwrap()
    }

    /// Asks until somebody answers: what is lost is lost.
    pub(crate) async fn insist(&self, datagram: &str) -> String {
        let mut buffer = vec![0; 65_536];
        soon(async {
            loop {
                self.say(datagram.as_bytes()).await;
                let answer =
                    tokio::time::timeout(std::time::Duration::from_millis(100), self.0.recv(&mut buffer));
                if let Ok(Ok(length)) = answer.await {
                    return String::from_utf8(buffer[..length].to_vec()).unwrap();
                }
            }
        })
        .await
    }

    /// Whether nothing has come yet.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.0.try_recv(&mut [0; 16]).is_err()
    }
}
