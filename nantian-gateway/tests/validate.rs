//! What `validate` says about manifests, line by line.
#![cfg(test)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use nantian_gateway::cli::validate;

fn lines_of(paths: &[PathBuf]) -> (bool, Vec<String>) {
    let mut out = Vec::new();
    let is_clean = validate(paths, &mut out).unwrap();
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

#[test]
fn every_broken_manifest_gives_exactly_the_lines_it_announces() {
    let files = manifests("tests/broken");
    assert!(files.len() >= 40, "{}", files.len());
    for file in files {
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
fn the_seed_manifests_are_clean_alone_and_together() {
    let seed = "../examples/manifests/seed";
    for file in manifests(seed) {
        assert_eq!(lines_of(&[file]), (true, vec!["clean: 1 object in 1 file".to_owned()]));
    }
    assert_eq!(lines_of(&[seed.into()]), (true, vec!["clean: 4 objects in 4 files".to_owned()]));
}

#[test]
fn a_path_that_does_not_exist_is_a_fault() {
    let (is_clean, lines) = lines_of(&["tests/nowhere.yaml".into()]);
    assert_eq!(
        (is_clean, lines),
        (false, vec!["tests/nowhere.yaml: No such file or directory (os error 2)".to_owned()])
    );
}
