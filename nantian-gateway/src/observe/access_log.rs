//! The access log: one JSON object a line, written by a thread of its own.

use std::{
    io::Write,
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, Request, Uri, Version, header, request::Parts};
use serde::Serialize;

use super::{AiCalls, LineWriter};
use crate::{body::Body, listen::RequestInfo, upstream::SentTo};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The access log; its clones share it.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog(LineWriter);

impl AccessLog {
    /// A log and the loop that writes its lines to `out`, to be run on a thread of its own. Lines that are
    /// lost are counted in `lost`.
    ///
    /// The loop ends when the last clone of the log is gone.
    pub(crate) fn new<W: Write + Send + 'static>(
        out: W,
        lost: Arc<AtomicU64>,
    ) -> (Self, impl FnOnce() + Send + 'static) {
        let (lines, write) = LineWriter::new("access log", out, lost);
        (Self(lines), write)
    }

    /// Writes of a connection that has ended.
    pub(crate) fn write_stream(&self, entry: &StreamEntry<'_>) {
        self.write(entry);
    }

    pub(super) fn write(&self, entry: &impl Serialize) {
        let mut line = serde_json::to_vec(entry).unwrap_or_default();
        line.push(b'\n');
        self.0.write(line);
    }
}

/// What is kept of an exchange until it is over; absent is what could not be read.
#[derive(Debug, Default)]
pub(super) struct LoggedRequest {
    method: Option<Method>,
    uri: Option<Uri>,
    version: Option<Version>,
    host: String,
    client: Option<String>,
    user_agent: Option<String>,
    trace_id: Option<String>,
    sent_to: SentTo,
    pub(super) ai_calls: AiCalls,
    /// Why the request was refused, or why the response broke off.
    pub(super) error: Option<String>,
}

impl LoggedRequest {
    pub(super) fn of(request: &mut Request<Body>) -> Self {
        let (sent_to, ai_calls) = (SentTo::default(), AiCalls::default());
        request.extensions_mut().insert(sent_to.clone());
        request.extensions_mut().insert(ai_calls.clone());
        let info = request.extensions().get::<RequestInfo>();
        Self {
            sent_to,
            ai_calls,
            method: Some(request.method().clone()),
            uri: Some(request.uri().clone()),
            version: Some(request.version()),
            host: info.map(|info| info.host.to_string()).unwrap_or_default(),
            client: info.map(|info| info.client.to_string()),
            user_agent: text(request.headers(), &header::USER_AGENT),
            trace_id: trace_id(request.headers()),
            error: None,
        }
    }

    /// Whether the response has no content, whatever its head says.
    pub(super) fn is_head(&self) -> bool {
        self.method == Some(Method::HEAD)
    }

    /// A request that was refused; `None` is one whose head could not be read.
    pub(super) fn of_refused(request: Option<&Parts>, client: IpAddr, why: String) -> Self {
        let (client, error) = (Some(client.to_string()), Some(why).filter(|why| !why.is_empty()));
        let Some(parts) = request else { return Self { client, error, ..Self::default() } };
        let authority = parts.uri.authority().map(|authority| authority.as_str().to_owned());
        Self {
            method: Some(parts.method.clone()),
            uri: Some(parts.uri.clone()),
            version: Some(parts.version),
            host: authority.or_else(|| text(&parts.headers, &header::HOST)).unwrap_or_default(),
            client,
            user_agent: text(&parts.headers, &header::USER_AGENT),
            trace_id: trace_id(&parts.headers),
            error,
            ..Self::default()
        }
    }
}

fn trace_id(headers: &HeaderMap) -> Option<String> {
    text(headers, &TRACEPARENT).and_then(|value| value.split('-').nth(1).map(str::to_owned))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

/// One line. The query is left out: it often carries credentials.
pub(super) struct Entry<'a> {
    pub(super) route: &'a str,
    pub(super) request: &'a LoggedRequest,
    pub(super) status: Option<u16>,
    pub(super) bytes: u64,
    pub(super) took: Duration,
}

/// One line for a connection, or a session of datagrams, that was passed on as it was.
#[derive(Debug)]
pub(crate) struct StreamEntry<'a> {
    /// The route.
    pub(crate) route: &'a str,
    /// What the client spoke.
    pub(crate) protocol: &'static str,
    /// The client.
    pub(crate) client: IpAddr,
    /// The server name of TLS that it asked for; may be empty.
    pub(crate) host: &'a str,
    /// Where it was passed on to, if it was.
    pub(crate) endpoint: Option<String>,
    /// Bytes from the client.
    pub(crate) received: u64,
    /// Bytes to the client.
    pub(crate) sent: u64,
    /// From the first byte to the last.
    pub(crate) took: Duration,
    /// Why it did not end by itself.
    pub(crate) error: Option<&'a str>,
}

impl Serialize for StreamEntry<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &since_epoch.as_secs_f64())?;
        map.serialize_entry("route", self.route)?;
        map.serialize_entry("client", &self.client)?;
        map.serialize_entry("host", self.host)?;
        map.serialize_entry("protocol", self.protocol)?;
        map.serialize_entry("endpoint", &self.endpoint)?;
        map.serialize_entry("bytes", &self.sent)?;
        map.serialize_entry("received_bytes", &self.received)?;
        map.serialize_entry("duration_ms", &(self.took.as_secs_f64() * 1e3))?;
        map.serialize_entry("error", &self.error)?;
        map.end()
    }
}

impl Serialize for Entry<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let request = self.request;
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("time", &since_epoch.as_secs_f64())?;
        map.serialize_entry("route", self.route)?;
        map.serialize_entry("client", &request.client)?;
        map.serialize_entry("method", &request.method.as_ref().map(Method::as_str))?;
        map.serialize_entry("host", &request.host)?;
        map.serialize_entry("path", &request.uri.as_ref().map(Uri::path))?;
        let protocol = request.version.map(|version| format!("{version:?}"));
        map.serialize_entry("protocol", &protocol)?;
        map.serialize_entry("endpoint", &request.sent_to.get())?;
        map.serialize_entry("status", &self.status)?;
        map.serialize_entry("bytes", &self.bytes)?;
        map.serialize_entry("duration_ms", &(self.took.as_secs_f64() * 1e3))?;
        map.serialize_entry("user_agent", &request.user_agent)?;
        map.serialize_entry("trace_id", &request.trace_id)?;
        map.serialize_entry("error", &request.error)?;
        let ai_calls = request.ai_calls.take();
        if !ai_calls.is_empty() {
            map.serialize_entry("ai", &ai_calls)?;
        }
        map.end()
    }
}
