//! The committed CRD files are what the types say. To bring them up to date:
//! `UPDATE_CRDS=1 cargo nextest run -p nantian-crd crds_on_disk`.

use std::{env, fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use nantian_crd::{crds, crds_yaml};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "deploy", "crds"].iter().collect()
}

/// The documents of the stream, with the name of each.
fn documents() -> Vec<(String, String)> {
    let names = crds().into_iter().map(|crd| crd.metadata.name.expect("a CRD has a name"));
    let stream = crds_yaml();
    let documents = stream.split_terminator("---\n").skip(1).map(str::to_owned);
    names.zip(documents).collect()
}

#[test]
fn are_what_the_types_say() {
    let documents = documents();
    assert_eq!(documents.len(), 4);
    for (name, document) in &documents {
        let path = folder().join(format!("{name}.yaml"));
        if env::var_os("UPDATE_CRDS").is_some() {
            fs::create_dir_all(folder()).expect("the folder can be made");
            fs::write(&path, document).expect("the file can be written");
        }
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(on_disk == *document, "{} is not up to date: see the head of this test", path.display());
    }
}

#[test]
fn are_all_there_is_in_the_folder() {
    let mut found: Vec<_> = fs::read_dir(folder())
        .expect("the folder exists")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"))
        .collect();
    found.sort();
    let mut expected: Vec<_> = documents().into_iter().map(|(name, _)| format!("{name}.yaml")).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn read_back_as_the_same_definitions() {
    let stream: Vec<CustomResourceDefinition> =
        serde_saphyr::from_multiple(&crds_yaml()).expect("the stream is YAML");
    assert!(stream == crds(), "the stream reads back as other definitions");
}
