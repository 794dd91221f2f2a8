//! What `validate` says about manifests, line by line.
#![cfg(test)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use nantian_gateway::{cli::validate, source::Files};

fn lines_of(paths: &[PathBuf]) -> (bool, Vec<String>) {
    let mut out = Vec::new();
    let is_clean = validate(Files::new(paths.to_vec()), &mut out, &mut std::io::sink()).unwrap();
    (is_clean, String::from_utf8(out).unwrap().lines().map(str::to_owned).collect())
}

fn manifests(directory: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The lines that `file` announces in its `# expect:` comments, each without the name of the file.
fn expected(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().map_while(|line| line.strip_prefix("# expect: "));
    lines.map(|line| format!("{}:{line}", file.display())).collect()
}

/// Writes what `validate` says now into the `# expect:` comments of `file`, to be read before it is
/// committed.
///
/// Do it twice where the number of lines changes, for they shift the lines of syntax errors.
fn announce(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    let prefix = format!("{}:", file.display());
    let said = lines_of(&[file.to_owned()]).1;
    let announced = said.iter().map(|line| format!("# expect: {}\n", line.trim_start_matches(&prefix)));
    let rest =
        text.split_inclusive('\n').skip_while(|line| line.starts_with("# expect: ")).map(str::to_owned);
    fs::write(file, announced.chain(rest).collect::<String>()).unwrap();
}

#[test]
fn every_broken_manifest_gives_exactly_the_lines_it_announces() {
    let files = manifests("tests/broken");
    assert!(files.len() >= 40, "{}", files.len());
    for file in files {
        if env::var_os("UPDATE_GOLDEN").is_some() {
            announce(&file);
        }
        let expected = expected(&file);
        assert!(!expected.is_empty(), "{} announces nothing", file.display());
        assert_eq!(lines_of(&[file]), (false, expected));
    }
}

#[test]
fn all_broken_manifests_at_once_are_reported_in_the_order_of_files() {
    let (is_clean, lines) = lines_of(&[PathBuf::from("tests/broken")]);
    assert!(!is_clean);
    let files = lines.iter().map(|line| line.split_once(':').unwrap().0);
    assert!(files.is_sorted());
}

#[test]
fn every_line_but_one_about_syntax_names_an_object_or_a_field() {
    for file in manifests("tests/broken") {
        for line in expected(&file) {
            let parts: Vec<_> = line.splitn(5, ": ").collect();
            let is_syntax = parts[1].starts_with("line ") || parts[1].starts_with("is no object");
            assert!(is_syntax || parts.len() >= 3, "{line}");
        }
    }
}

#[test]
fn the_seed_manifests_are_clean_alone_and_together() {
    let seed = "../examples/manifests/seed";
    for file in manifests(seed) {
        let (is_clean, lines) = lines_of(&[file]);
        assert!(is_clean && lines[0].starts_with("clean: 1 object in 1 file"), "{lines:?}");
    }
    let lines = vec!["clean: 4 objects in 4 files, 4 references to objects elsewhere".to_owned()];
    assert_eq!(lines_of(&[seed.into()]), (true, lines));
}

#[test]
fn every_directory_of_example_manifests_is_clean() {
    for directory in manifests("../examples/manifests") {
        let (is_clean, lines) = lines_of(&[directory]);
        assert!(is_clean, "{lines:?}");
    }
}

#[test]
fn a_clean_line_counts_what_was_skipped() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, "{apiVersion: v1, kind: Namespace, metadata: {name: a}}\n---\n{apiVersion: apps/v1, kind: Deployment}").unwrap();
    let lines = vec!["clean: 1 object in 1 file, 1 object of other kinds skipped".to_owned()];
    assert_eq!(lines_of(&[file]), (true, lines));
}

#[test]
fn a_route_may_wait_for_a_namespace_that_is_elsewhere() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let gateway = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web, namespace: infra}
spec:
  gatewayClassName: nantian
  listeners:
    - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {web: open}}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: demo}
spec: {parentRefs: [{name: web, namespace: infra}]}
";
    fs::write(&file, gateway).unwrap();
    assert!(lines_of(std::slice::from_ref(&file)).0);
    let namespace = "---\n{apiVersion: v1, kind: Namespace, metadata: {name: demo}}";
    fs::write(&file, format!("{gateway}{namespace}")).unwrap();
    let line = format!(
        "{}:9: HTTPRoute/demo/shop: spec.parentRefs: no listener allows HTTPRoutes of namespace demo",
        file.display()
    );
    assert_eq!(lines_of(&[file]), (false, vec![line]));
}

#[test]
fn a_policy_may_wait_for_a_gateway_that_is_elsewhere() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let policy = "{apiVersion: gateway.nantian.dev/v1alpha1, kind: TokenPolicy, metadata: {name: quota}, spec: \
        {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], requestsPerMinute: 9}}";
    fs::write(&file, policy).unwrap();
    let line = "clean: 1 object in 1 file, 1 reference to objects elsewhere".to_owned();
    assert_eq!(lines_of(&[file]), (true, vec![line]));
}

#[test]
fn what_is_no_fault_and_takes_no_effect_all_the_same_is_a_warning() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let policy = "{apiVersion: gateway.nantian.dev/v1alpha1, kind: TokenPolicy, metadata: {name: quota}, spec: \
        {targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: web}], requestsPerMinute: 9}}";
    let unserved =
        "{apiVersion: gateway.networking.k8s.io/v1alpha2, kind: ReferencePolicy, metadata: {name: old}}";
    fs::write(&file, format!("{policy}\n---\n{unserved}")).unwrap();
    let mut warnings = Vec::new();
    assert!(validate(Files::new([file]), &mut std::io::sink(), &mut warnings).unwrap());
    let warnings = String::from_utf8(warnings).unwrap();
    let lines: Vec<_> = warnings.lines().collect();
    assert_eq!(lines.len(), 2, "{warnings}");
    assert!(lines[0].starts_with("warning: TokenPolicy default/quota: spec.targetRefs"), "{warnings}");
    assert!(lines[1].starts_with("warning: ReferencePolicy/"), "{warnings}");
}

#[test]
fn a_path_that_does_not_exist_is_a_fault() {
    let (is_clean, lines) = lines_of(&["tests/nowhere.yaml".into()]);
    assert_eq!(
        (is_clean, lines),
        (false, vec!["tests/nowhere.yaml: No such file or directory (os error 2)".to_owned()])
    );
}

#[test]
fn a_parent_that_may_be_elsewhere_is_not_warned_of_and_one_that_cannot_serve_is() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let route = "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: shop}, spec: \
        {parentRefs: [PARENT]}}";
    for (parent, told) in
        [("{name: web}", ""), ("{group: '', kind: Service, name: web}", "is not served as a parent")]
    {
        fs::write(&file, route.replace("PARENT", parent)).unwrap();
        let mut warnings = Vec::new();
        assert!(validate(Files::new([file.clone()]), &mut std::io::sink(), &mut warnings).unwrap());
        let warnings = String::from_utf8(warnings).unwrap();
        assert_eq!((warnings.is_empty(), warnings.contains(told)), (told.is_empty(), true), "{warnings}");
    }
}

#[test]
fn a_policy_for_tls_to_a_service_that_is_nowhere_is_warned_of() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let policy = "{apiVersion: gateway.networking.k8s.io/v1, kind: BackendTLSPolicy, metadata: {name: api}, spec: \
        {targetRefs: [{group: '', kind: Service, name: apii}], validation: {wellKnownCACertificates: System, hostname: \
        api.example.org}}}";
    fs::write(&file, policy).unwrap();
    let mut warnings = Vec::new();
    assert!(validate(Files::new([file]), &mut std::io::sink(), &mut warnings).unwrap());
    let told =
        "warning: BackendTLSPolicy default/api: spec.targetRefs[0]: Service default/apii does not exist\n";
    assert_eq!(String::from_utf8(warnings).unwrap(), told);
}

#[test]
fn an_ai_service_that_is_never_asked_is_warned_of() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let manifest = "{apiVersion: gateway.nantian.dev/v1alpha1, kind: AIService, metadata: {name: llm}, spec: {provider: \
        ollama, model: m, auth: {type: none}}}
---
{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: chat}, spec: {parentRefs: [{name: web}], \
        rules: [{backendRefs: [{group: gateway.nantian.dev, kind: AIService, name: llm, weight: WEIGHT}]}]}}";
    let warning = "warning: HTTPRoute default/chat: spec.rules[0].backendRefs[0].weight: 0, so AIService llm is not asked \
        even if others fail\n";
    for (weight, told) in [("0", warning), ("1", "")] {
        fs::write(&file, manifest.replace("WEIGHT", weight)).unwrap();
        let mut warnings = Vec::new();
        assert!(validate(Files::new([file.clone()]), &mut std::io::sink(), &mut warnings).unwrap());
        assert_eq!(String::from_utf8(warnings).unwrap(), told);
    }
}
