//! One downstream connection from its first byte to its last.

use std::{
    error::Error,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;

use super::{
    accept::PortKey,
    connections::Registration,
    forward::Peer,
    io::HeadScanIo,
    preamble::{self, Ends},
    service::ConnectionService,
    socket::ClientSocket,
    stall_timer::StreamExecutor,
    state::ConnectionCommand,
    unread::UnreadBody,
};
use crate::{
    body::BoxError,
    respond::ErrorChain,
    runtime::{Worker, note_read},
    snapshot::PortProtocol,
    socket::unanswered,
    stream::reset,
};

/// Bits of the number of a connection that count those of one worker.
const WORKER_SHIFT: u32 = 48;

/// What an HTTP/2 client begins with (RFC 9113, section 3.4), as far as it tells it from HTTP/1.1.
const PREFACE: &[u8] = b"PRI ";

/// The number of a connection among those of all workers, which do not count together.
fn connection_id(worker: usize, number: u64) -> u64 {
    let worker = u64::try_from(worker).unwrap_or(u64::MAX);
    number.wrapping_add(worker.wrapping_shl(WORKER_SHIFT))
}

/// Serves a connection until it ends, is told to, or its client is too slow.
pub(super) async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    key: PortKey,
    worker: Rc<Worker>,
    place: OwnedSemaphorePermit,
) {
    let registration = worker.connections.add(place, worker.config.max_connection_age);
    // One that has no address any more is gone.
    let Ok(local) = stream.local_addr() else { return };
    let own = Ends { client: peer, destination: local };
    let Some(ends) = preamble::ends(&mut stream, own, key, &worker, &registration).await else { return };
    let snapshot = worker.snapshot();
    let Some(port) = snapshot.port_of(&key, local.ip().to_canonical()) else { return };
    let (spoken, is_tls) = (port.spoken.clone(), port.is_tls());
    drop(snapshot);
    let client = ends.client;
    let mut peer = Peer::new(ends, local, is_tls, &worker.config.trusted_proxies);
    peer.connection = connection_id(worker.index(), worker.connections.number());
    let mut connection =
        ClientConnection { key, worker: Rc::clone(&worker), registration, client, local, peer };
    let served = match spoken {
        PortProtocol::Http => connection.serve_plain(stream).await,
        PortProtocol::Https(server) => {
            let secured = connection.secure(&server, stream).await;
            match connection.note(secured) {
                Some(stream) => connection.serve_tls(stream).await,
                None => Ok(()),
            }
        }
        PortProtocol::Tls(names) => connection.serve_by_name(stream, &names).await,
        PortProtocol::Stream(Some(route)) => connection.pass_on(stream, &[], &route).await,
        PortProtocol::Stream(None) => {
            reset(&stream);
            Ok(())
        }
        PortProtocol::Unusable => Ok(()),
    };
    if let Err(error) = served {
        tracing::debug!(error = %ErrorChain(error.as_ref()), "a client connection ended");
    }
}

/// One connection, its client, who may be behind a proxy, and where it came in.
pub(super) struct ClientConnection {
    pub(super) key: PortKey,
    pub(super) worker: Rc<Worker>,
    pub(super) registration: Registration,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    /// The client as requests know it.
    pub(super) peer: Peer,
}

pub(super) type Served = Result<(), BoxError>;

impl ClientConnection {
    async fn serve_plain(self, mut stream: TcpStream) -> Served {
        let Some(first) = self.registration.unless_ended(first_bytes(&mut stream)).await else {
            return Ok(());
        };
        let (first, socket) = (first?, self.socket(stream));
        if first.starts_with(PREFACE) {
            self.serve_http2(socket, first).await
        } else {
            self.serve_http1(socket, first).await
        }
    }

    /// The socket of this connection, whose writes are noted, and which ends if what is written does not
    /// arrive.
    pub(super) fn socket(&self, stream: TcpStream) -> ClientSocket {
        let pause = self.worker.config.timeouts.stall;
        ClientSocket::new(stream, self.registration.state.clone(), unanswered(pause))
    }

    pub(super) async fn serve_tls(self, stream: Box<TlsStream<ClientSocket>>) -> Served {
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            self.serve_http2(stream, Bytes::new()).await
        } else {
            self.serve_http1(stream, Bytes::new()).await
        }
    }

    async fn serve_http1<T>(self, io: T, first: Bytes) -> Served
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = HeadScanIo::http1(io, first, self.registration.state.clone());
        let max_head = self.worker.config.max_request_head;
        let (worker, client) = (Rc::clone(&self.worker), self.peer.address.ip());
        let state = self.registration.state.clone();
        let unread = UnreadBody::new(state.clone());
        let edge = ConnectionService::http1(self.key, self.worker, self.peer, state, unread.clone());
        let connection = http1::Builder::new()
            .header_read_timeout(None)
            .max_headers(MAX_HEADERS)
            .max_header_size(max_head)
            .max_buf_size(max_head.max(MIN_BUFFER))
            .serve_connection(TokioIo::new(io), edge)
            .with_upgrades();
        let served = supervise(
            Box::pin(connection),
            &self.registration,
            Some(&unread),
            ConnectionCommand::Finish,
            |it| it.graceful_shutdown(),
        );
        let served = served.await;
        if let Err(error) = &served
            && let Some(status) = answer_of_hyper(error.as_ref())
        {
            worker.refusals.note(None, client, status, 0, &ErrorChain(error.as_ref()));
        }
        served
    }

    async fn serve_http2<T>(self, io: T, first: Bytes) -> Served
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = HeadScanIo::http2(io, first, self.registration.state.clone());
        let max_head = u32::try_from(self.worker.config.max_request_head).unwrap_or(u32::MAX);
        // Its answer may lie behind all that a client takes its time for.
        let pong = self.worker.config.timeouts.stall.max(PONG);
        let state = self.registration.state.clone();
        let streams = StreamExecutor::new(state.clone());
        let edge = ConnectionService::http2(self.key, self.worker, self.peer, state, streams.clone());
        let connection = http2::Builder::new(streams)
            .timer(TokioTimer::new())
            .max_header_list_size(max_head)
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_local_error_reset_streams(MAX_FAULTS)
            .keep_alive_interval(Some(KEEP_ALIVE))
            .keep_alive_timeout(pong)
            .serve_connection(TokioIo::new(io), edge);
        let last = ConnectionCommand::Drain;
        supervise(Box::pin(connection), &self.registration, None, last, |it| it.graceful_shutdown()).await
    }
}

/// The status with which hyper has answered a head that it cannot read.
fn answer_of_hyper(error: &(dyn Error + 'static)) -> Option<StatusCode> {
    let error = error.downcast_ref::<hyper::Error>()?;
    match error.is_parse_too_large() {
        // Of the two that are too large hyper tells only in words which it is.
        true if error.to_string().starts_with("URI") => Some(StatusCode::URI_TOO_LONG),
        true => Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
        false => error.is_parse().then_some(StatusCode::BAD_REQUEST),
    }
}

/// Fields of a head, and of trailers; their bytes have a limit of their own. More are answered with 431, and
/// break off the body.
pub(super) const MAX_HEADERS: usize = 256;
/// hyper's least buffer.
const MIN_BUFFER: usize = 8192;
/// Streams of one HTTP/2 connection; what RFC 9113, section 6.5.2 recommends as the least.
const MAX_STREAMS: u32 = 128;
/// What a client may send of a request before its backend takes it, in bytes.
const STREAM_WINDOW: u32 = 256 * 1024;
/// What it may send of all: some uploads that stall hold up no other one, and memory stays bounded. Half of
/// it is also what h2 lets small frames that wait cost, 256 bytes less their length each, before it ends the
/// connection: so a stream of messages that its backend does not take for a moment has to wait long before.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;
/// What is held of the response on each stream when the connection takes no more, in bytes.
const SEND_BUFFER: usize = 64 * 1024;
/// How many frames may come, as long as a connection lives, on streams that h2 has reset and forgotten, or
/// that are faults: a proxy in front shares its connection among many clients. The bound is for the memory of
/// answers that nobody reads.
const MAX_FAULTS: usize = 16 * 1024;
/// How often an HTTP/2 client is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long it may take to answer that at least, whatever the stall timeout is.
const PONG: Duration = Duration::from_secs(20);

/// Polls a connection and does what its registration is told meanwhile; from the order `last` on it lets it
/// finish.
async fn supervise<C>(
    mut connection: Pin<Box<C>>,
    registration: &Registration,
    unread: Option<&UnreadBody>,
    last: ConnectionCommand,
    finish: fn(Pin<&mut C>),
) -> Served
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut finishing = false;
    let mut registered = false;
    poll_fn(|cx: &mut Context<'_>| {
        if !registered {
            registration.register(cx);
            registered = true;
        }
        loop {
            // What has arrived already is served, whatever the order is.
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(Into::into));
            }
            if unread.is_some_and(|unread| unread.poll(cx)) {
                continue;
            }
            match registration.order() {
                ConnectionCommand::Abort => return Poll::Ready(Err("the client is too slow".into())),
                order if order >= last && !finishing => {
                    finishing = true;
                    finish(connection.as_mut());
                }
                _ => return Poll::Pending,
            }
        }
    })
    .await
}

/// Reads until it is clear which version of HTTP is spoken.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Bytes> {
    let mut first = BytesMut::with_capacity(1024);
    loop {
        let read = stream.read_buf(&mut first).await?;
        note_read();
        if read == 0 || first.len() >= PREFACE.len() || !PREFACE.starts_with(&first) {
            return Ok(first.freeze());
        }
    }
}
