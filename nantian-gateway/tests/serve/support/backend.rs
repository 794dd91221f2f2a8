//! Servers that the gateway sends requests to.

use std::{
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    task::{JoinHandle, JoinSet},
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{Message, Wire};

/// A server on a port of its own, for as long as the test runs.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Backend {
    /// Sends the content of every request back, and says in `x-backend` who it is.
    pub(crate) async fn echo(name: &'static str) -> Self {
        Self::answering(move |request| {
            let length = request.body.len();
            let mut reply =
                format!("HTTP/1.1 200 OK\r\nx-backend: {name}\r\ncontent-length: {length}\r\n\r\n")
                    .into_bytes();
            if !request.start.starts_with("HEAD ") {
                reply.extend(&request.body);
            }
            reply
        })
        .await
    }

    /// Answers every request with the bytes that `answer` gives, and keeps connections open.
    pub(crate) async fn answering<A, B>(answer: A) -> Self
    where
        A: Fn(&Message) -> B + Clone + Send + Sync + 'static,
        B: AsRef<[u8]> + Send + 'static,
    {
        Self::accepting(move |stream, seen| answer_all(Wire::over(stream), seen, answer.clone())).await
    }

    /// Does with each connection what `serve` does.
    pub(crate) async fn raw<S, F>(serve: S) -> Self
    where
        S: Fn(Wire) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::accepting(move |stream, _| serve(Wire::over(stream))).await
    }

    /// Answers each request with so many bytes, and tells how many of them it could write.
    pub(crate) async fn flooding(length: usize) -> (Self, Arc<AtomicUsize>) {
        let written = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&written);
        let backend = Self::raw(move |mut wire| {
            let count = Arc::clone(&count);
            async move {
                let Ok(_) = wire.message().await else { return };
                wire.send(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n")).await;
                let mut left = length;
                while left > 0 {
                    let part = left.min(65_536);
                    if wire.write(&vec![b'x'; part]).await.is_err() {
                        return;
                    }
                    count.fetch_add(part, Relaxed);
                    left -= part;
                }
            }
        })
        .await;
        (backend, written)
    }

    /// The same over TLS.
    pub(crate) async fn tls_answering<A, B>(config: Arc<ServerConfig>, answer: A) -> Self
    where
        A: Fn(&Message) -> B + Clone + Send + Sync + 'static,
        B: AsRef<[u8]> + Send + 'static,
    {
        let acceptor = TlsAcceptor::from(config);
        Self::accepting(move |stream, seen| {
            let (acceptor, answer) = (acceptor.clone(), answer.clone());
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                answer_all(Wire::over(stream), seen, answer).await;
            }
        })
        .await
    }

    /// Answers over TLS, and says which name and protocol the handshake was for.
    pub(crate) async fn tls(config: Arc<ServerConfig>) -> Self {
        let acceptor = TlsAcceptor::from(config);
        Self::accepting(move |stream, seen| {
            let acceptor = acceptor.clone();
            async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let session = stream.get_ref().1;
                let name = session.server_name().unwrap_or_default().to_owned();
                let protocol = session.alpn_protocol().unwrap_or_default().to_vec();
                let protocol = String::from_utf8(protocol).unwrap();
                if protocol == "h2" {
                    let service = service_fn(move |_| {
                        let reply = Response::builder()
                            .header("x-name", &name)
                            .header("x-protocol", "h2")
                            .header("grpc-status", "0")
                            .body(http_body_util::Empty::<Bytes>::new());
                        async move { Ok::<_, Infallible>(reply.unwrap()) }
                    });
                    let connection = http2::Builder::new(TokioExecutor::new());
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                    return;
                }
                let mut wire = Wire::over(stream);
                while let Ok(request) = wire.message().await {
                    let upgrades = request.header("upgrade").is_some();
                    seen.lock().unwrap().push(request);
                    if upgrades {
                        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
                        return wire.send(head).await;
                    }
                    wire.send(format!("HTTP/1.1 200 OK\r\nx-name: {name}\r\nx-protocol: {protocol}\r\ncontent-length: 0\r\n\r\n")).await;
                }
            }
        })
        .await
    }

    /// Answers HTTP/2 with prior knowledge.
    pub(crate) async fn h2c<A, F, B>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        Self::h2c_of(http2::Builder::new(TokioExecutor::new()), answer).await
    }

    /// The same with these settings.
    pub(crate) async fn h2c_of<A, F, B>(settings: http2::Builder<TokioExecutor>, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
    {
        Self::accepting(move |stream, _| {
            let (settings, answer) = (settings.clone(), answer.clone());
            let service = service_fn(move |request| {
                let reply = answer(request);
                async move { Ok::<_, Infallible>(reply.await) }
            });
            async move {
                // A client that leaves is no concern of the backend.
                let _ = settings.serve_connection(TokioIo::new(stream), service).await;
            }
        })
        .await
    }

    /// Does with each connection what `serve` does, which keeps the requests that it answers.
    async fn accepting<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream, Arc<Mutex<Vec<Message>>>) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let socket = TcpSocket::new_v4().unwrap();
        // What a backend does not read is to be noticed.
        socket.set_recv_buffer_size(65_536).unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let backend = Self::at(address);
        let Self { connections, seen, .. } = backend.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Relaxed);
                stream.set_nodelay(true).unwrap();
                tokio::spawn(serve(stream, Arc::clone(&seen)));
            }
        });
        backend
    }

    /// Answers each request after `delay`, until it is killed.
    pub(crate) async fn mortal(delay: Duration) -> (Self, Mortal) {
        let mortal = Mortal::start((Ipv4Addr::LOCALHOST, 0).into(), delay);
        (Self::at(mortal.address), mortal)
    }

    /// What listens on `address`, if anything does.
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address, connections: Arc::default(), seen: Arc::default() }
    }

    /// How many connections were opened to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }

    /// The requests that it has answered.
    pub(crate) fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    /// The request that it has answered last.
    pub(crate) fn last(&self) -> Message {
        self.seen().pop().expect("a request has come")
    }
}

async fn answer_all<B>(mut wire: Wire, seen: Arc<Mutex<Vec<Message>>>, answer: impl Fn(&Message) -> B)
where
    B: AsRef<[u8]>,
{
    while let Ok(request) = wire.message().await {
        let reply = answer(&request);
        seen.lock().unwrap().push(request);
        wire.send(reply).await;
    }
}

/// A process that can be killed: its socket and its connections are closed at once.
#[derive(Debug)]
pub(crate) struct Mortal {
    address: SocketAddr,
    delay: Duration,
    task: JoinHandle<()>,
    /// Requests that have come, and those that have been answered.
    asked: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
}

impl Mortal {
    fn start(address: SocketAddr, delay: Duration) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let (asked, answered) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn(live(listener, delay, Arc::clone(&asked), Arc::clone(&answered)));
        Self { address, delay, task, asked, answered }
    }

    /// Ends it. Gives the number of requests that it had and leaves without an answer.
    pub(crate) async fn kill(&mut self) -> usize {
        self.task.abort();
        assert!((&mut self.task).await.unwrap_err().is_cancelled());
        self.asked.load(Relaxed) - self.answered.load(Relaxed)
    }

    /// Starts it anew where it was.
    pub(crate) fn revive(&mut self) {
        *self = Self::start(self.address, self.delay);
    }

    /// The requests that have come since it was started.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

async fn live(listener: TcpListener, delay: Duration, asked: Arc<AtomicUsize>, answered: Arc<AtomicUsize>) {
    // Those that are left are ended with this.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (mut wire, asked, answered) = (Wire::over(stream), Arc::clone(&asked), Arc::clone(&answered));
        connections.spawn(async move {
            while wire.message().await.is_ok() {
                asked.fetch_add(1, Relaxed);
                sleep(delay).await;
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                answered.fetch_add(1, Relaxed);
            }
        });
    }
}
