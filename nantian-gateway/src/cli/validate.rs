//! `nantian-gateway validate PATH...`: checks manifests offline.

use std::io::{self, Write};

use super::offline_check::check;
use crate::{
    source::{Cause, Fault, Files, Load, ObjectRef, Refusal, Subject},
    translate::Warning,
};

/// Writes one line a fault to `out`, sorted by file and line, or one line that says how much is clean.
/// Returns whether it is.
///
/// A line reads `file:line: kind/namespace/name: field: reason`; the line is the first one of the object, or
/// of the List that holds it. Objects that the translator refuses are faults too, with every feature gate
/// open. What refers to an object that is in none of the files is not, for a file is often checked alone: it
/// is counted, and told in `warnings`, but for the parents of routes and ListenerSets, as is what the gateway
/// does not serve, and what the translator warns of.
///
/// # Errors
///
/// What writing to `out` or `warnings` fails with. A manifest that cannot be read is a fault like any other.
pub fn validate(mut files: Files, out: &mut impl Write, warnings: &mut impl Write) -> io::Result<bool> {
    let load = files.load();
    // What is wrong with an object that cannot be read was told when it was read.
    let is_readable = |object: &ObjectRef| !load.objects.unreadable.contains_key(object);
    let (refusals, remarks) = check(&load.objects);
    let (dangling, refused): (Vec<_>, Vec<_>) = refusals
        .into_iter()
        .filter(|refusal| is_readable(&refusal.object))
        .partition(|refusal| refusal.cause == Cause::Absence);
    for Refusal { object, path, reason, .. } in &dangling {
        writeln!(warnings, "warning: {object}: {path}: {reason}")?;
    }
    for Warning { object, message } in remarks.iter().filter(|remark| is_readable(&remark.object)) {
        writeln!(warnings, "warning: {object}: {message}")?;
    }
    for object in &load.unserved {
        writeln!(warnings, "warning: {object}: is skipped: the gateway does not serve this kind")?;
    }
    let refused = refused.into_iter().filter_map(|refusal| fault(&files, refusal));
    let mut faults: Vec<_> = load.faults.iter().cloned().chain(refused).collect();
    faults.sort_by(|this, that| this.place.cmp(&that.place));
    for fault in &faults {
        writeln!(out, "{fault}")?;
    }
    if faults.is_empty() {
        writeln!(out, "{}", success_message(&load, dangling.len()))?;
    }
    Ok(faults.is_empty())
}

fn success_message(load: &Load, dangling: usize) -> String {
    let mut line = format!("clean: {} in {}", count(load.objects.len(), "object"), count(load.files, "file"));
    if load.skipped > 0 {
        line += &format!(", {} of other kinds skipped", count(load.skipped, "object"));
    }
    if dangling > 0 {
        line += &format!(", {} to objects elsewhere", count(dangling, "reference"));
    }
    line
}

fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// The refusal as a fault; `None` for an object that is in no file.
fn fault(files: &Files, refusal: Refusal) -> Option<Fault> {
    let Refusal { object, path, reason, .. } = refusal;
    let place = files.place(&object)?.clone();
    let object = Some(Subject { kind: object.kind.to_owned(), name: Some(object.name) });
    Some(Fault { place, object, path, reason })
}
