//! One HTTP/1.1 connection, polled by the request that holds it.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body::{Body as _, Frame};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use hyper_util::rt::TokioIo;
use tokio::{task::unconstrained, time::Instant};

use super::{Destination, connect::Io, connection_waker::ConnectionWaker, http1_io::Http1Io};
use crate::body::Body;

/// Fields of the head of a response, and of trailers; hyper limits their bytes. More are answered with 502.
const MAX_HEADERS: usize = 256;

/// hyper's connection with upgrades, a type without a name.
type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A connection together with the handle that feeds it.
///
/// hyper splits a connection into a driver and a sender, so that a task of its own can run the driver.
/// Here the holder polls the driver itself, and the halves talk to each other without a waker: whenever one
/// of them has made progress, the other is polled in the same call.
pub(super) struct Http1 {
    sender: SendRequest<Body>,
    /// None once it has ended: what it held, a request that it never took for instance, is given back when it
    /// is dropped.
    driver: Option<Driver>,
    pub(super) destination: Destination,
    pub(super) opened: Instant,
    connection_waker: Arc<ConnectionWaker>,
    /// The same, as a [`Waker`].
    waker: Waker,
    /// How long it may be unused, as far as the backend has said.
    kept_for: Option<Duration>,
    /// What follows on it would not be as on any other connection.
    is_private: bool,
}

impl Http1 {
    /// Wraps a fresh connection to `destination`.
    pub(super) async fn handshake(io: Io, destination: Destination) -> hyper::Result<Self> {
        let mut builder = http1::Builder::new();
        builder.max_headers(MAX_HEADERS);
        let (sender, driver) = builder.handshake(TokioIo::new(Http1Io::new(io))).await?;
        let connection_waker = Arc::new(ConnectionWaker::default());
        let waker = Waker::from(Arc::clone(&connection_waker));
        Ok(Self {
            sender,
            driver: Some(Box::pin(driver.with_upgrades())),
            destination,
            opened: Instant::now(),
            connection_waker,
            waker,
            kept_for: None,
            is_private: false,
        })
    }

    /// Hands `request` to the connection, which writes it as soon as it is polled.
    pub(super) fn begin(
        &mut self,
        request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Body>>>> + use<> {
        let mut credentials = request.headers().get_all(header::AUTHORIZATION).iter();
        self.is_private |= credentials.any(|field| is_of_connections(field.as_bytes()));
        let (connection_waker, sender) = (&self.connection_waker, &mut self.sender);
        connection_waker.muted(|| sender.try_send_request(request))
    }

    /// Polls the connection until `response`, which [`begin`](Self::begin) gave, has its head.
    ///
    /// # Errors
    /// The error carries the request if nothing of it was written.
    ///
    /// # Cancellation
    /// Dropping the future leaves the connection in the middle of an exchange; it must be dropped too.
    pub(super) async fn head<F: Future>(&mut self, response: F) -> F::Output {
        // A turn that its own budget denies would be given back to no task: the waker below is none.
        let mut response = pin!(unconstrained(response));
        poll_fn(|cx| {
            self.drive(cx);
            response.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        })
        .await
    }

    /// Notes what the head of a response says of the connection.
    pub(super) fn learn(&mut self, response: &HeaderMap) {
        self.kept_for = response.get("keep-alive").and_then(kept_for);
    }

    /// Closes it after this exchange: no other may follow on it.
    pub(super) fn keep_from_others(&mut self) {
        self.is_private = true;
    }

    /// Whether the backend still keeps it after it was unused since `since`.
    pub(super) fn is_kept(&self, since: Instant) -> bool {
        self.kept_for.is_none_or(|kept_for| since.elapsed() < kept_for)
    }

    /// Polls the body of the response.
    pub(super) fn poll_frame(
        &mut self,
        body: &mut Incoming,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.connection_waker.muted(|| poll_muted(body)) {
            Poll::Pending => {
                self.drive(cx);
                self.connection_waker.muted(|| poll_muted(body))
            }
            ready => ready,
        }
    }

    /// Lets the connection read and write what it can.
    pub(super) fn drive(&mut self, cx: &Context<'_>) {
        // An error of the driver reaches the exchange through the sender or the body.
        let Some(driver) = &mut self.driver else { return };
        self.connection_waker.set(cx);
        if driver.as_mut().poll(&mut Context::from_waker(&self.waker)).is_ready() {
            self.driver = None;
        }
    }

    /// Whether the exchange is over and the connection can take another request; nobody is woken any more.
    pub(super) fn rest(&mut self) -> bool {
        if !self.sender.is_ready() {
            self.drive(&Context::from_waker(Waker::noop()));
        }
        self.connection_waker.unset();
        !self.has_ended() && !self.is_private && self.sender.is_ready()
    }

    /// Whether a connection at rest can still take a request.
    pub(super) fn is_ready(&mut self) -> bool {
        if self.connection_waker.is_woken() {
            self.drive(&Context::from_waker(Waker::noop()));
        }
        !self.has_ended() && self.sender.is_ready()
    }

    /// Whether the driver has ended, because the connection did or because it was upgraded.
    pub(super) fn has_ended(&self) -> bool {
        self.driver.is_none()
    }
}

/// How long a connection is safe to use after a response with this `Keep-Alive` field (RFC 2068, section
/// 19.7.1; node and Apache write it): a second less than the backend says, but at least half of it, because a
/// request on its way when the backend closes is lost, and cannot be sent again if it is not idempotent.
fn kept_for(field: &HeaderValue) -> Option<Duration> {
    let seconds = field.to_str().ok()?.split(',').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        let is_time = name.trim().eq_ignore_ascii_case("timeout");
        is_time.then(|| value.trim().trim_matches('"').parse::<u32>().ok())?
    })?;
    let said = Duration::from_secs(seconds.into());
    Some(said.saturating_sub(Duration::from_secs(1)).max(said / 2))
}

/// Whether credentials or a challenge are of a scheme that authenticates the connection, and with it whatever
/// follows there (RFC 4559, section 6).
fn is_of_connections(text: &[u8]) -> bool {
    let scheme = text.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
}

/// Polls a body without a waker: only the driver makes it ready, and that is polled right after.
fn poll_muted(body: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

impl fmt::Debug for Http1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http1")
            .field("destination", &self.destination)
            .field("ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::{
        ir::{Address, Protocol},
        upstream::Security,
    };

    /// A socket and its other end.
    async fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (stream, listener.accept().await.unwrap().0)
    }

    async fn connection(stream: TcpStream) -> Http1 {
        let destination = Destination {
            address: Address::Ip(stream.peer_addr().unwrap()),
            protocol: Protocol::Http1,
            security: Security::Plain,
        };
        Http1::handshake(Io::Plain(stream), destination).await.unwrap()
    }

    /// As of a connection in the pool that its backend has closed, and that nobody was told of yet.
    #[tokio::test]
    async fn request_that_meets_a_closed_connection_is_given_back() {
        let (stream, backend) = sockets().await;
        drop(backend);
        stream.readable().await.unwrap();
        let mut connection = connection(stream).await;
        let response = connection.begin(Request::new(Body::empty()));
        let mut error = connection.head(response).await.unwrap_err();
        assert!(error.take_message().is_some(), "nothing of it was written");
        assert!(connection.has_ended());
    }

    /// As much is held of each response that its client does not take.
    #[tokio::test]
    async fn little_of_a_response_is_read_at_once_though_its_head_may_be_large() {
        const LENGTH: usize = 4 << 20;
        let (stream, mut backend) = sockets().await;
        let mut connection = connection(stream).await;
        let answered = async {
            assert!(backend.read(&mut [0; 1024]).await.unwrap() > 0);
            let large = "x".repeat(300_000);
            let head = format!("HTTP/1.1 200 OK\r\nx-large: {large}\r\ncontent-length: {LENGTH}\r\n\r\n");
            backend.write_all(head.as_bytes()).await.unwrap();
            backend.write_all(&vec![b'x'; LENGTH]).await.unwrap();
        };
        let received = async {
            let response = connection.begin(Request::new(Body::empty()));
            let mut response = connection.head(response).await.unwrap();
            assert_eq!(response.headers()["x-large"].len(), 300_000);
            let mut lengths = Vec::new();
            while let Some(frame) = poll_fn(|cx| connection.poll_frame(response.body_mut(), cx)).await {
                lengths.push(frame.unwrap().into_data().unwrap().len());
            }
            lengths
        };
        let ((), lengths) = tokio::join!(answered, received);
        assert_eq!(lengths.iter().sum::<usize>(), LENGTH);
        assert!(lengths.iter().all(|length| *length <= 65_536), "{lengths:?}");
    }
}
