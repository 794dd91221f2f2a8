use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Value, json};
use tower::service_fn;

use super::*;

/// A server that keeps one Lease.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    lease: Option<Value>,
    version: u64,
}

fn refusal(code: u16, reason: &str) -> (u16, Value) {
    (
        code,
        json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason }),
    )
}

impl Kept {
    fn answer(&mut self, method: &Method, body: Value) -> (u16, Value) {
        match (method.as_str(), self.lease.clone()) {
            ("GET", None) => refusal(404, "NotFound"),
            ("GET", Some(lease)) => (200, lease),
            ("POST", Some(_)) => refusal(409, "Conflict"),
            ("PUT", Some(lease))
                if lease["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] =>
            {
                refusal(409, "Conflict")
            }
            _ => (200, self.put(body)),
        }
    }

    fn put(&mut self, mut lease: Value) -> Value {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.lease = Some(lease.clone());
        lease
    }
}

impl Server {
    /// A client that reaches the server as long as `is_cut` does not hold.
    fn client(&self, is_cut: &Arc<Mutex<bool>>) -> Client {
        let (server, is_cut) = (self.clone(), Arc::clone(is_cut));
        let answer = move |request: Request<Body>| {
            let (server, is_cut) = (server.clone(), Arc::clone(&is_cut));
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                let (code, answer) = match *is_cut.lock().unwrap() {
                    true => refusal(503, "ServiceUnavailable"),
                    false => server.0.lock().unwrap().answer(&head.method, body),
                };
                let answer = Body::from(answer.to_string().into_bytes());
                Ok::<_, Infallible>(Response::builder().status(code).body(answer).unwrap())
            }
        };
        Client::new(service_fn(answer), "default")
    }

    fn candidate(&self, name: &str) -> Candidate {
        let is_cut = Arc::default();
        let lease = Lease::new(self.client(&is_cut), ControllerName::default(), name.to_owned());
        let holds = lease.holds();
        Candidate { is_cut, holds, running: tokio::spawn(lease.run(std::future::pending())) }
    }
}

/// A replica that would write.
struct Candidate {
    is_cut: Arc<Mutex<bool>>,
    holds: watch::Receiver<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl Candidate {
    async fn comes_to(&mut self, holds: bool) {
        self.holds.wait_for(|held| *held == holds).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_leader_is_replaced_when_its_lease_is_over() {
    let server = Server::default();
    let mut first = server.candidate("first");
    first.comes_to(true).await;
    let mut second = server.candidate("second");
    sleep(DURATION * 4).await;
    assert!(*first.holds.borrow() && !*second.holds.borrow(), "the leader stays as long as it lives");
    first.running.abort();
    let killed = Instant::now();
    second.comes_to(true).await;
    // The lease was renewed up to a period before, and is looked at once in a period.
    let took = killed.elapsed();
    assert!(took >= DURATION - PERIOD && took <= DURATION + PERIOD * 2, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_waited_for_as_long_as_it_says() {
    let server = Server::default();
    let spec = json!({ "holderIdentity": "gone", "leaseDurationSeconds": 60 });
    server.0.lock().unwrap().put(json!({ "metadata": { "name": NAME }, "spec": spec }));
    let begun = Instant::now();
    server.candidate("next").comes_to(true).await;
    let took = begun.elapsed().as_secs();
    assert!((60..70).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_one_leads() {
    let server = Server::default();
    let mut first = server.candidate("first");
    first.comes_to(true).await;
    let mut second = server.candidate("second");
    *first.is_cut.lock().unwrap() = true;
    let cut = Instant::now();
    first.comes_to(false).await;
    assert!(cut.elapsed() < DURATION && !*second.holds.borrow());
    second.comes_to(true).await;
    *first.is_cut.lock().unwrap() = false;
    sleep(DURATION * 4).await;
    assert!(!*first.holds.borrow() && *second.holds.borrow());
}

#[test]
fn the_replicas_of_each_controller_choose_by_a_lease_of_their_own() {
    let name = |controller: &str| name(&controller.parse().unwrap());
    assert_eq!(name(ControllerName::default().as_str()), NAME);
    assert_eq!(name("internal.example.com/Gateway_1~"), "internal-example-com-gateway-1");
}
