//! One test: a gateway is started, asked, and its conditions are read.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::Instant};
use tokio_rustls::TlsConnector;

use super::{
    echo::{Backends, ECHOES, SERVICES},
    expect::{Exchange, Expected, Step},
    world::{OFFSET, Objects, moved},
};
use crate::support::{Caller, Certificate, Port, Running, Wire, World};

/// Requests that are sent to see how they are shared out.
const SHARED: usize = 600;
/// How far a share may be off, in percent.
const TOLERANCE: f64 = 10.0;
/// Requests that are sent to see how many of them are copied.
const COPIED: usize = 500;
/// How often a token is made up, over all tests.
static TOKENS: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

pub(super) struct Case {
    expected: Expected,
    objects: Objects,
    certificates: BTreeMap<String, Certificate>,
    backends: Backends,
}

/// What came back.
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    fn backend(&self) -> &str {
        self.header("x-backend").split_once('/').map_or("", |(_, name)| name)
    }
}

impl Case {
    pub(super) fn new(number: usize, text: &str, backends: Backends) -> Self {
        let (expected, documents) = Expected::read(text);
        let mut objects = Objects::new(number, documents);
        for service in SERVICES {
            objects.endpoint(service, "TCP", backends.addresses[service].port());
        }
        for service in ECHOES {
            objects.endpoint(service, "UDP", backends.addresses[service].port());
        }
        for (alias, service) in &expected.aliases {
            let port = backends.addresses[&format!("infra/{service}")].port();
            objects.endpoint(&format!("infra/{alias}"), "TCP", port);
        }
        let mut certificates = BTreeMap::new();
        for (name, hosts) in &expected.certificates {
            let certificate = match hosts.as_slice() {
                [uri] if uri.contains("://") => Certificate::of_uri(uri),
                hosts => Certificate::new(&hosts.iter().map(String::as_str).collect::<Vec<_>>()),
            };
            let (namespace, secret) = name.split_once('/').unwrap_or(("infra", name));
            objects.apply(json!({
                "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": secret, "namespace": namespace},
                "stringData": {"tls.crt": certificate.pem(), "tls.key": certificate.key_pem()},
            }));
            certificates.insert(name.clone(), certificate);
        }
        for (name, certificate) in &expected.authorities {
            let pem = certificates[certificate].pem();
            objects.apply(json!({"kind": "ConfigMap", "metadata": {"name": name}, "data": {"ca.crt": pem}}));
        }
        Self { expected, objects, certificates, backends }
    }

    /// All that is not as it should be.
    pub(super) async fn run(mut self) -> Vec<String> {
        for (service, secured) in std::mem::take(&mut self.expected.secured) {
            let certificate = &self.certificates[&secured.certificate];
            let config = match &secured.client {
                Some(client) => certificate.server_for(&self.certificates[client]),
                None => certificate.server_offering(&["h2", "http/1.1"]),
            };
            let address = self.backends.secured(&format!("infra/{service}"), config).await;
            self.objects.endpoint(&format!("infra/{service}"), "TCP", address.port());
        }
        let world = World::with_listeners(Port::reserve(), &[]).manifest("gateway", &self.objects.text());
        let running = world.start().await;
        let first = std::mem::take(&mut self.expected.first);
        let mut failures = self.check(&running, &first).await;
        for (number, mut step) in std::mem::take(&mut self.expected.steps).into_iter().enumerate() {
            for object in std::mem::take(&mut step.apply) {
                self.objects.apply(object);
            }
            running.edit("gateway", &self.objects.text()).await;
            let of_step = self.check(&running, &step).await;
            failures.extend(of_step.into_iter().map(|failure| format!("step {}: {failure}", number + 1)));
        }
        failures
    }

    async fn check(&self, running: &Running, step: &Step) -> Vec<String> {
        let config = running.config().await;
        let statuses = &config["conditions"];
        let mut failures = self.stale(statuses);
        for line in &step.conditions {
            let (subject, wanted) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            let wanted: Vec<_> = wanted.split(' ').collect();
            let conditions = section(statuses, subject).map(|section| section["conditions"].clone());
            let conditions = conditions.unwrap_or_default();
            let found = conditions.as_array().into_iter().flatten().find(|known| known["type"] == wanted[0]);
            let is_met = match (found, &wanted[1..]) {
                (None, ["absent"]) => true,
                (Some(found), [status, reason]) => {
                    found["status"] == **status && (*reason == "*" || found["reason"] == **reason)
                }
                (Some(found), [status]) => found["status"] == **status,
                _ => false,
            };
            if !is_met {
                failures.push(format!("{line}, but {}", found.unwrap_or(&Value::Null)));
            }
        }
        for (subject, count) in &step.attached {
            let found = section(statuses, subject).map(|section| section["attachedRoutes"].clone());
            if found != Some((*count).into()) {
                failures.push(format!("{subject}: {count} attached, but {found:?}"));
            }
        }
        for (subject, count) in &step.sets {
            let found = statuses[subject]["attachedListenerSets"].as_u64().unwrap_or_default();
            if found != *count {
                failures.push(format!("{subject}: {count} sets, but {found}"));
            }
        }
        for (subject, kinds) in &step.kinds {
            let found = section(statuses, subject).map(|section| section["supportedKinds"].clone());
            let found: Vec<_> = found.iter().flat_map(|found| found.as_array().unwrap()).collect();
            let found: Vec<_> = found.iter().map(|kind| kind["kind"].as_str().unwrap()).collect();
            if !kinds.iter().all(|kind| found.contains(&&**kind)) || found.len() != kinds.len() {
                failures.push(format!("{subject}: {kinds:?}, but {found:?}"));
            }
        }
        for exchange in &step.requests {
            failures.extend(self.exchange(exchange).await.map(|failure| format!("{exchange:?}: {failure}")));
        }
        failures
    }

    /// Conditions that are about another generation than that of their object.
    fn stale(&self, statuses: &Value) -> Vec<String> {
        let mut failures = Vec::new();
        for (object, generation) in self.objects.generations() {
            let mut observed = Vec::new();
            generations(&statuses[&object], &mut observed);
            if observed.is_empty() || observed.iter().any(|observed| *observed != Some(generation)) {
                failures
                    .push(format!("{object} is in generation {generation}, its conditions in {observed:?}"));
            }
        }
        failures
    }

    /// Sends a request, and says what is wrong with the answer.
    async fn exchange(&self, exchange: &Exchange) -> Option<String> {
        if !exchange.shares.is_empty() {
            return self.share_out(exchange).await;
        }
        if !exchange.copies.is_empty() {
            return self.copied(exchange).await;
        }
        let token = token();
        let reply = match self.ask(exchange, &token).await {
            Ok(_) if exchange.refused => return Some("not refused".to_owned()),
            Ok(reply) => reply,
            Err(_) if exchange.refused => return None,
            Err(error) => return Some(error),
        };
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        let expected = exchange.status.unwrap_or(200);
        // Gateway API leaves open which of the server's errors it is.
        if reply.status != expected && !(expected == 599 && (500..600).contains(&reply.status)) {
            return Some(format!("status {}, {text}", reply.status));
        }
        if let Some(expected) = exchange.grpc_status
            && reply.header("grpc-status") != expected.to_string()
        {
            return Some(format!("grpc-status {:?}", reply.header("grpc-status")));
        }
        if exchange.backend.as_deref().is_some_and(|backend| backend != reply.backend()) {
            return Some(format!("from {:?}", reply.backend()));
        }
        if let Some(wanted) = &exchange.location
            && plain(reply.header("location")) != *wanted
        {
            return Some(format!("location {:?}", reply.header("location")));
        }
        for (name, wanted) in &exchange.answer {
            if reply.header(name) != wanted {
                return Some(format!("answers {name}: {:?}", reply.header(name)));
            }
        }
        let seen: Value = serde_json::from_str(&text).unwrap_or_default();
        for (name, wanted) in &exchange.seen {
            let found = seen[name].as_str().unwrap_or_default();
            if found != wanted {
                return Some(format!("the backend saw {name}: {found:?}"));
            }
        }
        self.mirrored(exchange, &token).await
    }

    async fn mirrored(&self, exchange: &Exchange, token: &str) -> Option<String> {
        let begun = Instant::now();
        let is_missing = |service: &&String| self.backends.seen(&format!("infra/{service}"), token) == 0;
        while let Some(missing) = exchange.mirrors.iter().find(is_missing) {
            if begun.elapsed() > Duration::from_secs(60) {
                return Some(format!("no copy has come to {missing}"));
            }
            tokio::task::yield_now().await;
        }
        None
    }

    async fn share_out(&self, exchange: &Exchange) -> Option<String> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..SHARED {
            match self.ask(exchange, "").await {
                Ok(reply) => *counts.entry(reply.backend().to_owned()).or_default() += 1,
                Err(error) => return Some(error),
            }
        }
        let percentage = |name: &String| {
            let count = counts.get(name).copied().unwrap_or_default();
            100.0 * f64::from(u32::try_from(count).unwrap()) / f64::from(u32::try_from(SHARED).unwrap())
        };
        let is_off = |(name, wanted): &(&String, &f64)| {
            let found = percentage(name);
            (found - **wanted).abs() > TOLERANCE || (**wanted == 0.0 && found > 0.0)
        };
        exchange.shares.iter().find(is_off).map(|(name, _)| format!("{name} got {}", percentage(name)))
    }

    async fn copied(&self, exchange: &Exchange) -> Option<String> {
        let token = token();
        for _ in 0..COPIED {
            if let Err(error) = self.ask(exchange, &token).await {
                return Some(error);
            }
        }
        let begun = Instant::now();
        let count = |service: &String| self.backends.seen(&format!("infra/{service}"), &token);
        // A twentieth may be missing, or too many.
        let is_off =
            |(service, wanted): &(&String, &usize)| count(service).abs_diff(**wanted) > **wanted / 20;
        while let Some((service, _)) = exchange.copies.iter().find(is_off) {
            if begun.elapsed() > Duration::from_secs(60) {
                return Some(format!("{} copies have come to {service}", count(service)));
            }
            tokio::task::yield_now().await;
        }
        None
    }

    async fn ask(&self, exchange: &Exchange, token: &str) -> Result<Reply, String> {
        let gateway = exchange.gateway.as_deref().unwrap_or("infra/same-namespace");
        let port = exchange.port.unwrap_or(if exchange.name.is_some() { 443 } else { 80 });
        let address = SocketAddr::from((self.objects.address(gateway), moved(port)));
        if exchange.datagram {
            return Ok(say(address, token).await);
        }
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        match &exchange.name {
            None => send(stream, exchange, token).await,
            Some(name) => {
                let trusted: Vec<_> = self.certificates.values().collect();
                let protocols: &[&str] = if exchange.call { &["h2"] } else { &[] };
                let mut config = Certificate::client(&trusted, protocols);
                if let Some(client) = &exchange.client {
                    config = self.certificates[client].presented_by(&config);
                }
                let name = ServerName::try_from(name.clone()).unwrap();
                let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
                send(stream.map_err(|error| error.to_string())?, exchange, token).await
            }
        }
    }
}

/// Sends a datagram, and hears who sends it back.
async fn say(to: SocketAddr, token: &str) -> Reply {
    let answer = Caller::new(to).await.insist(token).await;
    let (backend, body) = answer.split_once(' ').unwrap();
    assert_eq!(body, token);
    Reply { status: 200, headers: vec![("x-backend".to_owned(), backend.to_owned())], body: Vec::new() }
}

fn token() -> String {
    format!("t{}", TOKENS.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
}

async fn send<T: crate::support::Stream + 'static>(
    stream: T,
    exchange: &Exchange,
    token: &str,
) -> Result<Reply, String> {
    let host = exchange.host.as_deref().or(exchange.name.as_deref()).unwrap_or("example.com");
    let path = exchange.path.as_deref().unwrap_or("/");
    let method = exchange.method.as_deref().unwrap_or(if exchange.call { "POST" } else { "GET" });
    if exchange.call {
        let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(format!("http://{host}{path}"));
        request = request
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("x-token", token);
        for (name, value) in &exchange.headers {
            request = request.header(name, value);
        }
        let response = client.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await;
        let (parts, body) = response.map_err(|error| error.to_string())?.into_parts();
        let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes().to_vec();
        let headers =
            parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        return Ok(Reply { status: parts.status.as_u16(), headers: headers.collect(), body });
    }
    let mut wire = Wire::over(stream);
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-token: {token}\r\n");
    for (name, value) in &exchange.headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    wire.write(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut reply = wire.head().await.map_err(|error| error.to_string())?;
    let status = reply.status();
    if status != 101 {
        wire.body_of(&mut reply).await.map_err(|error| error.to_string())?;
    }
    Ok(Reply { status, headers: reply.headers, body: reply.body })
}

/// The status of an object, or of a listener, a parent or an ancestor of it.
fn section<'s>(statuses: &'s Value, subject: &str) -> Option<&'s Value> {
    let mut words = subject.split(' ');
    let object = format!("{} {}", words.next()?, words.next()?);
    let status = statuses.get(&object)?;
    let Some(section) = words.next() else {
        let only = ["parents", "ancestors"].into_iter().find_map(|list| status.get(list));
        return only.map_or(Some(status), |list| list.get(0));
    };
    let named = |entry: &&Value, list: &str| match list {
        "listeners" => entry["name"] == section,
        "parents" => place(&entry["parentRef"]) == section || entry["parentRef"]["name"] == section,
        _ => entry["ancestorRef"]["name"] == section,
    };
    ["listeners", "parents", "ancestors"]
        .into_iter()
        .find_map(|list| status.get(list)?.as_array()?.iter().find(|entry| named(entry, list)))
}

/// `name[/section][:port]` of a parent.
fn place(parent: &Value) -> String {
    let section = parent["sectionName"].as_str().map(|section| format!("/{section}"));
    let port = parent["port"].as_u64().map(|port| format!(":{}", port - u64::from(OFFSET)));
    let name = parent["name"].as_str().unwrap_or_default();
    format!("{name}{}{}", section.unwrap_or_default(), port.unwrap_or_default())
}

fn generations(status: &Value, observed: &mut Vec<Option<i64>>) {
    match status {
        Value::Object(fields) if fields.contains_key("reason") => {
            observed.push(fields.get("observedGeneration").and_then(Value::as_i64))
        }
        Value::Object(fields) => fields.values().for_each(|field| generations(field, observed)),
        Value::Array(list) => list.iter().for_each(|entry| generations(entry, observed)),
        _ => {}
    }
}

/// A location as if ports were not moved; the usual port of a scheme goes without saying.
fn plain(location: &str) -> String {
    location.replace(":20080", "").replace(":20443", "").replace(":28080", ":8080").replace(":28443", ":8443")
}
