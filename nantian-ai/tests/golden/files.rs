//! The files: what is said, and what becomes of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use nantian_ai::Dialect;
use nantian_ai::ir::Losses;
use serde_json::Value;

use crate::frames::frames;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn folder(kind: &str, dialect: Dialect) -> PathBuf {
    root().join(kind).join(dialect.name())
}

/// The inputs of a folder: name and bytes.
pub(crate) fn inputs(kind: &str, dialect: Dialect, end: &str) -> Vec<(String, Vec<u8>)> {
    let mut inputs: Vec<_> = fs::read_dir(folder(kind, dialect))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_suffix(end)?.to_owned();
            Some((name, fs::read(&path).unwrap()))
        })
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "{kind} of {dialect}");
    inputs
}

/// The streams of a dialect as they come: those of Bedrock are kept as lines, each the name of an event and
/// its payload.
pub(crate) fn streams(dialect: Dialect) -> Vec<(String, Vec<u8>)> {
    let framed = |(name, lines): (String, Vec<u8>)| {
        let lines = std::str::from_utf8(&lines).unwrap().lines();
        (name, frames(lines.map(|line| line.split_once(' ').unwrap())))
    };
    let streams = inputs("stream", dialect, ".stream").into_iter();
    if dialect == Dialect::Bedrock { streams.map(framed).collect() } else { streams.collect() }
}

/// Where it is kept what an input becomes.
pub(crate) fn output(kind: &str, from: Dialect, name: &str, to: &str) -> PathBuf {
    folder(kind, from).join(format!("{name}.to-{to}.txt"))
}

/// Whether the files are written anew.
pub(crate) fn is_writing() -> bool {
    std::env::var("GOLDEN").is_ok_and(|mode| mode == "write")
}

/// Compares with the file, or writes it.
pub(crate) fn check(path: &Path, seen: &str) {
    if is_writing() {
        fs::write(path, seen).unwrap();
        return;
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(seen, expected, "{}", path.display());
}

/// The file with the table of all.
pub(crate) fn table() -> PathBuf {
    root().join("matrix.md")
}

pub(crate) fn show(losses: &Losses, body: &[u8]) -> String {
    let body: Value = serde_json::from_slice(body).unwrap();
    let mut shown = String::new();
    if !losses.is_empty() {
        writeln!(shown, "dropped: {losses}").unwrap();
    }
    writeln!(shown, "{body:#}").unwrap();
    shown
}
