//! The log of the process.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{
        Arc, LazyLock,
        atomic::AtomicU64,
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;

use super::args::{Common, LogFormat};
use crate::observe::LineWriter;

/// How long the end of the process waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Lines that could not be written; there is one log, as there is one standard error.
static LOST: LazyLock<Arc<AtomicU64>> = LazyLock::new(Arc::default);

/// The log of the process; dropping it ends the log, and waits a moment for its last lines.
#[derive(Debug)]
pub(super) struct Log {
    lines: Option<Arc<LineWriter>>,
    ended: Receiver<()>,
}

impl Log {
    /// Installs the log on standard error.
    ///
    /// A thread of its own writes it: nobody else waits for a reader who takes nothing for now, or fails with
    /// a disk that is full. What cannot be written is lost and counted, and whoever writes to the log is not
    /// told.
    pub(super) fn install(common: &Common) -> anyhow::Result<Self> {
        let filter = common.log_level.to_filter().context("--log-level")?;
        let (lines, write) = LineWriter::new("log", io::stderr(), lost_lines());
        let (written, ended) = sync_channel(0);
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            write();
            drop(written);
        })?;
        let lines = Arc::new(lines);
        let open = Arc::downgrade(&lines);
        let log = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(io::stderr().is_terminal())
            // They would be told on standard error, and end the process where that cannot be written.
            .log_internal_errors(false)
            .with_writer(move || Line(open.upgrade()));
        let installed = match common.log_format {
            LogFormat::Text => log.try_init(),
            LogFormat::Json => log.json().try_init(),
        };
        installed.map_err(|error| anyhow::anyhow!(error))?;
        Ok(Self { lines: Some(lines), ended })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.lines = None;
        // Either the thread has ended, or nobody reads.
        let _ = self.ended.recv_timeout(LAST_LINES);
    }
}

/// Where lines of the log are counted that could not be written.
pub(super) fn lost_lines() -> Arc<AtomicU64> {
    Arc::clone(&LOST)
}

/// Says `line` on standard error, and waits for whoever reads it no longer than a moment.
pub(super) fn tell(line: String) {
    let (told, ended) = sync_channel::<()>(0);
    let writer = thread::Builder::new().spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        drop(told);
    });
    // Without a thread, or standard error, there is nobody to tell.
    let _ = writer.map(|_| ended.recv_timeout(LAST_LINES));
}

/// A line on its way to the writer, which is gone when the process ends.
struct Line(Option<Arc<LineWriter>>);

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(writer) = &self.0 {
            writer.write(line.to_vec());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
