//! Real sockets: servers that are slow, killed and brought back, and sets that change under load.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use nantian_lb::health::{Health, OutlierConfig, SlowStartConfig};
use nantian_lb::session::{SessionConfig, SessionKeys, SessionName, Sessions};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed, Strategy, Tried, clock::ManualClock,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet, LocalSet, spawn_local};
use tokio::time::{Instant, sleep, sleep_until};
use tower::{Layer, Service, service_fn};

/// A server with one worker, which answers one request after the other.
struct Server {
    address: SocketAddr,
    answered: Rc<Cell<usize>>,
    task: AbortHandle,
}

impl Server {
    /// Answers after a time that is drawn for each request, `mean` in the mean.
    async fn start(mean: Duration) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), mean).await
    }

    async fn start_at(address: SocketAddr, mean: Duration) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(1024).unwrap();
        let address = listener.local_addr().unwrap();
        let answered = Rc::<Cell<usize>>::default();
        let task = spawn_local(serve(listener, mean, Rc::clone(&answered))).abort_handle();
        Self { address, answered, task }
    }

    /// The listener and all connections are closed.
    async fn kill(&self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }
}

async fn serve(listener: TcpListener, mean: Duration, answered: Rc<Cell<usize>>) {
    let worker = Rc::new(Mutex::new(fastrand::Rng::with_seed(5)));
    let mut connections = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (worker, answered) = (Rc::clone(&worker), Rc::clone(&answered));
        connections.spawn_local(async move {
            let mut head = [0; 1024];
            if stream.read(&mut head).await.is_err() {
                return;
            }
            let mut rng = worker.lock().await;
            if !mean.is_zero() {
                sleep(mean.mul_f64(-(1.0 - rng.f64()).ln())).await;
            }
            answered.set(answered.get() + 1);
            // A client that has left is no concern of the server.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn exchange(target: SocketAddr) -> io::Result<Response<String>> {
    let mut stream = TcpStream::connect(target).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await?;
    if reply.is_empty() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    let mut response = Response::new(String::new());
    response.headers_mut().insert("x-target", target.to_string().parse().map_err(io::Error::other)?);
    Ok(response)
}

/// A client of the balanced servers that tries other ones when one does not answer.
#[derive(Clone)]
struct Client {
    layer: BalanceLayer<SocketAddr>,
    attempts: usize,
}

impl Client {
    fn new(balancer: &Balancer<SocketAddr>, attempts: usize) -> Self {
        Self { layer: BalanceLayer::new(balancer.clone()), attempts }
    }

    async fn ask(&self, cookie: Option<&HeaderValue>) -> io::Result<Response<String>> {
        let mut service = self
            .layer
            .layer(service_fn(async |Routed { target, .. }: Routed<_, Request<()>>| exchange(target).await));
        let tried = Tried::new();
        let mut last = None;
        for _ in 0..self.attempts {
            let mut request = Request::new(());
            request.headers_mut().extend(cookie.map(|cookie| (COOKIE, cookie.clone())));
            request.extensions_mut().insert(tried.clone());
            let response: io::Result<Response<_>> = service.call(request).await;
            match response {
                Ok(response) if response.status() == StatusCode::OK => {
                    return Ok(response.map(|_| String::new()));
                }
                Ok(refused) => last = Some(io::Error::other(refused.status().to_string())),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap())
    }
}

fn balancer(servers: &[&Server], config: &BalanceConfig, clock: &ManualClock) -> Balancer<SocketAddr> {
    Balancer::with_clock(endpoints(servers), config, clock.clone())
}

fn endpoints(servers: &[&Server]) -> Vec<Endpoint<SocketAddr>> {
    servers.iter().map(|server| Endpoint::new(server.address.to_string(), server.address)).collect()
}

fn in_flight(balancer: &Balancer<SocketAddr>) -> usize {
    balancer.status().iter().map(|status| status.in_flight).sum()
}

/// Runs a test on one thread, where servers and clients take turns.
fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn a_killed_server_is_ejected_without_a_failed_request_and_starts_slowly_when_it_is_back() {
    run(async {
        let work = Duration::from_millis(1);
        let servers = [(); 4].map(|()| Server::start(work));
        let [a, b, c, d] = servers;
        let (a, b, c, mut killed) = (a.await, b.await, c.await, d.await);
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1000));
        let config = BalanceConfig::new(Strategy::RoundRobin)
            .with_outlier(OutlierConfig::new())
            .with_slow_start(SlowStartConfig::new(Duration::from_secs(100)));
        let balancer = balancer(&[&a, &b, &c, &killed], &config, &clock);
        let health = |server: &Server| {
            let status = balancer.status().into_iter();
            status.into_iter().find(|status| status.target == server.address).unwrap()
        };
        let client = Client::new(&balancer, 3);
        let load = async |requests: usize| {
            let mut clients = JoinSet::new();
            for _ in 0..12 {
                let client = client.clone();
                clients.spawn_local(async move {
                    for _ in 0..requests / 12 {
                        client.ask(None).await.unwrap();
                    }
                });
            }
            clients.join_all().await;
        };
        let murder = async {
            while killed.answered.get() < 50 || health(&killed).in_flight < 2 {
                sleep(Duration::from_millis(1)).await;
            }
            killed.kill().await;
        };
        tokio::join!(load(1200), murder);
        assert_eq!((health(&killed).health, health(&killed).ejections), (Health::Ejected, 1));
        assert_eq!(in_flight(&balancer), 0);

        killed = Server::start_at(killed.address, work).await;
        load(120).await;
        assert_eq!(killed.answered.get(), 0, "it is left alone while its time is not over");
        clock.advance(Duration::from_secs(34));
        load(120).await;
        assert_eq!(health(&killed).health, Health::Healthy);
        for percent in [10, 25, 50, 75] {
            let age = if percent == 10 { Duration::ZERO } else { Duration::from_secs(25) };
            clock.advance(age);
            let before = [&killed, &a].map(|server| server.answered.get());
            load(1200).await;
            let [mine, others] = [(&killed, before[0]), (&a, before[1])]
                .map(|(server, before)| server.answered.get() - before);
            assert!(
                (mine * 100).abs_diff(others * percent) <= others * 4,
                "{mine} beside {others} at {percent} %"
            );
        }
        clock.advance(Duration::from_secs(26));
        load(120).await;
        assert_eq!(health(&killed).weight_percent, 100);
    });
}

/// Must-hold 2 of the balancer for the strategies that go by loads: with other attempts no request fails, and
/// without them those that were in flight, and the five that it takes to know.
#[test]
fn a_server_killed_under_load_costs_the_requests_in_flight_and_five() {
    const CLIENTS: usize = 12;
    run(async {
        for (strategy, attempts) in
            [(Strategy::LeastRequest, 1), (Strategy::LeastRequest, 3), (Strategy::PEAK_EWMA, 3)]
        {
            let work = Duration::from_millis(1);
            let (a, b) = (Server::start(work).await, Server::start(work).await);
            let (c, killed) = (Server::start(work).await, Server::start(work).await);
            let config = BalanceConfig::new(strategy.clone()).with_outlier(OutlierConfig::new());
            let balancer = Balancer::new(endpoints(&[&a, &b, &c, &killed]), &config);
            let (client, failed) = (Client::new(&balancer, attempts), Rc::<Cell<usize>>::default());
            let load = async |requests: usize| {
                let mut clients = JoinSet::new();
                for _ in 0..CLIENTS {
                    let (client, failed) = (client.clone(), Rc::clone(&failed));
                    clients.spawn_local(async move {
                        for _ in 0..requests / CLIENTS {
                            failed.set(failed.get() + usize::from(client.ask(None).await.is_err()));
                        }
                    });
                }
                clients.join_all().await;
            };
            let murder = async {
                while killed.answered.get() < 20 {
                    sleep(Duration::from_millis(1)).await;
                }
                killed.kill().await;
            };
            tokio::join!(load(600), murder);
            let most = if attempts > 1 { 0 } else { CLIENTS + 5 };
            assert!(failed.get() <= most, "{strategy:?}: {} failed", failed.get());
            if strategy == Strategy::LeastRequest {
                let is_killed = |id: &str| id == killed.address.to_string();
                assert!(
                    balancer
                        .status()
                        .iter()
                        .all(|at| (at.health == Health::Ejected) == is_killed(at.id.as_str()))
                );
            }
            assert_eq!(in_flight(&balancer), 0);
        }
    });
}

#[test]
fn hundreds_of_sets_a_second_fail_no_request_lose_no_count_and_end_no_session() {
    const UPDATES: u32 = 400;
    run(async {
        let work = Duration::from_micros(500);
        let (a, b) = (Server::start(work).await, Server::start(work).await);
        let (c, d) = (Server::start(work).await, Server::start(work).await);
        let all = [&a, &b, &c, &d];
        let balancer = Balancer::new(endpoints(&all), &BalanceConfig::default());
        let keys = SessionKeys::new([[1; 32]]).unwrap();
        let sessions = SessionConfig::cookie(SessionName::new("stay").unwrap());
        let sessions = Sessions::new(sessions, "shop/1", &keys).unwrap();
        let mut of_session = Client::new(&balancer, 1);
        of_session.layer = of_session.layer.sessions(sessions);
        let (home, cookie) = loop {
            let first = of_session.ask(None).await.unwrap();
            let cookie = first.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap();
            // It is in every set, with any weight.
            if first.headers()["x-target"] == b.address.to_string() {
                break (first.headers()["x-target"].clone(), HeaderValue::from_str(cookie).unwrap());
            }
        };
        let is_over = Rc::<Cell<bool>>::default();
        let mut clients = JoinSet::new();
        for number in 0..12 {
            let (is_over, home, cookie) = (Rc::clone(&is_over), home.clone(), cookie.clone());
            let client = if number == 0 { of_session.clone() } else { Client::new(&balancer, 1) };
            clients.spawn_local(async move {
                let mut asked = 0;
                while !is_over.get() {
                    let response = client.ask(Some(&cookie)).await.unwrap();
                    assert!(number > 0 || response.headers()["x-target"] == home, "the session stays");
                    assert!(response.headers().get(SET_COOKIE).is_none());
                    asked += 1;
                }
                asked
            });
        }
        let begun = Instant::now();
        for number in 0..UPDATES {
            let strategies =
                [Strategy::RoundRobin, Strategy::LeastRequest, Strategy::PEAK_EWMA, Strategy::Random];
            let config = BalanceConfig::new(strategies[number as usize % 4].clone());
            let some = (0..).zip(&all).filter(|&(at, _): &(u32, _)| at == 1 || at != number % 4);
            let weighted = some.map(|(at, server)| {
                let weight = (number + at) % 3;
                Endpoint::new(server.address.to_string(), server.address).with_weight(weight)
            });
            balancer.update(weighted, &config);
            sleep_until(begun + Duration::from_millis(2) * (number + 1)).await;
        }
        let rate = f64::from(UPDATES) / begun.elapsed().as_secs_f64();
        is_over.set(true);
        let asked: usize = clients.join_all().await.into_iter().sum();
        println!("{rate:.0} updates a second, {asked} requests");
        assert!(rate >= 100.0, "{rate}");
        balancer.update(endpoints(&all), &BalanceConfig::default());
        assert_eq!(in_flight(&balancer), 0);
    });
}
