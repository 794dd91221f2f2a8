//! The lines that a process writes.

use std::{
    io::{BufRead, BufReader, Read},
    thread,
};

use tokio::sync::watch;

use super::soon;

/// The lines that a process has written to one of its outputs.
#[derive(Debug, Clone)]
pub(crate) struct Lines(watch::Receiver<Vec<String>>);

impl Lines {
    /// Collects the lines of `from` on a thread of its own.
    pub(crate) fn of(from: impl Read + Send + 'static) -> Self {
        let (lines, receiver) = watch::channel(Vec::new());
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                lines.send_modify(|lines| lines.push(line));
            }
        });
        Self(receiver)
    }

    /// How many of the lines contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.0.borrow().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for more than `known` lines that contain `text`, and gives the last one.
    pub(crate) async fn more(&self, text: &str, known: usize) -> String {
        let mut lines = self.0.clone();
        let matching = |lines: &[String]| lines.iter().filter(|line| line.contains(text)).count();
        let lines = soon(lines.wait_for(|lines| matching(lines) > known)).await;
        let lines = lines.unwrap_or_else(|_| panic!("the process ended:\n{}", self.text()));
        lines.iter().rfind(|line| line.contains(text)).cloned().unwrap_or_default()
    }

    /// Waits until the process writes no more.
    pub(crate) async fn ended(&self) {
        let mut lines = self.0.clone();
        soon(async { while lines.changed().await.is_ok() {} }).await;
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.borrow().clone()
    }

    /// All of them, as one text.
    pub(crate) fn text(&self) -> String {
        self.0.borrow().join("\n")
    }
}
