//! Whatever is missing, the intermediate representation refers to nothing that it does not hold.

use std::{fs, path::Path};

use nantian_gateway::{
    gates::FeatureGates,
    ir::{Ir, PathMatch, Policies, Port, Target, ValueMatch},
    pattern::Patterns,
    translate::translate,
};

use crate::load;

#[test]
fn taking_any_object_away_leaves_a_consistent_representation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for case in fs::read_dir(root).unwrap() {
        let input = fs::read_to_string(case.unwrap().path().join("input.yaml")).unwrap();
        let documents: Vec<_> = input.split("\n---\n").collect();
        for left_out in 0..documents.len() {
            let rest = documents.iter().enumerate().filter(|(index, _)| *index != left_out);
            let rest: Vec<_> = rest.map(|(_, document)| *document).collect();
            let translation = translate(&load::objects(&rest.join("\n---\n")), FeatureGates::all());
            assert_consistent(&translation.ir);
        }
    }
}

fn assert_consistent(ir: &Ir) {
    let listeners: Vec<_> = ir.ports.iter().flat_map(|port| &port.listeners).collect();
    let socket = |port: &Port| (port.address, port.port, port.protocol.transport());
    assert!(ir.ports.windows(2).all(|pair| socket(&pair[0]) < socket(&pair[1])));
    for port in &ir.ports {
        assert!(port.listeners.windows(2).all(|pair| pair[0].id < pair[1].id));
    }
    for listener in &listeners {
        assert_policies(ir, &listener.policies);
        let order = |attached: &_| ir.routes.iter().position(|route| route.id == *attached);
        let positions: Vec<_> =
            listener.routes.iter().map(|attached| order(&attached.route).expect("attached route")).collect();
        assert!(
            positions.windows(2).all(|pair| pair[0] < pair[1]),
            "attachments keep the order of the routes"
        );
        assert!(listener.routes.iter().all(|attached| !attached.hostnames.is_empty()));
    }
    for route in &ir.routes {
        let is_attached = |listener: &&_| attaches(listener, route);
        assert!(listeners.iter().any(is_attached), "{} is attached", route.id);
        assert_policies(ir, &route.policies);
        for rule in &route.rules {
            assert_policies(ir, &rule.policies);
            assert_eq!(rule.matches.is_empty(), !route.id.kind.is_http());
            assert_regexes(rule);
            rule.backends.iter().for_each(|backend| assert_target(ir, &backend.target));
        }
    }
    ir.backends.values().for_each(|backend| assert_policies(ir, &backend.policies));
    ir.ai_services.values().for_each(|service| assert_policies(ir, &service.policies));
    assert!(ir.backends.keys().eq(ir.endpoints.keys()));
}

fn attaches(listener: &nantian_gateway::ir::Listener, route: &nantian_gateway::ir::Route) -> bool {
    listener.routes.iter().any(|attached| attached.route == route.id)
}

fn assert_target(ir: &Ir, target: &Target) {
    match target {
        Target::Backend(id) => assert!(ir.backends.contains_key(id), "{id}"),
        Target::AiService(name) => assert!(ir.ai_services.contains_key(name), "{name}"),
        _ => {}
    }
}

fn assert_policies(ir: &Ir, policies: &Policies) {
    assert!(policies.rate_limits.iter().all(|id| ir.rate_limits.contains_key(id)));
    assert!(policies.plugins.iter().all(|id| ir.plugins.contains_key(id)));
}

fn assert_regexes(rule: &nantian_gateway::ir::Rule) {
    let patterns = Patterns::default();
    for matches in &rule.matches {
        if let PathMatch::Regex(expression) = &matches.path {
            patterns.whole_match(expression).unwrap();
        }
        let headers = matches.headers.iter().map(|header| &header.value);
        for value in headers.chain(matches.query.iter().map(|parameter| &parameter.value)) {
            if let ValueMatch::Regex(expression) = value {
                patterns.whole_match(expression).unwrap();
            }
        }
    }
}
