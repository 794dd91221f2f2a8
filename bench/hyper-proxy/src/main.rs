//! The plainest reverse proxy hyper allows: one thread, one upstream, no routing, no metrics, no headers
//! added.
//!
//! Usage: `hyper-proxy LISTEN_ADDR UPSTREAM_ADDR`. It is the floor for a gateway built on hyper: what the
//! gateway costs above it is the gateway's own.

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

type Pool = Client<HttpConnector, Incoming>;
type BoxError = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: hyper-proxy LISTEN_ADDR UPSTREAM_ADDR";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut args = std::env::args().skip(1);
    let listen: SocketAddr = args.next().ok_or(USAGE)?.parse()?;
    let upstream: Authority = args.next().ok_or(USAGE)?.parse()?;

    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let pool: Pool = Client::builder(TokioExecutor::new()).build(connector);

    let listener = TcpListener::bind(listen).await?;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: the connections that are open will free some.
                eprintln!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        if stream.set_nodelay(true).is_err() {
            continue; // reset by the client before it was accepted
        }
        let pool = pool.clone();
        let upstream = upstream.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| forward(&pool, &upstream, request));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// Sends the request on to the upstream. An upstream that fails ends the client connection: a run with errors
/// is void anyway.
async fn forward(
    pool: &Pool,
    upstream: &Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, BoxError> {
    *request.uri_mut() = at_upstream(request.uri(), upstream)?;
    Ok(pool.request(request).await?)
}

/// The same path and query at the upstream's authority.
fn at_upstream(uri: &Uri, upstream: &Authority) -> Result<Uri, hyper::http::Error> {
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder().scheme(Scheme::HTTP).authority(upstream.clone()).path_and_query(path).build()
}
