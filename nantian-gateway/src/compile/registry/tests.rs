use std::net::Ipv4Addr;

use http::Request;
use nantian_lb::PickContext;
use tokio::net::TcpListener;

use super::*;
use crate::{
    compile::compile,
    ir::{BackendTls, BackendTransport, Policies, Route, RouteKind, Transport},
    upstream::Client,
};

fn registry() -> Registry {
    Registry::alone(Arc::new(Metrics::new(1)), SessionKeys::new([[1; 32]]).unwrap()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_reload_gives_a_failing_backend_no_new_retries() {
    let mut registry = registry();
    let route = RouteId { kind: RouteKind::Http, name: ObjectName::new("demo", "r") };
    let id = BackendId { service: ObjectName::new("demo", "a"), port: 80, transport: Transport::Tcp };
    let mut ir = Ir::default();
    ir.backends.insert(id.clone(), ir::Backend::default());
    ir.routes.push(Route { id: route.clone(), policies: Policies::default(), rules: Vec::new() });
    compile(&ir, &mut registry, 1);
    let budget = registry.retry_budget(&route, &id);
    let allowed = std::iter::from_fn(|| budget.withdraw(0).then_some(())).count();
    assert_eq!(allowed, 100, "ten a second, for ten seconds");

    compile(&ir, &mut registry, 2);
    assert!(!registry.retry_budget(&route, &id).withdraw(0), "they are spent");
    compile(&Ir::default(), &mut registry, 3);
    assert!(registry.retry_budget(&route, &id).withdraw(0), "another route of that name is another one");
}

/// Workers serve the snapshot from before until the new one is installed, and pick from the same balancers.
#[tokio::test]
async fn a_snapshot_from_before_sends_nothing_to_a_backend_whose_tls_is_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut registry = registry();
    let id = BackendId { service: ObjectName::new("demo", "a"), port: 443, transport: Transport::Tcp };
    let transport = BackendTransport::Tls(BackendTls {
        hostname: "a.example.org".to_owned(),
        authorities: None,
        subject_names: Vec::new(),
    });
    let mut ir = Ir::default();
    ir.backends.insert(id.clone(), ir::Backend { transport, ..ir::Backend::default() });
    let endpoint =
        ir::Endpoint { id: "e".to_owned(), address: ir::Address::Ip(address), draining: false, tier: 0 };
    ir.endpoints.insert(id.clone(), vec![endpoint]);
    registry.update_balancers(&ir);
    let before = registry.balancer(&id).unwrap();

    let refused = ir::Backend { transport: BackendTransport::Refused, ..ir::Backend::default() };
    ir.backends.insert(id.clone(), refused);
    registry.update_balancers(&ir);
    let (destination, _in_flight) = before.pick(&PickContext::new()).unwrap().into_parts();
    let client = Client::new(ClientConfig::bare().unwrap());
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("it was dialled"),
        sent = client.send(destination, Request::default()) => {
            let error = sent.unwrap_err().error;
            assert_eq!(error.to_string(), format!("nothing says who may answer for {address}, and TLS is asked for"));
        }
    }
}
