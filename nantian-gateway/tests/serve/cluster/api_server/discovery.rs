//! What clients ask first: which kinds there are.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{kinds::Kind, store::State};

/// The document at a path that names no object.
pub(super) fn document(state: &State, segments: &[&str]) -> Option<Value> {
    match segments {
        ["version"] => Some(json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": "",
        })),
        ["api"] => {
            Some(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
        }
        ["apis"] => {
            let names: BTreeSet<&str> = state
                .kinds
                .iter()
                .map(|kind| kind.group.as_str())
                .filter(|group| !group.is_empty())
                .collect();
            let groups: Vec<Value> = names.into_iter().filter_map(|name| group(state, name)).collect();
            Some(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["apis", name] => group(state, name),
        ["api", version] => resources(state, "", version),
        ["apis", group, version] => resources(state, group, version),
        ["openapi", "v3"] => Some(json!({ "paths": {} })),
        _ => None,
    }
}

fn versions<'a>(state: &'a State, group: &str) -> Vec<&'a str> {
    let kinds = state.kinds.iter().filter(|kind| kind.group == group);
    let versions: BTreeSet<_> = kinds.flat_map(|kind| kind.versions.iter().map(String::as_str)).collect();
    versions.into_iter().collect()
}

fn group(state: &State, name: &str) -> Option<Value> {
    let versions = versions(state, name);
    let shown = |version: &str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let preferred = shown(versions.first()?);
    let versions: Vec<Value> = versions.into_iter().map(shown).collect();
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions, "preferredVersion": preferred,
    }))
}

fn resources(state: &State, group: &str, version: &str) -> Option<Value> {
    let is_in = |kind: &&Kind| {
        state.knows(kind) && kind.group == group && kind.versions.iter().any(|served| served == version)
    };
    let kinds: Vec<&Kind> = state.kinds.iter().filter(is_in).collect();
    let api_version = kinds.first()?.api_version(version);
    let resource = |kind: &&Kind| {
        let main = json!({
            "name": kind.plural, "singularName": kind.name.to_lowercase(), "namespaced": kind.is_namespaced,
            "kind": kind.name, "shortNames": kind.short_names,
            "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
        });
        let status = json!({
            "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": kind.is_namespaced,
            "kind": kind.name, "verbs": ["get", "patch", "update"],
        });
        [Some(main), kind.has_status.then_some(status)]
    };
    let resources: Vec<Value> = kinds.iter().flat_map(resource).flatten().collect();
    Some(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources }),
    )
}
