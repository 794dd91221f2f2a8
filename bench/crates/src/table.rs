//! The figures beside their limits.

use std::process::ExitCode;

use crate::pair::{Work, alone, paired};

/// Prints figures as they come, and remembers which exceed their limits.
#[derive(Debug, Default)]
pub struct Table {
    only: Vec<String>,
    missed: Vec<String>,
}

impl Table {
    /// A table of the rows that the command line asks for: those whose names contain one of its words, or
    /// all.
    pub fn from_args() -> Self {
        let only = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
        println!("{:<58} {:>9} {:>9} {:>7} {:>7} {:>7}", "", "ours", "peer", "ratio", "best", "limit");
        Self { only, missed: Vec::new() }
    }

    /// Measures ours beside the peer's, if the row is asked for; `make` prepares both. The limit is one of
    /// the ratio.
    pub fn ratio<'a>(&mut self, name: &str, limit: Option<f64>, make: impl FnOnce() -> (Work<'a>, Work<'a>)) {
        if !self.wants(name) {
            return;
        }
        let (mut ours, mut peer) = make();
        let figure = paired(&mut ours, &mut peer);
        let verdict = self.judge(name, figure.ratio, limit);
        let limit = limit.map_or(String::new(), |limit| format!("{limit:.3}"));
        let (ours, peer) = (nanoseconds(figure.ours), nanoseconds(figure.peer));
        println!(
            "{name:<58} {ours:>9} {peer:>9} {:>7.3} {:>7.3} {limit:>7} {verdict}",
            figure.ratio, figure.best
        );
    }

    /// Measures ours alone against a limit in nanoseconds.
    pub fn nanoseconds<'a>(&mut self, name: &str, limit: f64, make: impl FnOnce() -> Work<'a>) {
        if !self.wants(name) {
            return;
        }
        let figure = paired(&mut make(), &mut alone(|| std::hint::black_box(())));
        let verdict = self.judge(name, figure.ours, Some(limit));
        let (ours, limit) = (nanoseconds(figure.ours), nanoseconds(limit));
        println!("{name:<58} {ours:>9} {:>9} {:>7} {:>7} {limit:>7} {verdict}", "", "", "");
    }

    /// Shows a size in bytes against a limit.
    pub fn bytes(&mut self, name: &str, bytes: f64, limit: Option<f64>) {
        let verdict = self.judge(name, bytes, limit);
        let limit = limit.map_or(String::new(), |limit| format!("{limit:.0} B"));
        println!(
            "{name:<58} {:>9} {:>9} {:>7} {:>7} {limit:>7} {verdict}",
            format!("{bytes:.1} B"),
            "",
            "",
            ""
        );
    }

    /// Whether a row is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    fn judge(&mut self, name: &str, value: f64, limit: Option<f64>) -> &'static str {
        match limit {
            None => "",
            Some(limit) if value <= limit => "pass",
            Some(_) => {
                self.missed.push(name.to_owned());
                "MISS"
            }
        }
    }
}

/// The end of a program: with `--check` a failure if a limit was missed.
pub fn exit(table: &Table) -> ExitCode {
    let check = std::env::args().any(|argument| argument == "--check");
    println!("\n{} limits missed", table.missed.len());
    if check && !table.missed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn nanoseconds(value: f64) -> String {
    match value {
        1e6.. => format!("{:.2} ms", value / 1e6),
        1e4.. => format!("{:.1} us", value / 1e3),
        _ => format!("{value:.1} ns"),
    }
}
