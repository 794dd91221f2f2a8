//! One file for each test of the official conformance suite, by its name: manifests, and what is demanded of them.
//!
//! A line `# expect: …` has to be among the lines that [`lines`] makes of a translation; `# never: …` must not begin one.

use std::{fs, path::Path};

use nantian_gateway::{
    gates::FeatureGates,
    ir::{Ir, Target},
    translate::translate,
};
use serde_json::Value;

use crate::load;

#[test]
fn every_official_test_finds_the_conditions_that_it_demands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official");
    let mut files: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 28, "only {} files", files.len());
    let mut missing = Vec::new();
    for file in files {
        let input = fs::read_to_string(&file).unwrap();
        let found = lines(&input);
        let (mut demands, name) = (0, file.file_stem().unwrap().to_string_lossy().into_owned());
        for line in input.lines() {
            if let Some(expected) = line.strip_prefix("# expect: ") {
                demands += 1;
                if !found.iter().any(|line| line == expected) {
                    missing.push(format!("{name}: {expected}"));
                }
            } else if let Some(forbidden) = line.strip_prefix("# never: ") {
                demands += 1;
                if found.iter().any(|line| line.starts_with(forbidden)) {
                    missing.push(format!("{name}: not {forbidden}"));
                }
            }
        }
        assert!(demands > 0, "{name} demands nothing");
        if missing.iter().any(|line| line.starts_with(&name)) {
            missing.push(format!("found is\n  {}", found.join("\n  ")));
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// What a translation says, a line each:
///
/// - `Gateway ns/name: Accepted True Accepted`, and `Gateway ns/name listener l: …` with its conditions, `attached 1`, and
///   `kinds TCPRoute`
/// - `TCPRoute ns/name under gateway[/section][:port]: ResolvedRefs False BackendNotFound`
/// - `socket *:443 listener ns/name/l: TLSRoute/ns/name for a.example.com`, in the order that breaks ties
/// - `route TCPRoute/ns/name: 90 to ns/service:80`
fn lines(input: &str) -> Vec<String> {
    let translation = translate(&load::objects(input), FeatureGates::all());
    let statuses = serde_json::to_value(&translation.statuses).unwrap();
    let mut lines = Vec::new();
    for (object, status) in statuses.as_object().unwrap() {
        conditions(object, status, &mut lines);
        for listener in status["listeners"].as_array().into_iter().flatten() {
            let place = format!("{object} listener {}", text(&listener["name"]));
            conditions(&place, listener, &mut lines);
            lines.push(format!("{place}: attached {}", listener["attachedRoutes"]));
            let kinds = listener["supportedKinds"].as_array().unwrap().iter().map(|kind| text(&kind["kind"]));
            lines.push(format!("{place}: kinds {}", kinds.collect::<Vec<_>>().join(" ")));
        }
        for parent in status["parents"].as_array().into_iter().flatten() {
            let reference = &parent["parentRef"];
            let section = reference["sectionName"].as_str().map(|section| format!("/{section}"));
            let port = reference["port"].as_u64().map(|port| format!(":{port}"));
            let (section, port) = (section.unwrap_or_default(), port.unwrap_or_default());
            conditions(
                &format!("{object} under {}{section}{port}", text(&reference["name"])),
                parent,
                &mut lines,
            );
        }
    }
    served(&translation.ir, &mut lines);
    lines
}

fn conditions(place: &str, status: &Value, lines: &mut Vec<String>) {
    for condition in status["conditions"].as_array().into_iter().flatten() {
        let [kind, status, reason] = ["type", "status", "reason"].map(|field| text(&condition[field]));
        lines.push(format!("{place}: {kind} {status} {reason}"));
    }
}

fn served(ir: &Ir, lines: &mut Vec<String>) {
    for port in &ir.ports {
        let address = port.address.map_or_else(|| "*".to_owned(), |address| address.to_string());
        for listener in &port.listeners {
            for attached in &listener.routes {
                let hosts: Vec<_> = attached.hostnames.iter().map(ToString::to_string).collect();
                let (place, hosts) = (format!("socket {address}:{}", port.port), hosts.join(" "));
                lines.push(format!("{place} listener {}: {} for {hosts}", listener.id, attached.route));
            }
        }
    }
    for route in &ir.routes {
        for share in route.rules.iter().flat_map(|rule| &rule.backends) {
            let target = match &share.target {
                Target::Backend(id) => id.to_string(),
                Target::AiService(name) => name.to_string(),
                _ => "nowhere".to_owned(),
            };
            lines.push(format!("route {}: {} to {target}", route.id, share.weight));
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
