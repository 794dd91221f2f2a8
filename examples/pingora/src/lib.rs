//! What the examples have in common: a Pingora proxy on a free port, backends, and a client.
//!
//! A Pingora server binds addresses that are known before. Here the accept loop is our own, so that each
//! proxy gets a port of its own and ends with the program; what it does with a connection is Pingora's.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper_util::client::legacy::{Client, ResponseFuture, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use pingora_core::apps::ServerApp as _;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::server::configuration::ServerConf;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, http_proxy};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Starts a proxy.
pub async fn proxy<P>(proxy: P) -> anyhow::Result<SocketAddr>
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let proxy = Arc::new(http_proxy(&Arc::new(ServerConf::default()), proxy));
    tokio::spawn(async move {
        let (_end, shutdown) = watch::channel(false);
        while let Ok((stream, _)) = listener.accept().await {
            let (proxy, shutdown) = (Arc::clone(&proxy), shutdown.clone());
            tokio::spawn(async move {
                let mut next: Option<pingora_core::protocols::Stream> = Some(Box::new(Stream::from(stream)));
                while let Some(stream) = next {
                    next = proxy.process_new(stream, &shutdown).await;
                }
            });
        }
    });
    Ok(address)
}

/// Starts a backend.
pub async fn backend(app: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// An address that nobody listens on.
pub async fn nobody() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?)
}

/// A client.
pub fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Posts a body.
pub fn post(url: &str, key: &str, body: &'static str) -> anyhow::Result<ResponseFuture> {
    let request = Request::post(url).header("content-type", "application/json").header("x-api-key", key);
    Ok(client().request(request.body(Full::from(body))?))
}

/// Makes `fields` the fields of a response's head.
pub fn replace(head: &mut ResponseHeader, fields: &HeaderMap) -> pingora_core::Result<()> {
    let names: Vec<_> = head.headers.keys().cloned().collect();
    for name in names {
        head.remove_header(&name);
    }
    for (name, value) in fields {
        head.append_header(name.clone(), value.clone())?;
    }
    Ok(())
}

/// Sends a whole response, in the place of the backend's.
pub async fn respond(
    session: &mut pingora_proxy::Session,
    response: Response<Bytes>,
) -> pingora_core::Result<()> {
    let (parts, body) = response.into_parts();
    let mut head = ResponseHeader::from(parts);
    head.insert_header("content-length", body.len())?;
    session.write_response_header(Box::new(head), false).await?;
    session.write_response_body(Some(body), true).await
}
