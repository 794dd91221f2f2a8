//! One GET after another, every address judged before it is dialled.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig as TlsConfig;
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use url::Url;

use super::{FetchError, MAX_BYTES, SourceNetworks, guard::Hop, origin::Origin};
use crate::{ir::public, runtime::lookup, tenancy::Tenancy};

/// Redirects that are followed.
const MAX_REDIRECTS: usize = 5;
/// Time to open one connection.
const CONNECT: Duration = Duration::from_secs(5);

/// Asks over connections of its own, one for each request.
#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) networks: SourceNetworks,
    pub(super) tenancy: Tenancy,
    pub(super) tls: Arc<TlsConfig>,
    /// How long a server may keep a connection waiting, and after it the head of an answer.
    pub(super) silence: Duration,
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

// === impl Client ===

impl Client {
    /// Gets what is at `url`, through redirects, and tells who has answered in the end. What `authorizations`
    /// hold is shown to the one that it is for.
    pub(super) async fn get(
        &self,
        url: &str,
        accept: Option<&'static str>,
        authorizations: &[(Origin, HeaderValue)],
        is_first: bool,
    ) -> Result<(Origin, Response<Bytes>), FetchError> {
        let mut uri = parse(url)?;
        for hop in 0..=MAX_REDIRECTS {
            let origin = Origin::of(&uri);
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|types| (header::ACCEPT, HeaderValue::from_static(types))));
            let own = authorizations.iter().find(|(known, _)| *known == origin);
            headers.extend(own.map(|(_, value)| (header::AUTHORIZATION, value.clone())));
            let response = self.exchange(&uri, headers, is_first && hop == 0).await?;
            let location = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            match location {
                Some(location) if response.status().is_redirection() => uri = resolve(&uri, location)?,
                _ => return Ok((origin, response)),
            }
        }
        Err(FetchError::Redirects { url: public(url).to_owned() })
    }

    /// Gets the bytes at `url`.
    pub(super) async fn bytes(&self, url: &str) -> Result<Bytes, FetchError> {
        let (_, response) = self.get(url, None, &[], true).await?;
        match response.status() {
            StatusCode::OK => Ok(response.into_body()),
            status => Err(FetchError::Status { url: public(url).to_owned(), status }),
        }
    }

    async fn exchange(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        is_first: bool,
    ) -> Result<Response<Bytes>, FetchError> {
        let Origin { is_encrypted, host, port } = Origin::of(uri);
        let host = host.as_str();
        let silent = |_| FetchError::Silent { host: host.to_owned(), limit: self.silence };
        let connecting = self.connect(Hop { host, is_encrypted, is_first }, port);
        let io = timeout(self.silence, connecting).await.map_err(silent)??;
        let broken = |source| FetchError::Exchange { host: host.to_owned(), source };
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = Uri::try_from(path).unwrap_or_default();
        *request.headers_mut() = headers;
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if let Ok(authority) = HeaderValue::try_from(authority) {
            request.headers_mut().insert(header::HOST, authority);
        }
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("nantian-gateway"));
        let exchange = async move {
            let answered = timeout(self.silence, sender.send_request(request)).await.map_err(silent)?;
            let response = answered.map_err(broken)?;
            let (parts, body) = response.into_parts();
            match Limited::new(body, MAX_BYTES).collect().await {
                Ok(body) => Ok(Response::from_parts(parts, body.to_bytes())),
                Err(error) => Err(match error.downcast::<hyper::Error>() {
                    Ok(source) => broken(*source),
                    Err(_) => FetchError::TooLarge { limit: MAX_BYTES },
                }),
            }
        };
        // The connection has no task: whoever waits for the response moves it on.
        tokio::pin!(exchange, connection);
        tokio::select! {
            response = &mut exchange => response,
            _ = connection => exchange.await,
        }
    }

    async fn connect(&self, hop: Hop<'_>, port: u16) -> Result<Box<dyn Io>, FetchError> {
        let failed = |source| FetchError::Connect { host: hop.host.to_owned(), source };
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut stream = None;
        let addresses = lookup(hop.host, port).await.map_err(failed)?;
        for address in addresses {
            let ip = address.ip();
            self.networks.judge(self.tenancy, hop, ip).map_err(|reason| FetchError::Denied {
                host: hop.host.to_owned(),
                address: ip,
                reason,
            })?;
            // One that does not answer leaves time for the next.
            match timeout(CONNECT.min(self.silence / 2), TcpStream::connect(address)).await {
                Ok(Ok(connected)) => {
                    stream = Some(connected);
                    break;
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        let Some(stream) = stream else { return Err(failed(last)) };
        if !hop.is_encrypted {
            return Ok(Box::new(stream));
        }
        let name =
            ServerName::try_from(hop.host.to_owned()).map_err(|error| failed(io::Error::other(error)))?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        match timeout(CONNECT, handshake).await {
            Ok(Err(error)) if is_no_tls(&error) => Err(FetchError::NoTls { host: hop.host.to_owned() }),
            Ok(stream) => Ok(Box::new(stream.map_err(failed)?)),
            Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        }
    }
}

/// Whether a handshake has failed by what came being no record of TLS: mostly the answer of a server that
/// speaks HTTP.
fn is_no_tls(error: &io::Error) -> bool {
    let fault = error.get_ref().and_then(|fault| fault.downcast_ref());
    matches!(fault, Some(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)))
}

/// A URL that may be asked.
///
/// # Errors
/// When it is none.
pub(super) fn parse(url: &str) -> Result<Uri, FetchError> {
    let refused = |reason| FetchError::Url { url: without_credentials(public(url)), reason };
    let uri = Uri::try_from(url).map_err(|_| refused("it does not parse"))?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(refused("credentials are sent in no URL"));
    }
    match uri.scheme_str() {
        Some("https" | "http") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Some("https" | "http") => Err(refused("it names no host")),
        _ => Err(refused("only https, http and oci are asked")),
    }
}

/// A URL as it may be shown; a server may redirect to one that shows more.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '#']).unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// Where a redirect leads.
fn resolve(from: &Uri, location: &str) -> Result<Uri, FetchError> {
    let to = Url::parse(&from.to_string()).and_then(|from| from.join(location));
    parse(to.as_ref().map_or(location, Url::as_str))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_resolve_against_where_they_come_from() {
        let from = parse("https://a.example:8443/x/y").unwrap();
        assert_eq!(resolve(&from, "/z?q").unwrap(), "https://a.example:8443/z?q");
        assert_eq!(resolve(&from, "https://b.example/z").unwrap(), "https://b.example/z");
        assert_eq!(resolve(&from, "//b.example/z").unwrap(), "https://b.example/z");
        for (relative, path) in [
            ("z?q=a:b/../c", "/x/z?q=a:b/../c"),
            ("./z/", "/x/z/"),
            ("../z", "/z"),
            ("../../../z", "/z"),
            ("z/..", "/x/"),
            ("z..", "/x/z.."),
            ("..", "/"),
            ("?q", "/x/y?q"),
            ("", "/x/y"),
        ] {
            let expected = format!("https://a.example:8443{path}");
            assert_eq!(resolve(&from, relative).unwrap(), *expected, "{relative}");
        }
        for refused in ["ftp://a/b", "file:///etc/passwd", "data:x"] {
            assert!(resolve(&from, refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn credentials_in_a_url_are_neither_sent_nor_shown() {
        let from = parse("https://a.example/").unwrap();
        for (url, shown) in [
            ("https://user:secret@b.example/z?q", "https://b.example/z"),
            ("https://user:secret@b.example /", "https://b.example /"),
            ("ftp://secret@b.example", "ftp://b.example/"),
        ] {
            let error = resolve(&from, url).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{shown:?} is no URL")), "{error}");
        }
    }
}
