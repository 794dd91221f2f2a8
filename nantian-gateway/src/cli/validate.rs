//! `nantian-gateway validate PATH...`: checks manifests offline.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use crate::source::{Files, Load};

/// Writes one line a fault to `out`, sorted by file and document, or one line that says how much is clean. Returns whether
/// it is.
///
/// A line reads `file:document: kind/namespace/name: field: reason`; documents are counted from 1.
///
/// # Errors
///
/// What writing to `out` fails with. A manifest that cannot be read is a fault like any other.
pub fn validate(paths: &[PathBuf], out: &mut impl Write) -> io::Result<bool> {
    let mut files = Files::new(paths.to_vec());
    let Load { objects, faults, files, skipped, .. } = files.load();
    for fault in &faults {
        writeln!(out, "{fault}")?;
    }
    let is_clean = faults.is_empty();
    if is_clean {
        let (objects, others) = (count(objects.len(), "object"), count(skipped, "object"));
        write!(out, "clean: {objects} in {}", count(files, "file"))?;
        match skipped {
            0 => writeln!(out)?,
            _ => writeln!(out, "; {others} of kinds that the gateway does not read")?,
        }
    }
    Ok(is_clean)
}

fn count(number: usize, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}
