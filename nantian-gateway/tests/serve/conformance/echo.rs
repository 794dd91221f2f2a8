//! The Services of the tests: each says who it is and what it saw.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UdpSocket},
};
use tokio_rustls::TlsAcceptor;

use crate::support::after;

/// `namespace/name` of every Service that echoes.
pub(super) const SERVICES: [&str; 9] = [
    "infra/infra-backend-v1",
    "infra/infra-backend-v2",
    "infra/infra-backend-v3",
    "app/app-backend-v1",
    "app/app-backend-v2",
    "web/web-backend",
    "infra/grpc-infra-backend-v1",
    "infra/grpc-infra-backend-v2",
    "infra/grpc-infra-backend-v3",
];

/// `namespace/name` of every Service that sends datagrams back.
pub(super) const ECHOES: [&str; 4] =
    ["infra/coredns-v1", "infra/coredns-v2", "infra/coredns-v3", "web/coredns"];

/// The servers of all Services, which all tests share.
#[derive(Clone)]
pub(super) struct Backends {
    pub(super) addresses: Arc<BTreeMap<String, SocketAddr>>,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    /// How many requests with this `x-token` came to this Service.
    seen: Mutex<HashMap<(String, String), usize>>,
    /// How often a request with this token was failed.
    failed: Mutex<HashMap<String, usize>>,
}

impl Backends {
    pub(super) async fn start() -> Self {
        let log = Arc::<Log>::default();
        let mut addresses = BTreeMap::new();
        for service in SERVICES {
            addresses.insert(service.to_owned(), serve(service, None, &log).await);
        }
        for service in ECHOES {
            addresses.insert(service.to_owned(), send_back(service).await);
        }
        Self { addresses: Arc::new(addresses), log }
    }

    /// A server with TLS for one test.
    pub(super) async fn secured(&self, service: &str, config: Arc<ServerConfig>) -> SocketAddr {
        serve(service, Some(config), &self.log).await
    }

    /// How many requests with this token have come to `service`.
    pub(super) fn seen(&self, service: &str, token: &str) -> usize {
        let seen = self.log.seen.lock().unwrap();
        seen.get(&(service.to_owned(), token.to_owned())).copied().unwrap_or_default()
    }
}

async fn serve(service: &str, tls: Option<Arc<ServerConfig>>, log: &Arc<Log>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let name: Arc<str> = service.into();
    let log = Arc::clone(log);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (name, log, tls) = (Arc::clone(&name), Arc::clone(&log), tls.clone());
            tokio::spawn(connection(stream, tls, name, log));
        }
    });
    address
}

/// Sends datagrams back behind the name of the Service.
async fn send_back(service: &'static str) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let answer = [service.as_bytes(), b" ", &buffer[..length]].concat();
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

async fn connection(stream: TcpStream, tls: Option<Arc<ServerConfig>>, name: Arc<str>, log: Arc<Log>) {
    let Some(config) = tls else {
        let mut first = [0; 3];
        let is_http2 = stream.peek(&mut first).await.is_ok_and(|read| first[..read] == *b"PRI");
        return exchange(stream, is_http2, name, log, String::new()).await;
    };
    let Ok(stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    let session = stream.get_ref().1;
    let server_name = session.server_name().unwrap_or_default().to_owned();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    exchange(stream, is_http2, name, log, server_name).await;
}

async fn exchange<T>(stream: T, is_http2: bool, name: Arc<str>, log: Arc<Log>, server_name: String)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service =
        service_fn(move |request| answer(Arc::clone(&name), Arc::clone(&log), server_name.clone(), request));
    // A client that leaves is no concern of the backend.
    let _ = match is_http2 {
        true => {
            http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await
        }
        false => http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await,
    };
}

async fn answer(
    name: Arc<str>,
    log: Arc<Log>,
    server_name: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let token = text("x-token").unwrap_or_default();
    *log.seen.lock().unwrap().entry((name.to_string(), token.clone())).or_default() += 1;
    let mut seen = Map::new();
    for (name, value) in request.headers() {
        let value = value.to_str().unwrap();
        let known = seen.entry(name.as_str()).or_insert_with(|| Value::String(String::new()));
        let joined = match known.as_str().unwrap() {
            "" => value.to_owned(),
            before => format!("{before},{value}"),
        };
        *known = joined.into();
    }
    let host = request.uri().host().map(str::to_owned).or(text("host")).unwrap_or_default();
    seen.insert("host".to_owned(), host.into());
    seen.insert("path".to_owned(), request.uri().path_and_query().unwrap().as_str().into());
    seen.insert("method".to_owned(), request.method().as_str().into());
    seen.insert("protocol".to_owned(), format!("{:?}", request.version()).into());
    seen.insert("name".to_owned(), server_name.into());
    let failure = text("x-fail").filter(|_| {
        let mut failed = log.failed.lock().unwrap();
        let times = failed.entry(token).or_default();
        *times += 1;
        text("x-fail-times").is_none_or(|most| *times <= most.parse().unwrap())
    });
    // What would fail is late as well, and what would not is late where nothing fails.
    if let Some(delay) = text("x-delay").filter(|_| failure.is_some() || text("x-fail").is_none()) {
        after(Duration::from_millis(delay.parse().unwrap())).await;
    }
    let mut response =
        Response::builder().header("x-backend", &*name).header("content-type", "application/json");
    if let Some(status) = failure {
        response = response.status(StatusCode::from_bytes(status.as_bytes()).unwrap());
    }
    if text("upgrade").as_deref() == Some("websocket") {
        response =
            response.status(101).header(header::CONNECTION, "upgrade").header(header::UPGRADE, "websocket");
    }
    if text("content-type").is_some_and(|kind| kind.starts_with("application/grpc")) {
        response = response.header("grpc-status", "0");
    }
    for (name, value) in request
        .headers()
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("x-answer-")?, value)))
    {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(json!(seen).to_string())).unwrap())
}
