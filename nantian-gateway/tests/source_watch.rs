//! Noticing that manifests change.
#![cfg(test)]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use nantian_gateway::source::Watcher;
use tempfile::TempDir;
use tokio::time::timeout;

/// Longer than any report may take.
const SOON: Duration = Duration::from_secs(60);
/// Longer than a report takes if there is one.
const QUIET: Duration = Duration::from_millis(400);

async fn assert_noticed(watcher: &mut Watcher, what: &str) {
    assert!(timeout(SOON, watcher.changed()).await.is_ok(), "{what} was not noticed");
}

async fn assert_quiet(watcher: &mut Watcher, what: &str) {
    assert!(timeout(QUIET, watcher.changed()).await.is_err(), "{what} was taken for a change");
}

fn watch(paths: &[&Path]) -> Watcher {
    let paths: Vec<PathBuf> = paths.iter().map(|path| (*path).to_owned()).collect();
    Watcher::new(&paths).unwrap()
}

#[tokio::test]
async fn every_way_to_change_a_file_in_a_directory_is_noticed_and_comes_to_rest() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let mut watcher = watch(&[directory.path()]);
    let steps: [(&str, &dyn Fn()); 5] = [
        ("writing", &|| fs::write(at("a.yaml"), "a: 1").unwrap()),
        ("writing in place", &|| fs::write(at("a.yaml"), "a: 2").unwrap()),
        ("renaming over", &|| {
            fs::write(at(".a.yaml.swp"), "a: 3").unwrap();
            fs::rename(at(".a.yaml.swp"), at("a.yaml")).unwrap();
        }),
        ("many writes in a row", &|| {
            (0..100).for_each(|n| fs::write(at(&format!("{n}.yaml")), "a: 1").unwrap())
        }),
        ("deleting", &|| fs::remove_file(at("a.yaml")).unwrap()),
    ];
    for (what, step) in steps {
        step();
        assert_noticed(&mut watcher, what).await;
        // Once, unless this process had to wait for its turn in between.
        let mut reports = 1;
        while timeout(QUIET, watcher.changed()).await.is_ok() {
            reports += 1;
        }
        assert!(reports < 10, "{what} was noticed {reports} times");
    }
}

#[tokio::test]
async fn a_directory_that_is_created_later_is_watched_too() {
    let directory = TempDir::new().unwrap();
    let mut watcher = watch(&[directory.path()]);
    let below = directory.path().join("team/shop");
    fs::create_dir_all(&below).unwrap();
    assert_noticed(&mut watcher, "a new directory").await;
    fs::write(below.join("a.yaml"), "a: 1").unwrap();
    assert_noticed(&mut watcher, "a file in a new directory").await;
}

#[tokio::test]
async fn the_swap_of_a_mounted_config_map_is_noticed() {
    let mount = TempDir::new().unwrap();
    let at = |name: &str| mount.path().join(name);
    for version in ["..1", "..2"] {
        fs::create_dir(at(version)).unwrap();
        fs::write(at(version).join("a.yaml"), version).unwrap();
    }
    symlink("..1", at("..data")).unwrap();
    symlink("..data/a.yaml", at("a.yaml")).unwrap();
    let mut whole = watch(&[mount.path()]);
    let mut single = watch(&[&at("a.yaml")]);
    symlink("..2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    assert_noticed(&mut whole, "the swap below a directory").await;
    assert_noticed(&mut single, "the swap behind a file").await;
}

#[tokio::test]
async fn a_file_is_watched_without_its_neighbours() {
    let directory = TempDir::new().unwrap();
    let (file, neighbour) = (directory.path().join("a.yaml"), directory.path().join("b.yaml"));
    fs::write(&file, "a: 1").unwrap();
    let mut watcher = watch(&[&file]);
    fs::write(&neighbour, "b: 1").unwrap();
    assert_quiet(&mut watcher, "a neighbour").await;
    fs::rename(&neighbour, &file).unwrap();
    assert_noticed(&mut watcher, "renaming over").await;
    fs::write(&file, "a: 2").unwrap();
    assert_noticed(&mut watcher, "writing to the new file").await;
}

#[tokio::test]
async fn a_directory_that_goes_and_comes_back_is_still_watched() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("manifests");
    fs::create_dir(&directory).unwrap();
    let mut watcher = watch(&[&directory]);
    fs::remove_dir(&directory).unwrap();
    assert_noticed(&mut watcher, "the removal").await;
    fs::create_dir(&directory).unwrap();
    assert_noticed(&mut watcher, "the return").await;
    fs::write(directory.join("a.yaml"), "a: 1").unwrap();
    assert_noticed(&mut watcher, "a file after the return").await;
}

#[tokio::test]
async fn reading_is_no_change() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, "a: 1").unwrap();
    let mut watcher = watch(&[directory.path()]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "a: 1");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    assert_quiet(&mut watcher, "reading").await;
}

#[tokio::test]
async fn a_change_survives_a_dropped_wait() {
    let directory = TempDir::new().unwrap();
    let mut watcher = watch(&[directory.path()]);
    fs::write(directory.path().join("a.yaml"), "a: 1").unwrap();
    // The first ones end before it is quiet for long enough, unless this process had to wait for its turn.
    let dropped = async |watcher: &mut Watcher| timeout(Duration::from_millis(20), watcher.changed()).await;
    for _ in 0..3 {
        if dropped(&mut watcher).await.is_ok() {
            return;
        }
    }
    assert_noticed(&mut watcher, "a change before a dropped wait").await;
}

#[test]
fn a_path_without_its_directory_cannot_be_watched() {
    let error = Watcher::new(&["/nowhere/at/all.yaml".into()]).unwrap_err();
    assert_eq!(error.to_string(), r#"cannot watch "/nowhere/at""#);
}
