//! What a server writes to its standard error: shown as ours or not, with the end of it kept.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::process::ChildStderr;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Bytes that are kept.
const KEPT: usize = 8 * 1024;
/// Characters of a line that go into an error.
const LINE: usize = 300;
/// How long to wait for the rest of what a server has written that has ended.
const REST: Duration = Duration::from_secs(1);

/// The end of what was written so far.
#[derive(Debug)]
pub(super) struct Log {
    kept: Arc<Mutex<VecDeque<u8>>>,
    /// Ends when there is nothing more to come.
    end: Mutex<Receiver<()>>,
}

impl Log {
    /// Reads for as long as somebody writes, so that nobody ever waits for a full pipe.
    pub(super) fn read(from: Option<ChildStderr>, is_shown: bool) -> Self {
        let kept = Arc::new(Mutex::new(VecDeque::new()));
        let (writer, end) = mpsc::channel();
        let keep = Arc::clone(&kept);
        thread::spawn(move || {
            copy(from, is_shown, &keep);
            drop(writer);
        });
        Self { kept, end: Mutex::new(end) }
    }

    /// The last line that says something, without what a terminal would take for commands. For a server that has ended.
    pub(super) fn last_words(&self) -> String {
        let _ = self.end.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(REST);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(kept.make_contiguous());
        let mut lines = text.lines().rev().map(|line| line.chars().filter(|c| !c.is_control()).take(LINE));
        lines
            .find_map(|line| Some(line.collect::<String>().trim().to_owned()).filter(|line| !line.is_empty()))
            .unwrap_or_default()
    }
}

fn copy(from: Option<ChildStderr>, is_shown: bool, kept: &Mutex<VecDeque<u8>>) {
    let Some(mut from) = from else { return };
    let mut buffer = [0; 4096];
    loop {
        let bytes = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => &buffer[..len],
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        if is_shown {
            // Whoever closed ours does not want to see it.
            let _ = io::stderr().write_all(bytes);
        }
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bytes);
        let surplus = kept.len().saturating_sub(KEPT);
        kept.drain(..surplus);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn last_words_are_a_line_and_no_more_is_kept_than_the_end() {
        for (script, expected) in [
            ("true", String::new()),
            ("echo first >&2; printf '\\033second\\n \\n\\n' >&2", "second".to_owned()),
            ("head -c 1000000 /dev/zero | tr '\\0' x >&2", "x".repeat(LINE)),
        ] {
            let mut child = Command::new("sh").args(["-c", script]).stderr(Stdio::piped()).spawn().unwrap();
            let log = Log::read(child.stderr.take(), false);
            child.wait().unwrap();
            assert_eq!(log.last_words(), expected, "{script}");
            assert!(log.kept.lock().unwrap().len() <= KEPT);
        }
    }
}
