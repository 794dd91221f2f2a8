//! Reading manifests again and again while they change.
#![cfg(test)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::SystemTime,
};

use k8s_openapi::api::core::v1::Service;
use nantian_gateway::{
    ir::ObjectName,
    source::{Files, Load, ObjectRef},
};
use tempfile::TempDir;

struct World {
    directory: TempDir,
    files: Files,
}

impl World {
    fn new(files: &[(&str, &str)]) -> Self {
        let directory = TempDir::new().unwrap();
        let world = Self { files: Files::new([directory.path().to_owned()]), directory };
        for (name, text) in files {
            world.write(name, text);
        }
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Loads, and gives the changes and the faults as lines without the directory.
    fn load(&mut self) -> (Load, Vec<String>, Vec<String>) {
        let load = self.files.load();
        let changed = load.changed.iter().map(ToString::to_string).collect();
        let directory = format!("{}/", self.directory.path().display());
        let faults = load.faults.iter().map(|fault| fault.to_string().replace(&directory, "")).collect();
        (load, changed, faults)
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: demo}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn broken(name: &str) -> String {
    service(name, 80).replace("ports", "prots")
}

fn port(load: &Load, name: &str) -> Option<i32> {
    port_of(load.objects.services.get(&ObjectName::new("demo", name))?)
}

fn port_of(service: &Service) -> Option<i32> {
    Some(service.spec.as_ref()?.ports.as_ref()?.first()?.port)
}

fn both(first: &str, second: &str) -> String {
    format!("{first}---\n{second}")
}

const UNKNOWN_FIELD: &str = "spec.prots: unknown field; did you mean \"ports\"?";

#[test]
fn only_what_changed_is_read_and_named() {
    let mut world =
        World::new(&[("a.yaml", &service("a", 1)), ("b.yml", &service("b", 2)), ("c.txt", "nonsense")]);
    let (load, changed, faults) = world.load();
    assert_eq!(changed, ["Service demo/a", "Service demo/b"]);
    assert_eq!((faults, load.files), (vec![], 2));

    let (_, changed, _) = world.load();
    assert!(changed.is_empty());

    world.write("b.yml", &service("b", 3));
    let (load, changed, _) = world.load();
    assert_eq!(changed, ["Service demo/b"]);
    assert_eq!((port(&load, "a"), port(&load, "b")), (Some(1), Some(3)));
}

#[test]
fn a_comment_or_a_new_status_changes_nothing() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    world.load();
    world.write("a.yaml", &format!("# why\n{}status: {{loadBalancer: {{}}}}\n", service("a", 1)));
    let (load, changed, faults) = world.load();
    assert_eq!((changed, faults, load.reread), (vec![], vec![], 1));
}

#[test]
fn a_broken_object_keeps_its_last_good_version_and_stops_no_other() {
    let mut world = World::new(&[("a.yaml", &both(&service("a", 1), &service("b", 2)))]);
    world.load();
    world.write("a.yaml", &both(&broken("a"), &service("b", 3)));
    let (load, changed, faults) = world.load();
    assert_eq!(changed, ["Service demo/b"]);
    assert_eq!(faults, [format!("a.yaml:1: Service/demo/a: {UNKNOWN_FIELD}")]);
    assert_eq!((port(&load, "a"), port(&load, "b")), (Some(1), Some(3)));

    world.write("a.yaml", &both(&service("a", 4), &service("b", 3)));
    let (load, changed, faults) = world.load();
    assert_eq!((changed, faults), (vec!["Service demo/a".to_owned()], vec![]));
    assert_eq!(port(&load, "a"), Some(4));
}

#[test]
fn an_object_that_never_was_good_is_not_served() {
    let mut world = World::new(&[("a.yaml", &both(&broken("a"), &service("b", 2)))]);
    let (load, changed, _) = world.load();
    assert_eq!(changed, ["Service demo/b"]);
    assert_eq!(port(&load, "a"), None);
}

#[test]
fn a_fault_is_reported_once_by_each_load_until_it_is_repaired() {
    let mut world = World::new(&[("a.yaml", &broken("a")), ("b.yaml", &broken("b"))]);
    for _ in 0..3 {
        assert_eq!(world.load().2.len(), 2);
    }
    world.remove("a.yaml");
    assert_eq!(world.load().2, [format!("b.yaml:1: Service/demo/b: {UNKNOWN_FIELD}")]);
}

#[test]
fn a_file_that_does_not_parse_loses_none_of_its_objects() {
    let mut world = World::new(&[("a.yaml", &both(&service("a", 1), &service("b", 2)))]);
    world.load();
    world.write("a.yaml", &both(&service("a", 3), "kind: [\n"));
    let (load, changed, faults) = world.load();
    assert_eq!((port(&load, "a"), port(&load, "b")), (Some(3), Some(2)));
    assert_eq!(changed, ["Service demo/a"]);
    assert_eq!(faults.len(), 1, "{faults:?}");

    world.write("a.yaml", "\u{0}");
    let (load, changed, _) = world.load();
    assert_eq!((port(&load, "a"), port(&load, "b")), (Some(3), Some(2)));
    assert!(changed.is_empty());

    fs::write(world.path("a.yaml"), [0xff, 0xfe]).unwrap();
    let (load, _, faults) = world.load();
    assert_eq!((port(&load, "a"), port(&load, "b")), (Some(3), Some(2)));
    assert_eq!(faults, ["a.yaml: line 1: is not UTF-8 text"]);
}

#[test]
fn an_object_whose_kind_or_name_got_lost_stays() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    world.load();
    for slip in [service("a", 2).replace("kind", "knid"), service("a", 2).replace("{name", "{nmae")] {
        world.write("a.yaml", &slip);
        let (load, changed, faults) = world.load();
        assert_eq!((port(&load, "a"), changed, faults.len()), (Some(1), vec![], 1));
    }
}

#[test]
fn an_object_is_gone_when_its_document_or_its_file_is() {
    let mut world = World::new(&[
        ("a.yaml", &both(&service("a", 1), &service("b", 2))),
        ("sub/c.yaml", &service("c", 3)),
    ]);
    world.load();
    world.write("a.yaml", &service("b", 2));
    assert_eq!(world.load().1, ["Service demo/a"]);
    world.remove("sub/c.yaml");
    world.remove("a.yaml");
    let (load, changed, _) = world.load();
    assert_eq!(changed, ["Service demo/b", "Service demo/c"]);
    assert!(load.objects.is_empty());
}

#[test]
fn what_cannot_be_found_for_a_moment_keeps_its_last_good_version() {
    let mut world = World::new(&[("..v1/a.yaml", &service("a", 1)), ("..v2/a.yaml", &service("a", 2))]);
    let (data, link) = (world.path("..data"), world.path("a.yaml"));
    symlink("..v1", &data).unwrap();
    symlink("..data/a.yaml", &link).unwrap();
    world.load();

    fs::remove_file(&data).unwrap();
    let (load, changed, faults) = world.load();
    assert_eq!((port(&load, "a"), changed, faults.len()), (Some(1), vec![], 1), "{faults:?}");

    symlink("..v2", &data).unwrap();
    let (load, _, faults) = world.load();
    assert_eq!((port(&load, "a"), faults), (Some(2), vec![]));

    let (here, elsewhere) = (world.directory.path().to_owned(), tempfile::tempdir().unwrap());
    fs::rename(&here, elsewhere.path().join("moved")).unwrap();
    let (load, changed, faults) = world.load();
    assert_eq!((port(&load, "a"), changed, faults.len()), (Some(2), vec![], 1), "{faults:?}");

    fs::rename(elsewhere.path().join("moved"), &here).unwrap();
    fs::remove_file(&link).unwrap();
    let (load, changed, faults) = world.load();
    assert!(load.objects.is_empty(), "a link that was taken out takes its objects along");
    assert_eq!((changed.len(), faults), (1, vec![]));
}

#[test]
fn a_directory_that_cannot_be_found_keeps_its_objects_and_is_a_fault() {
    let mut world = World::new(&[("b.yaml", &service("b", 1))]);
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("a.yaml"), service("a", 1)).unwrap();
    let link = world.path("team");
    symlink("nowhere", world.path("notes")).unwrap();
    symlink(elsewhere.path(), &link).unwrap();
    assert_eq!(world.load().2, Vec::<String>::new());

    drop(elsewhere);
    for _ in 0..2 {
        let (load, changed, faults) = world.load();
        assert_eq!((port(&load, "a"), changed), (Some(1), vec![]));
        assert_eq!(faults, ["team: No such file or directory (os error 2)"]);
    }
    fs::remove_file(&link).unwrap();
    let (load, changed, faults) = world.load();
    assert_eq!((load.objects.len(), changed.len(), faults), (1, 1, vec![]));
}

#[test]
fn an_object_may_move_to_another_file() {
    let mut world = World::new(&[("a.yaml", &service("a", 1)), ("b.yaml", "")]);
    world.load();
    world.write("a.yaml", "");
    world.write("b.yaml", &service("a", 1));
    let (load, changed, faults) = world.load();
    assert_eq!((port(&load, "a"), changed, faults), (Some(1), vec![], vec![]));
    let place = world.files.place(&ObjectRef { kind: "Service", name: ObjectName::new("demo", "a") });
    assert_eq!(place.unwrap().file.as_ref(), world.path("b.yaml"));
}

#[test]
fn a_second_definition_is_a_fault_that_names_both_and_changes_nothing() {
    let mut world = World::new(&[("b.yaml", &service("a", 1))]);
    world.load();
    world.write("a.yaml", &both("# empty\n", &service("a", 2)));
    for _ in 0..2 {
        let (load, changed, faults) = world.load();
        let directory = world.directory.path().display();
        assert_eq!(
            load.faults[0].reason,
            format!("is already defined at {directory}/b.yaml:1, which counts")
        );
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("a.yaml:3: Service/demo/a: metadata.name: "), "{faults:?}");
        assert_eq!((port(&load, "a"), changed), (Some(1), vec![]));
    }
    world.remove("b.yaml");
    let (load, changed, faults) = world.load();
    assert_eq!((port(&load, "a"), changed.len(), faults), (Some(2), 1, vec![]));
}

#[test]
fn an_edit_that_is_rejected_is_taken_back_until_the_next_edit() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    let name = ObjectRef { kind: "Service", name: ObjectName::new("demo", "a") };
    world.load();
    assert!(!world.files.reject([&name]), "there is nothing to go back to");

    world.write("a.yaml", &service("a", 2));
    assert_eq!(world.load().1, ["Service demo/a"]);
    assert!(world.files.reject([&name]));
    assert_eq!(world.files.objects().services.get(&name.name).map(|service| port_of(service)), Some(Some(1)));

    let (load, changed, _) = world.load();
    assert_eq!((port(&load, "a"), changed), (Some(1), vec![]));
    assert!(!world.files.reject([&name]));

    world.write("a.yaml", &service("a", 3));
    let (load, changed, _) = world.load();
    assert_eq!((port(&load, "a"), changed.len()), (Some(3), 1));
}

#[test]
fn going_back_to_what_is_served_lifts_a_rejection() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    let name = ObjectRef { kind: "Service", name: ObjectName::new("demo", "a") };
    for expected in [2, 2] {
        world.write("a.yaml", &service("a", 1));
        world.load();
        world.write("a.yaml", &service("a", expected));
        let (load, changed, _) = world.load();
        assert_eq!((port(&load, "a"), changed.len()), (Some(expected.into()), 1));
        assert!(world.files.reject([&name]));
    }
}

#[test]
fn a_file_replaced_by_rename_is_read_even_with_the_same_length_and_time() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    let past = SystemTime::UNIX_EPOCH;
    let at = |path: &Path| fs::File::options().write(true).open(path).unwrap().set_modified(past).unwrap();
    at(&world.path("a.yaml"));
    world.load();
    world.write("a.yaml.new", &service("a", 2));
    at(&world.path("a.yaml.new"));
    fs::rename(world.path("a.yaml.new"), world.path("a.yaml")).unwrap();
    let (load, changed, _) = world.load();
    assert_eq!((port(&load, "a"), changed.len()), (Some(2), 1));
}

#[test]
fn a_file_written_twice_within_a_tick_of_the_clock_is_read_twice() {
    let mut world = World::new(&[("a.yaml", &service("a", 1))]);
    for expected in 2..200 {
        world.load();
        fs::write(world.path("a.yaml"), service("a", expected)).unwrap();
        assert_eq!(port(&world.load().0, "a"), Some(expected.into()));
    }
}

#[test]
fn a_mounted_config_map_is_seen_once_and_its_swap_is_seen() {
    let mut world = World::new(&[("..1/a.yaml", &service("a", 1)), ("..2/a.yaml", &service("a", 2))]);
    symlink("..1", world.path("..data")).unwrap();
    symlink("..data/a.yaml", world.path("a.yaml")).unwrap();
    let (load, _, faults) = world.load();
    assert_eq!((port(&load, "a"), load.files, faults), (Some(1), 1, vec![]));

    symlink("..2", world.path("..data_tmp")).unwrap();
    fs::rename(world.path("..data_tmp"), world.path("..data")).unwrap();
    fs::remove_dir_all(world.path("..1")).unwrap();
    let (load, changed, faults) = world.load();
    assert_eq!((port(&load, "a"), changed.len(), faults), (Some(2), 1, vec![]));
}

#[test]
fn links_in_a_circle_and_paths_given_twice_are_read_once() {
    let world = World::new(&[("sub/a.yaml", &service("a", 1)), ("other.conf", &service("b", 2))]);
    symlink("..", world.path("sub/up")).unwrap();
    let mut files =
        Files::new([world.path("other.conf"), world.path("sub"), world.path("."), world.path("sub/a.yaml")]);
    let load = files.load();
    assert_eq!((load.files, load.faults, load.objects.len()), (2, vec![], 2));
}

#[test]
fn string_data_of_a_secret_is_merged_into_its_data() {
    let secret = "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: YQ==, b: \"Yg\\n==\"}, stringData: {b: B, c: C}}";
    let mut world = World::new(&[("a.yaml", secret)]);
    let (load, _, faults) = world.load();
    assert!(faults.is_empty(), "{faults:?}");
    let secret = load.objects.secrets.get(&ObjectName::new("default", "s")).unwrap();
    let data: Vec<_> =
        secret.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice())).collect();
    assert_eq!(data, [("a", &b"a"[..]), ("b", b"B"), ("c", b"C")]);
    assert_eq!(secret.string_data, None);
}

#[test]
fn a_fault_never_shows_what_a_secret_holds() {
    for secret in [
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: hunter2}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: hunter2}",
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: [hunter2]}",
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: {b: hunter2}}}",
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {a: [hunter2}}",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData:\n  a: hunter2\n b: hunter2\n",
    ] {
        let mut world = World::new(&[("a.yaml", secret)]);
        let (_, _, faults) = world.load();
        assert_eq!(faults.len(), 1, "{secret}: {faults:?}");
        assert!(!faults[0].contains("hunter2"), "{faults:?}");
    }
}

#[test]
fn what_kubectl_prints_can_be_read_back() {
    let list = r#"
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- apiVersion: gateway.networking.k8s.io/v1beta1
  kind: HTTPRoute
  metadata:
    creationTimestamp: "2026-01-31T12:00:00Z"
    generation: 2
    managedFields: [{manager: kubectl, operation: Apply, fieldsV1: {"f:spec": {}}}]
    name: shop
    namespace: demo
    resourceVersion: "1"
    uid: 6f0a
  spec: {parentRefs: [{name: web}], hostnames: null}
  status: {parents: [{controllerName: other/one, unheardOf: true}]}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: echo}}
- {apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: echo-1}, addressType: IPv4, endpoints: null, ports: null}
"#;
    let mut world = World::new(&[("a.yaml", list)]);
    let (load, changed, faults) = world.load();
    assert_eq!(changed, ["EndpointSlice default/echo-1", "HTTPRoute demo/shop"]);
    assert_eq!((faults, load.skipped), (vec![], 1));
    let route = load.objects.http_routes.get(&ObjectName::new("demo", "shop")).unwrap();
    assert_eq!((route.metadata.uid.as_deref(), route.metadata.generation), (Some("6f0a"), Some(2)));
}

#[test]
fn what_is_no_regular_file_is_not_waited_for() {
    let mut world = World::new(&[("a.yaml", &service("web", 80))]);
    let pipe = world.path("pipe.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let (load, changed, faults) = world.load();
    assert_eq!((load.files, changed, faults), (1, vec!["Service demo/web".to_owned()], vec![]));

    let (_, _, faults) = World { files: Files::new([pipe]), ..world }.load();
    assert_eq!(faults, ["pipe.yaml: is neither a file nor a directory"]);
}

#[test]
fn kinds_of_the_gateway_api_that_are_not_served_are_named() {
    let policy = "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: ReferencePolicy\nmetadata: {name: tls, namespace: demo}\n";
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: demo}\n";
    let mut world = World::new(&[("a.yaml", &format!("{policy}---\n{deployment}"))]);
    let (load, ..) = world.load();
    let unserved: Vec<_> = load.unserved.iter().map(ToString::to_string).collect();
    assert_eq!((unserved, load.skipped), (vec!["ReferencePolicy/demo/tls".to_owned()], 1));
}
