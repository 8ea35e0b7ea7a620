//! A bounded queue of log lines, and the thread that writes them.
//!
//! A shard must not wait for whoever reads standard error, a pipe to a journal for one. So lines wait here, so many and
//! so many bytes of them; what finds no room is lost, and how much was is a line of its own when there is room again.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// What the thread is told.
enum Item {
    Line(Vec<u8>),
    /// To say so when all before it is written.
    Flush(SyncSender<()>),
}

#[derive(Debug, Default)]
struct Load {
    bytes: AtomicUsize,
    lost: AtomicU64,
}

/// The way of lines to the thread.
#[derive(Clone)]
pub(super) struct Lines {
    /// `None`: there is no thread, and lines are written by whoever logs.
    queue: Option<SyncSender<Item>>,
    load: Arc<Load>,
}

impl Lines {
    /// Lines that may wait. The smallest take some hundred bytes each.
    const WAITING_MAX: usize = 8192;
    /// Bytes of them.
    const WAITING_BYTES_MAX: usize = 4 << 20;

    /// A queue to standard error.
    pub(super) fn start(json: bool) -> Self {
        Self::to(io::stderr, json)
    }

    fn to<W: Write>(out: impl Fn() -> W + Send + 'static, json: bool) -> Self {
        let (sender, receiver) = sync_channel(Self::WAITING_MAX);
        let load = Arc::new(Load::default());
        let of_thread = Arc::clone(&load);
        let spawned =
            thread::Builder::new().name("log".to_owned()).spawn(move || write(&receiver, &of_thread, &out, json));
        Self { queue: spawned.is_ok().then_some(sender), load }
    }

    fn push(&self, line: &[u8]) {
        let Some(queue) = &self.queue else {
            let _ = io::stderr().write_all(line);
            return;
        };
        let fits = self.load.bytes.fetch_add(line.len(), Ordering::Relaxed) + line.len() <= Self::WAITING_BYTES_MAX;
        if !fits || queue.try_send(Item::Line(line.to_vec())).is_err() {
            self.load.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            self.load.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines are written, or for so long.
    pub(super) fn flush(&self, most: Duration) {
        let Some(queue) = &self.queue else { return };
        let until = Instant::now() + most;
        let (done, is_done) = sync_channel(1);
        let mut flush = Item::Flush(done);
        while let Err(TrySendError::Full(back)) = queue.try_send(flush) {
            if Instant::now() >= until {
                return;
            }
            flush = back;
            thread::sleep(Duration::from_millis(1));
        }
        let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// What the thread does. A closed standard error is no reason to end: whoever logs must find room.
fn write<W: Write>(items: &Receiver<Item>, load: &Load, out: &impl Fn() -> W, json: bool) {
    while let Ok(item) = items.recv() {
        match item {
            Item::Line(line) => {
                let _ = out().write_all(&line);
                load.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Item::Flush(done) => {
                let _ = done.try_send(());
            }
        }
        let lost = load.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let what = "log lines were lost: standard error was not read fast enough";
            let _ = if json {
                writeln!(
                    out(),
                    "{{\"level\":\"WARN\",\"message\":\"{what}\",\"lost\":{lost},\"target\":\"holdline::logging\"}}"
                )
            } else {
                writeln!(out(), "WARN holdline::logging: {what} lost={lost}")
            };
        }
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes what the formatter hands over: each line whole, in one piece.
pub(super) struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use super::*;

    /// A reader that can stop reading: whoever holds the lock.
    #[derive(Clone, Default)]
    struct Pipe(Arc<Mutex<Vec<u8>>>);

    impl Pipe {
        fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines_to(pipe: &Pipe, json: bool) -> Lines {
        let pipe = pipe.clone();
        Lines::to(move || pipe.clone(), json)
    }

    #[test]
    fn lines_come_in_order() {
        let pipe = Pipe::default();
        let lines = lines_to(&pipe, false);
        for number in 0..100 {
            lines.push(format!("{number}\n").as_bytes());
        }
        lines.flush(Duration::from_secs(10));
        let expected: String = (0..100).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8_lossy(&pipe.lock()), expected);
    }

    #[test]
    fn who_logs_never_waits_and_hears_what_was_lost() {
        let pipe = Pipe::default();
        let lines = lines_to(&pipe, true);
        let held = pipe.lock();
        let line = [b'x'; 1024];
        let fit = Lines::WAITING_BYTES_MAX / line.len();
        for _ in 0..fit + 1000 {
            lines.push(&line);
        }
        lines.flush(Duration::from_millis(10));
        assert_eq!(lines.load.lost.load(Ordering::Relaxed), 1000, "and all that came back at once");
        drop(held);
        lines.flush(Duration::from_secs(10));
        lines.flush(Duration::from_secs(10));
        let written = pipe.lock();
        assert!(String::from_utf8_lossy(&written).contains("\"lost\":1000,"));
        assert!(written.len() >= fit * line.len());
        assert_eq!(lines.load.bytes.load(Ordering::Relaxed), 0, "there is room again");
    }
}
