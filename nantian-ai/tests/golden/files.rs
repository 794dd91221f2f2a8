//! The files: what is said, and what becomes of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use nantian_ai::Dialect;
use nantian_ai::ir::Losses;
use serde_json::Value;

use crate::frames::frames;

/// What a section begins with, in front of the name of whom it is told to.
const HEAD: &str = "== to ";

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

/// Compares what an input becomes with what is kept beside it, in a section for each of those it is told to.
pub(crate) fn check(kind: &str, from: Dialect, name: &str, seen: &[(&str, String)]) {
    let path = folder(kind, from).join(format!("{name}.golden"));
    let text: String = seen.iter().map(|(to, text)| format!("{HEAD}{to}\n{text}")).collect();
    if let Some(kept) = unlike(&path, &text) {
        panic!("{kind} of {from}: {name}\n{}", differences(&kept, seen));
    }
}

/// Compares the table of all with the file.
pub(crate) fn check_table(seen: &str) {
    let path = root().join("matrix.md");
    if let Some(kept) = unlike(&path, seen) {
        panic!("{}\n{}", path.display(), difference(&kept, seen));
    }
}

/// What is in a file, if it is something else. `GOLDEN=write` writes the file instead.
fn unlike(path: &Path, seen: &str) -> Option<String> {
    let kept = fs::read_to_string(path).unwrap_or_default();
    if kept == seen {
        return None;
    }
    if std::env::var("GOLDEN").is_ok_and(|mode| mode == "write") {
        fs::write(path, seen).unwrap();
        return None;
    }
    Some(kept)
}

/// What is wrong with the sections of a file.
fn differences(kept: &str, seen: &[(&str, String)]) -> String {
    let kept = sections(kept);
    let mut told = String::new();
    for (to, seen) in seen {
        match kept.iter().find(|(kept, _)| kept == to) {
            Some((_, kept)) if kept == seen => {}
            Some((_, kept)) => write!(told, "to {to}, {}", difference(kept, seen)).unwrap(),
            None => writeln!(told, "to {to}: no such section").unwrap(),
        }
    }
    for (to, _) in kept {
        if !seen.iter().any(|(seen, _)| *seen == to) {
            writeln!(told, "to {to}: a section too many").unwrap();
        }
    }
    if told.is_empty() { "the sections are not each there once, in their order".to_owned() } else { told }
}

/// The sections of a file: to whom, and what.
fn sections(kept: &str) -> Vec<(&str, String)> {
    let mut sections: Vec<(&str, String)> = Vec::new();
    for line in kept.split_inclusive('\n') {
        match (line.strip_prefix(HEAD), sections.last_mut()) {
            (Some(to), _) => sections.push((to.trim_end(), String::new())),
            (None, Some((_, text))) => text.push_str(line),
            (None, None) => sections.push(("nobody", line.to_owned())),
        }
    }
    sections
}

/// The lines from the first to the last in which two texts differ.
fn difference(kept: &str, seen: &str) -> String {
    let (kept, seen): (Vec<_>, Vec<_>) = (kept.split('\n').collect(), seen.split('\n').collect());
    let start = kept.iter().zip(&seen).take_while(|(kept, seen)| kept == seen).count();
    let (kept, seen) = (&kept[start..], &seen[start..]);
    let same = kept.iter().rev().zip(seen.iter().rev()).take_while(|(kept, seen)| kept == seen).count();
    let kept = kept[..kept.len() - same].iter().map(|line| format!("-{line}\n"));
    let seen = seen[..seen.len() - same].iter().map(|line| format!("+{line}\n"));
    format!("from line {}:\n{}", start + 1, kept.chain(seen).collect::<String>())
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
