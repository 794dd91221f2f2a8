use super::*;
use crate::{
    compile::compile,
    ir::{Policies, Route, RouteKind, Transport},
};

#[tokio::test(start_paused = true)]
async fn a_reload_gives_a_failing_backend_no_new_retries() {
    let keys = SessionKeys::new([[1; 32]]).unwrap();
    let mut registry = Registry::new(Arc::new(Metrics::new(1)), None, keys);
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
