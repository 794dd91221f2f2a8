//! The checks as one future.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{self, Either};
use futures_util::stream::FuturesUnordered;

use super::{CheckConfig, Checks, Verdict};
use crate::balancer::Balancer;

/// How often the endpoints are looked at, when no check is due earlier: new ones are checked soon.
const MAX_PAUSE: Duration = Duration::from_secs(1);

/// Checks the endpoints of `balancer` for as long as it is polled, and lets those that fail be passed over.
///
/// `probe` asks one endpoint, over whatever it listens to (for HTTP and gRPC, [`HttpCheck`](super::HttpCheck)
/// and [`GrpcCheck`](super::GrpcCheck) make the request and judge the answer; for TCP, connecting is enough);
/// `sleep` waits. Checks of different endpoints run side by side; what one finds that was removed meanwhile
/// is ignored.
///
/// The future never ends.
///
/// ```
/// use http::Uri;
/// use nantian_lb::health::{CheckConfig, HttpCheck, Verdict, run};
/// use nantian_lb::{BalanceConfig, Balancer, Endpoint};
///
/// # async fn send(request: http::Request<String>) -> Result<http::Response<String>, std::io::Error> {
/// #     assert_eq!(request.uri(), "http://10.0.0.1:8080/healthz");
/// #     Ok(http::Response::new(String::new()))
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let balancer = Balancer::new([Endpoint::new("a", "10.0.0.1:8080")], &BalanceConfig::default());
/// let check = HttpCheck::new(Uri::from_static("/healthz"));
/// let probe = move |address: &'static str| {
///     let (check, mut request) = (check.clone(), check.request::<String>());
///     // A client that connects by itself goes by the whole URI.
///     *request.uri_mut() = format!("http://{address}{}", check.path).parse().unwrap();
///     async move { send(request).await.map_or(Verdict::Fails, |response| check.judge(&response)) }
/// };
/// // For a task of its own.
/// let checks = run(balancer, CheckConfig::new(), probe, tokio::time::sleep);
/// # tokio::time::timeout(std::time::Duration::from_millis(10), checks).await.unwrap_err();
/// # }
/// ```
///
/// # Cancellation
///
/// Dropping it drops the checks that are running. What was found stays in force.
pub async fn run<T, P, S>(
    balancer: Balancer<T>,
    config: CheckConfig,
    probe: impl Fn(T) -> P,
    sleep: impl Fn(Duration) -> S,
) where
    T: Clone + Send + Sync,
    P: Future<Output = Verdict>,
    S: Future<Output = ()>,
{
    let timeout = config.timeout;
    let mut checks = Checks::new(config);
    let mut running = FuturesUnordered::new();
    loop {
        let present = balancer.status();
        let due = checks.begin_at(balancer.now(), present.iter().map(|status| &status.id));
        for status in present.into_iter().filter(|status| due.contains(&status.id)) {
            let (answer, late) = (probe(status.target), sleep(timeout));
            running.push(async move {
                let verdict = match future::select(pin!(answer), pin!(late)).await {
                    Either::Left((verdict, _)) => verdict,
                    Either::Right(_) => Verdict::Fails,
                };
                (status.id, verdict)
            });
        }
        let now = balancer.now();
        let pause = checks
            .next_due()
            .map_or(MAX_PAUSE, |next| next.since(now))
            .clamp(Duration::from_millis(1), MAX_PAUSE);
        let next = async {
            match running.next().await {
                Some(found) => found,
                None => future::pending().await,
            }
        };
        if let Either::Left(((id, verdict), _)) = future::select(pin!(next), pin!(sleep(pause))).await
            && let Some(verdict) = checks.finish_at(balancer.now(), &id, verdict)
        {
            balancer.set_check(&id, verdict);
        }
    }
}
