//! How many connections are opened to an endpoint of HTTP/2 and what is kept of requests, on real sockets.

use std::{cell::Cell, convert::Infallible, future::poll_fn, net::Ipv4Addr, task::Poll};

use futures_util::{StreamExt as _, future::join_all, stream::FuturesUnordered};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::{LocalSet, spawn_local},
};

use super::*;
use crate::{
    ir::Address,
    kept::{KeptBytes, tests::all_but},
    upstream::Security,
};

/// hyper's executor on the thread of a test.
#[derive(Clone, Copy)]
struct LocalExecutor;

impl<F: Future + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        spawn_local(async move {
            future.await;
        });
    }
}

/// A server that has not been asked yet, and the connections to it.
struct Server {
    destination: Destination,
    connections: Rc<Cell<usize>>,
}

impl Server {
    /// Does with each connection what `serve` does.
    async fn start<F: Future<Output = ()> + 'static>(serve: impl Fn(TcpStream) -> F + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = Address::Ip(listener.local_addr().unwrap());
        let connections = Rc::<Cell<usize>>::default();
        let count = Rc::clone(&connections);
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.set(count.get() + 1);
                spawn_local(serve(stream));
            }
        });
        let destination = Destination { address, protocol: Protocol::H2c, security: Security::Plain };
        Self { destination, connections }
    }

    /// Allows so many streams on each connection, and answers none before so many requests have come.
    async fn answering(streams: u32, requests: usize) -> Self {
        let (came, _) = watch::channel(0);
        Self::start(move |stream| {
            let came = came.clone();
            async move {
                let service = service_fn(move |_| {
                    came.send_modify(|came| *came += 1);
                    let mut all = came.subscribe();
                    async move {
                        all.wait_for(|came| *came >= requests).await.unwrap();
                        Ok::<_, Infallible>(Response::new(Body::empty()))
                    }
                });
                let mut settings = http2::Builder::new(LocalExecutor);
                let connection = settings.max_concurrent_streams(streams);
                connection.serve_connection(TokioIo::new(stream), service).await.unwrap();
            }
        })
        .await
    }
}

fn client(connect_timeout: Duration) -> Client {
    Client::new(ClientConfig { connect_timeout, ..ClientConfig::bare().unwrap() })
}

const LONG: Duration = Duration::from_secs(60);

/// How many connections two requests open to a backend that answers with `fields`, the second `pause` after
/// the first.
async fn connections_of_two(fields: &'static str, pause: Duration) -> usize {
    let mut server = Server::start(move |mut stream| async move {
        let mut head = [0; 1024];
        while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n{fields}\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    server.destination.protocol = Protocol::Http1;
    let client = client(LONG);
    assert!(client.send(server.destination.clone(), Request::default()).await.is_ok());
    tokio::time::pause();
    tokio::time::advance(pause).await;
    tokio::time::resume();
    assert!(client.send(server.destination.clone(), Request::default()).await.is_ok());
    server.connections.get()
}

#[tokio::test]
async fn a_connection_is_left_before_its_backend_closes_it() {
    LocalSet::new()
        .run_until(async {
            let seconds = Duration::from_secs_f32;
            for (fields, pause, connections) in [
                ("", seconds(50.0), 1),
                ("keep-alive: timeout=5\r\n", seconds(3.9), 1),
                ("keep-alive: timeout=5\r\n", seconds(4.1), 2),
                ("keep-alive: max=100, Timeout=\"5\"\r\n", seconds(4.1), 2),
                ("keep-alive: timeout=1\r\n", seconds(0.4), 1),
                ("keep-alive: timeout=1\r\n", seconds(0.6), 2),
                ("keep-alive: timeout=soon\r\n", seconds(50.0), 1),
            ] {
                assert_eq!(connections_of_two(fields, pause).await, connections, "{fields:?} {pause:?}");
            }
        })
        .await;
}

#[tokio::test]
async fn a_name_is_looked_up_again_though_its_connections_are_used() {
    let times = async |by_name: bool| {
        let mut server = Server::start(|mut stream| async move {
            let mut head = [0; 1024];
            while stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
        })
        .await;
        server.destination.protocol = Protocol::Http1;
        if let (true, Address::Ip(address)) = (by_name, &server.destination.address) {
            server.destination.address = Address::Dns("localhost".to_owned(), address.port());
        }
        let client = client(LONG);
        // The last one finds a connection that was put back when it was young.
        for _ in 0..7 {
            assert!(client.send(server.destination.clone(), Request::default()).await.is_ok());
            tokio::time::pause();
            tokio::time::advance(Duration::from_secs(50)).await;
            tokio::time::resume();
        }
        server.connections.get()
    };
    LocalSet::new()
        .run_until(async {
            assert_eq!(times(false).await, 1);
            assert_eq!(times(true).await, 2);
        })
        .await;
}

#[tokio::test]
async fn many_first_requests_share_as_few_connections_as_they_need() {
    LocalSet::new()
        .run_until(async {
            for (streams, requests, needed) in [(1000, 1000, 10), (10, 100, 10), (1, 20, 20)] {
                let server = Server::answering(streams, requests).await;
                let client = client(LONG);
                let asked =
                    (0..requests).map(|_| client.send(server.destination.clone(), Request::default()));
                assert!(join_all(asked).await.iter().all(Result::is_ok));
                assert_eq!(server.connections.get(), needed, "{streams} streams on each");
            }
        })
        .await;
}

#[tokio::test]
async fn what_is_sent_for_the_last_time_is_not_kept() {
    let _others = all_but(150);
    let (turn, taken) = (Cell::new(0), Rc::new(Notify::new()));
    let all_taken = Rc::clone(&taken);
    let serve = move |stream: TcpStream| {
        let (is_first, taken) = (turn.replace(1) == 0, Rc::clone(&all_taken));
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((mut request, mut answer))) = connection.accept().await {
                let taken = Rc::clone(&taken);
                spawn_local(async move {
                    while let Some(Ok(_)) = request.body_mut().data().await {}
                    if is_first {
                        answer.send_reset(h2::Reason::REFUSED_STREAM);
                    } else {
                        taken.notify_one();
                        std::future::pending::<()>().await;
                    }
                });
            }
        }
    };
    LocalSet::new()
        .run_until(async {
            let server = Server::start(serve).await;
            let request = Request::new(Body::full(vec![b'a'; 100]));
            let mut exchange = client(LONG).send(server.destination.clone(), request);
            tokio::select! {
                _ = &mut exchange => panic!("the second attempt is not answered"),
                () = taken.notified() => {}
            }
            let mut more = KeptBytes::default();
            assert!(more.set(150));
        })
        .await;
}

#[tokio::test]
async fn why_there_is_no_connection_is_told_to_all_who_wait_for_it() {
    LocalSet::new()
        .run_until(async {
            let server = Server::start(async |stream| drop(stream)).await;
            let client = client(LONG);
            let asked = (0..50).map(|_| client.send(server.destination.clone(), Request::default()));
            let errors = join_all(asked).await.into_iter().map(|answer| answer.unwrap_err().error);
            let waited = errors.filter(|error| matches!(error, UpstreamError::Connect { .. })).count();
            assert_eq!((waited, server.connections.get()), (48, 2));
        })
        .await;
}

#[tokio::test]
async fn a_connection_that_is_lost_fails_only_who_has_opened_it() {
    LocalSet::new()
        .run_until(async {
            let has_lost = Cell::new(false);
            let server = Server::start(move |stream| {
                let is_lost = !has_lost.replace(true);
                async move {
                    if !is_lost {
                        let service =
                            service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
                        let settings = http2::Builder::new(LocalExecutor);
                        settings.serve_connection(TokioIo::new(stream), service).await.unwrap();
                    }
                }
            })
            .await;
            let client = client(LONG);
            let asked = (0..50).map(|_| client.send(server.destination.clone(), Request::default()));
            assert_eq!(join_all(asked).await.iter().filter(|answer| answer.is_err()).count(), 1);
        })
        .await;
}

#[tokio::test]
async fn who_gives_up_opening_a_connection_leaves_it_to_another_one() {
    LocalSet::new()
        .run_until(async {
            let server = Server::answering(100, 1).await;
            let client = client(LONG);
            let mut first = client.send(server.destination.clone(), Request::default());
            let mut second = client.send(server.destination.clone(), Request::default());
            poll_fn(|cx| {
                assert!(first.as_mut().poll(cx).is_pending() && second.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            drop(first);
            assert!(second.await.is_ok());
        })
        .await;
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_as_long_as_a_connection_may_take_to_open() {
    LocalSet::new()
        .run_until(async {
            let (accepted, mut count) = watch::channel(0);
            let server = Server::start(move |stream| {
                accepted.send_modify(|accepted| *accepted += 1);
                async move {
                    let _open = stream;
                    std::future::pending().await
                }
            })
            .await;
            let client = client(Duration::from_millis(50));
            let asked = (0..3).map(|_| client.send(server.destination.clone(), Request::default()));
            tokio::select! {
                _ = join_all(asked) => panic!("it has answered"),
                _ = count.wait_for(|accepted| *accepted == 3) => {}
            }
        })
        .await;
}

#[tokio::test]
async fn a_call_finds_its_way_past_connections_that_are_going_away() {
    LocalSet::new()
        .run_until(async {
            // Of two calls on each connection the first is answered when both have come, the second one
            // never.
            let (leave, leaving) = watch::channel(false);
            let server = Server::start(move |stream| {
                let (came, mut leaving) = (watch::Sender::new(0), leaving.clone());
                async move {
                    let is_late = leaving.clone();
                    let service = service_fn(move |_| {
                        came.send_modify(|came| *came += 1);
                        let (number, mut both) = (*came.borrow(), came.subscribe());
                        let is_late = *is_late.borrow();
                        async move {
                            if number == 1 && !is_late {
                                both.wait_for(|came| *came == 2).await.unwrap();
                            } else if !is_late {
                                std::future::pending::<()>().await;
                            }
                            Ok::<_, Infallible>(Response::new(Body::empty()))
                        }
                    });
                    let mut settings = http2::Builder::new(LocalExecutor);
                    let connection = settings.max_concurrent_streams(2);
                    let mut connection = Box::pin(connection.serve_connection(TokioIo::new(stream), service));
                    tokio::select! {
                        _ = &mut connection => return,
                        _ = leaving.wait_for(|leaving| *leaving) => {}
                    }
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            })
            .await;
            let client = client(LONG);
            let ask = || client.send(server.destination.clone(), Request::default());
            let mut asked: FuturesUnordered<_> = (0..6).map(|_| ask()).collect();
            for _ in 0..3 {
                assert!(asked.next().await.unwrap().is_ok());
            }
            assert_eq!(server.connections.get(), 3);
            leave.send_replace(true);
            // Until all have heard of it, as a rule.
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            for _ in 0..3 {
                assert!(ask().await.is_ok());
            }
        })
        .await;
}
