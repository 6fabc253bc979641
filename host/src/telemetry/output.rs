//! Lines for people, written so that nobody waits for whoever reads them: a thread of its own takes
//! them from a bounded queue. What does not fit, and what cannot be written, is dropped and counted.
//!
//! Standard error may be closed, on a full disk, or a pipe that nobody reads; for the log all of
//! these are the same: lines are lost, work goes on.

use std::{
    io::{self, ErrorKind, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus::IntCounter;
use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait.
const LINES: usize = 8192;
/// Bytes of lines that may wait.
const BYTES: usize = 4 << 20;
/// Between two attempts to write to what does not block and takes nothing now.
const AGAIN: Duration = Duration::from_millis(10);

/// The queue of lines; copies share it.
#[derive(Clone)]
pub(super) struct Output {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

enum Job {
    Line(Vec<u8>),
    /// Answered when everything before it was written or dropped.
    Flush(SyncSender<()>),
}

/// What is known of the lines.
pub(super) struct Shared {
    /// Bytes that wait.
    waiting: AtomicUsize,
    /// Lines that were lost.
    pub(super) dropped: IntCounter,
    /// When the last of them was, in milliseconds since the Unix epoch.
    pub(super) last: AtomicU64,
}

impl Output {
    /// Starts the thread. Without one every line is dropped.
    pub(super) fn to(sink: impl Write + Send + 'static, dropped: IntCounter) -> Self {
        let (jobs, waiting) = sync_channel(LINES);
        let shared = Arc::new(Shared { waiting: AtomicUsize::new(0), dropped, last: AtomicU64::new(0) });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("log".into());
        // When there can be no thread the receiver is dropped, and sending fails.
        let _ = thread.spawn(move || of_thread.run(sink, &waiting));
        Self { jobs, shared }
    }

    /// Queues a line, or drops it; never waits.
    pub(super) fn line(&self, line: &[u8]) {
        let shared = &self.shared;
        if shared.waiting.fetch_add(line.len(), Relaxed) + line.len() > BYTES
            || self.jobs.try_send(Job::Line(line.to_vec())).is_err()
        {
            shared.waiting.fetch_sub(line.len(), Relaxed);
            shared.lost();
        }
    }

    /// Waits until what was queued is written or dropped, but no longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let (done, flushed) = sync_channel(1);
        if self.jobs.try_send(Job::Flush(done)).is_ok() {
            // Late or not: there is nobody to tell.
            let _ = flushed.recv_timeout(limit);
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Shared {
    fn run(&self, mut sink: impl Write, jobs: &Receiver<Job>) {
        for job in jobs {
            match job {
                Job::Line(line) => {
                    if write_whole(&mut sink, &line).is_err() {
                        self.lost();
                    }
                    self.waiting.fetch_sub(line.len(), Relaxed);
                }
                // Whoever asked may have stopped waiting.
                Job::Flush(done) => drop(done.try_send(())),
            }
        }
    }

    fn lost(&self) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.last.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Relaxed);
        self.dropped.inc();
    }
}

/// Writes a line. One that was begun is finished, so that two are not mixed: a pipe that was set not
/// to block, as some parents do, is tried again until it takes the rest.
fn write_whole(sink: &mut impl Write, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match sink.write(line) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => line = &line[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    sink.flush()
}

/// One event of the log: what is written at once is a line.
impl Write for &Output {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.line(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn counter() -> IntCounter {
        IntCounter::new("dropped", "Lines.").unwrap()
    }

    /// Takes up to three bytes at once; every second time it would block.
    #[derive(Clone, Default)]
    struct Slow(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (taken, ready) = &mut *self.0.lock();
            *ready = !*ready;
            if !*ready {
                return Err(ErrorKind::WouldBlock.into());
            }
            let some = bytes.len().min(3);
            taken.extend(&bytes[..some]);
            Ok(some)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Takes nothing, ever.
    struct Stuck;

    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            loop {
                std::thread::park();
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_whole_and_in_order() {
        let slow = Slow::default();
        let output = Output::to(slow.clone(), counter());
        for number in 0..20 {
            output.line(format!("line {number}\n").as_bytes());
        }
        output.flush(LONG);
        let expected: String = (0..20).map(|number| format!("line {number}\n")).collect();
        assert_eq!(String::from_utf8(slow.0.lock().0.clone()).unwrap(), expected);
        assert_eq!(output.shared().dropped.get(), 0);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let output = Output::to(Full, counter());
        (0..20).for_each(|_| output.line(b"lost\n"));
        output.flush(LONG);
        assert_eq!(output.shared().dropped.get(), 20);
        assert!(output.shared().last.load(Relaxed) > 0);
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read() {
        let output = Output::to(Stuck, counter());
        (0..2 * LINES).for_each(|_| output.line(b"x\n"));
        let dropped = output.shared().dropped.get();
        assert!((LINES as u64 - 1..=LINES as u64).contains(&dropped), "{dropped}");
        output.flush(Duration::from_millis(1));

        let output = Output::to(Stuck, counter());
        (0..8).for_each(|_| output.line(&[b'x'; BYTES / 4]));
        let dropped = output.shared().dropped.get();
        assert!((3..=4).contains(&dropped), "{dropped}");
    }
}
