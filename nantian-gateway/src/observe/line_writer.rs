//! Lines that a thread of their own writes, so that nobody waits for whoever reads them.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Lines that may wait for the writer; more are lost and counted.
const QUEUE: usize = 16_384;

/// Bytes that they may take: clients decide how long the lines of the access log are.
const QUEUED: usize = 16 << 20;

/// Bytes of lines that are written at once.
const BATCH: usize = 64 * 1024;

/// How long a writer that takes nothing for now is left alone.
const RETRY: Duration = Duration::from_millis(10);

/// Lines on their way to their writer; its clones share it.
#[derive(Clone)]
pub(crate) struct LineWriter {
    lines: SyncSender<Vec<u8>>,
    /// Bytes of the lines that wait.
    queued: Arc<AtomicUsize>,
    lost: Arc<AtomicU64>,
}

impl LineWriter {
    /// The lines of the log called `name`, and the loop that writes them to `out`, to be run on a thread of
    /// its own. Lines that are lost are counted in `lost`.
    ///
    /// The loop ends when the last clone of the writer is gone.
    pub(crate) fn new<W: Write + Send + 'static>(
        name: &'static str,
        out: W,
        lost: Arc<AtomicU64>,
    ) -> (Self, impl FnOnce() + Send + 'static) {
        let (lines, queue) = sync_channel(QUEUE);
        let queued = Arc::new(AtomicUsize::new(0));
        let writer = Self { lines, queued: Arc::clone(&queued), lost: Arc::clone(&lost) };
        (writer, move || write_lines(name, out, &queue, &queued, &lost))
    }

    /// Gives a line, with its end, to the thread that writes it, or loses it if too many wait there.
    pub(crate) fn write(&self, line: Vec<u8>) {
        let bytes = line.capacity();
        let has_room = self.queued.fetch_add(bytes, Relaxed).saturating_add(bytes) <= QUEUED;
        if !has_room || self.lines.try_send(line).is_err() {
            self.queued.fetch_sub(bytes, Relaxed);
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl fmt::Debug for LineWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineWriter").field("lost", &self.lost).finish_non_exhaustive()
    }
}

/// Writes until the log is gone, as many lines at once as wait. What cannot be written, as on a full disk, is
/// lost and counted, and later lines are tried again.
fn write_lines(
    name: &str,
    mut out: impl Write,
    queue: &Receiver<Vec<u8>>,
    queued: &AtomicUsize,
    lost: &AtomicU64,
) {
    let (mut lines, mut is_failing, mut told) = (Vec::new(), false, 0);
    while let Ok(line) = queue.recv() {
        gather(&mut lines, line, queued);
        while lines.len() < BATCH
            && let Ok(line) = queue.try_recv()
        {
            gather(&mut lines, line, queued);
        }
        let (written, result) = write_all(&mut out, &lines);
        let rest = lines.split_off(written);
        // What follows the beginning of a line is to stand on one of its own.
        let is_torn = lines.last().is_some_and(|byte| *byte != b'\n');
        lines.clear();
        lines.extend(is_torn.then_some(b'\n'));
        if let Err(error) = &result {
            let more = rest.iter().filter(|byte| **byte == b'\n').count();
            lost.fetch_add(u64::try_from(more).unwrap_or(u64::MAX), Relaxed);
            if !is_failing {
                tracing::error!(%error, "the {name} cannot be written");
            }
        } else {
            let all = lost.load(Relaxed);
            if all > told {
                tracing::warn!(lost = all - told, "{name} lines were lost");
            }
            told = all;
        }
        is_failing = result.is_err();
    }
}

/// Takes a line that no longer waits.
fn gather(lines: &mut Vec<u8>, line: Vec<u8>, queued: &AtomicUsize) {
    queued.fetch_sub(line.capacity(), Relaxed);
    lines.extend(line);
}

/// Writes all of `lines`, or as much as can be written, and says how much. Somebody who does not take more
/// for now is waited for.
fn write_all(out: &mut impl Write, lines: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = lines.get(written..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(RETRY),
            Err(error) => return (written, Err(error)),
        }
    }
    (written, out.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does what is asked of it, write for write, and writes all from then on.
    struct Moody<'a> {
        moods: Vec<io::Result<usize>>,
        written: &'a mut Vec<u8>,
    }

    impl Write for Moody<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mood = if self.moods.is_empty() { Ok(bytes.len()) } else { self.moods.remove(0) };
            let taken = mood?;
            self.written.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_wait_are_bounded_by_their_bytes() {
        let lost = Arc::new(AtomicU64::new(0));
        let (log, write) = LineWriter::new("log", io::sink(), Arc::clone(&lost));
        let queued = Arc::clone(&log.queued);
        for _ in 0..20 {
            log.write(vec![b'a'; QUEUED / 16]);
        }
        assert_eq!((lost.load(Relaxed), queued.load(Relaxed)), (4, QUEUED));
        drop(log);
        write();
        assert_eq!(queued.load(Relaxed), 0, "what was written is room for others");
    }

    #[test]
    fn a_disk_that_is_full_for_a_while_costs_lines_of_that_while() {
        let (lines, queue) = sync_channel(10);
        let (queued, lost) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(7)));
        let log = LineWriter { lines, queued: Arc::clone(&queued), lost: Arc::clone(&lost) };
        let mut written = Vec::new();
        let mut first = vec![b'a'; BATCH];
        first.push(b'\n');
        for line in [first, b"second\n".to_vec(), b"third\n".to_vec()] {
            log.write(line);
        }
        drop(log);
        let (full, busy) = (Err(io::ErrorKind::StorageFull.into()), Err(io::ErrorKind::WouldBlock.into()));
        let out = Moody { moods: vec![Ok(BATCH - 1), full, busy, Ok(1)], written: &mut written };
        write_lines("log", out, &queue, &queued, &lost);
        assert_eq!((lost.load(Relaxed), queued.load(Relaxed)), (8, 0));
        let written = String::from_utf8(written).unwrap();
        let rest = "\nsecond\nthird\n";
        assert_eq!(written.trim_start_matches('a'), rest, "the line that was torn ends");
        assert_eq!(written.len(), BATCH - 1 + rest.len());
    }
}
