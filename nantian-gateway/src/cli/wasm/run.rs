//! `wasm run`.

use std::{collections::HashMap, io::Write, net::SocketAddr};

use anyhow::Context as _;
use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING},
    uri::Authority,
};
use nantian_wasm::{Module, Plugin, PluginConfig, PluginError, StreamInfo};
use tokio::runtime::Builder;

use super::{
    GuestLog, RunOptions, engine, message, print, read,
    replay::{Pieces, Replay, Replies, replay},
};
use crate::respond::ErrorChain;

/// Takes one exchange through the plugin and writes what it did; returns whether it did not fail it.
///
/// # Errors
/// When a file cannot be read or understood, or the output not written.
pub(super) fn run(options: &RunOptions, log: &GuestLog, out: &mut impl Write) -> anyhow::Result<bool> {
    let (request, response) = (request(options)?, response(options)?);
    let given = options.plugin.given()?;
    let max_memory = given.config.sandbox.max_memory;
    let engine = engine()?;
    let module = match Module::compile(&engine, &given.module, given.sha256) {
        Ok(module) => module,
        Err(error) => {
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            return Ok(false);
        }
    };
    let plugin = match start(&module, given.config, options)? {
        Ok(plugin) => plugin,
        Err(error) => {
            print::log(&log.take(), out)?;
            writeln!(out, "refused    {}", ErrorChain(&error))?;
            return Ok(false);
        }
    };
    let size = options.chunk_bytes.map(usize::try_from).transpose()?;
    let pieces = |body: Bytes| Pieces::new(body, size);
    let runtime = Builder::new_current_thread().build()?;
    let (sent, answer) = (request.clone().map(pieces), response.clone().map(pieces));
    let exchange = replay(plugin.clone(), stream_info(options, &request), sent, answer);
    let replayed = runtime.block_on(exchange).map_err(|error| anyhow::anyhow!(error))?;
    print::log(&log.take(), out)?;
    show_exchange(&request, &response, &replayed, out)?;
    let status = plugin.status();
    print::budgets("spent", &status.peaks, out)?;
    writeln!(out, "           {:<30} {} of {max_memory}", "bytes of memory", status.memory)?;
    let failure = replayed.failure.as_ref().or(status.last_failure.as_ref());
    match (failure, &replayed.sent) {
        (Some(failure), _) => writeln!(out, "outcome    failed: {}", ErrorChain(failure))?,
        (None, Some(_)) => writeln!(out, "outcome    passed")?,
        (None, None) => writeln!(out, "outcome    answered by the plugin")?,
    }
    if failure.is_some() && !status.last_backtrace.is_empty() {
        print::list("backtrace", &status.last_backtrace, out)?;
    }
    Ok(failure.is_none())
}

fn start(
    module: &Module,
    mut config: PluginConfig,
    options: &RunOptions,
) -> anyhow::Result<Result<Plugin, PluginError>> {
    let mut replies = HashMap::new();
    for reply in &options.reply {
        let (upstream, path) = reply.split_once('=').with_context(|| format!("--reply {reply}: no `=`"))?;
        let response = message::response(&read(path.as_ref())?).with_context(|| path.to_owned())?;
        replies.insert(upstream.to_owned(), response);
    }
    if options.plugin.manifest.is_none() {
        config.sandbox.allow_network = !replies.is_empty();
    }
    Ok(Plugin::with_host(module, config, Replies::new(replies)))
}

/// What the plugin is told of the client and the route, as it is in a gateway.
fn stream_info(options: &RunOptions, request: &Request<Bytes>) -> StreamInfo {
    let port = if options.tls { 443 } else { 80 };
    let info = StreamInfo::default()
        .with_source(options.source)
        .with_destination(SocketAddr::from(([127, 0, 0, 1], port)))
        .with_connection_id(1)
        .with_route(&*options.route)
        .with_tls(options.tls);
    let host = request.headers().get(HOST).and_then(|host| Authority::try_from(host.as_bytes()).ok());
    match host.filter(|_| options.tls) {
        Some(host) => info.with_tls_version("TLSv1.3").with_server_name(host.host()),
        None => info,
    }
}

fn request(options: &RunOptions) -> anyhow::Result<Request<Bytes>> {
    if let Some(path) = &options.request {
        let mut request = message::request(&read(path)?).with_context(|| path.display().to_string())?;
        let length = request.body().len();
        say_length(request.headers_mut(), length);
        return Ok(request);
    }
    let body = options.data.clone().unwrap_or_default();
    let method = if options.data.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = options.method.as_ref().map_or(Ok(method), |method| method.parse())?;
    *request.uri_mut() = options.path.parse().with_context(|| format!("--path {}", options.path))?;
    request.headers_mut().insert(HOST, HeaderValue::from_static("example.com"));
    for line in &options.header {
        let (name, value) = message::header(line).context("--header")?;
        if name == HOST {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    if options.data.is_some() {
        // As `curl -d` does: plugins tell by it that there is a body.
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().entry(CONTENT_TYPE).or_insert(form);
        let length = request.body().len();
        say_length(request.headers_mut(), length);
    }
    Ok(request)
}

/// Says how long a body is that comes in no other framing, as whoever sends it does.
fn say_length(headers: &mut HeaderMap, length: usize) {
    if length > 0 && !headers.contains_key(TRANSFER_ENCODING) {
        headers.entry(CONTENT_LENGTH).or_insert(length.into());
    }
}

fn response(options: &RunOptions) -> anyhow::Result<Response<Bytes>> {
    let mut response = match &options.response {
        Some(path) => message::response(&read(path)?).with_context(|| path.display().to_string())?,
        None => Response::new(Bytes::from_static(b"ok\n")),
    };
    let length = response.body().len();
    say_length(response.headers_mut(), length);
    Ok(response)
}

fn show_exchange(
    request: &Request<Bytes>,
    response: &Response<Bytes>,
    replayed: &Replay,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match &replayed.sent {
        Some((parts, body)) => {
            let line = |method: &Method, uri: &http::Uri| format!("{method} {uri}");
            let before = line(request.method(), request.uri());
            print::first_line("request", &before, &line(&parts.method, &parts.uri), out)?;
            print::headers(request.headers(), &parts.headers, out)?;
            print::body(request.body(), body, out)?;
        }
        None => writeln!(out, "request    not passed on")?,
    }
    let (parts, body) = &replayed.received;
    let status = parts.status.to_string();
    if replayed.sent.is_some() && replayed.failure.is_none() {
        print::first_line("response", &response.status().to_string(), &status, out)?;
        print::headers(response.headers(), &parts.headers, out)?;
        print::body(response.body(), body, out)
    } else {
        print::first_line("response", "", &status, out)?;
        print::headers(&HeaderMap::new(), &parts.headers, out)?;
        print::body(&Bytes::new(), body, out)
    }
}
