//! The official conformance tests of Gateway API, as manifests and what has to become of them.
//!
//! `tests/conformance/<Name>.yaml` is the test of that name, of a release or of one that is to come; a
//! comment at its head says where it differs. Its first document says what is expected, the others are
//! manifests, which may leave out what is the same in all of them (see `world.rs`).
//! `CONFORMANCE=<Name>` runs one alone.

mod check;
mod echo;
mod expect;
#[cfg(feature = "kubernetes")]
mod features;
mod world;

use std::{env, fs, path::PathBuf};

use futures_util::{StreamExt as _, stream};

use self::{check::Case, echo::Backends};

/// Gateways that run at once.
const AT_ONCE: usize = 6;

fn files() -> Vec<PathBuf> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let mut files: Vec<_> = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_stem().is_some_and(|name| name != "base"));
    files.sort();
    files
}

#[tokio::test]
async fn every_official_test_passes() {
    let backends = Backends::start().await;
    let mut files = files();
    if let Ok(wanted) = env::var("CONFORMANCE") {
        files.retain(|file| file.file_stem().is_some_and(|name| *name == *wanted));
    }
    let cases = files.into_iter().enumerate().map(|(number, file)| {
        let backends = backends.clone();
        async move {
            let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = fs::read_to_string(&file).unwrap();
            let failures = Box::pin(Case::new(number, &text, backends).run()).await;
            failures.into_iter().map(|failure| format!("{name}: {failure}")).collect::<Vec<_>>()
        }
    });
    let failures: Vec<_> = stream::iter(cases).buffer_unordered(AT_ONCE).collect().await;
    let failures: Vec<_> = failures.into_iter().flatten().collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
