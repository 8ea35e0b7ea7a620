//! The thread that reads what is not in memory, so that no shard waits for a disk.
//!
//! A connection asks for one slice at a time, so the queue is never longer than there are connections.

use std::io;
use std::sync::Arc;
use std::thread;

use crossbeam::channel::{Receiver, Sender, unbounded};

use super::open::{Opened, Read};
use crate::id::ConnId;
use crate::mailbox::Doorbell;

/// The answer to a [`Job`].
#[derive(Debug)]
pub struct Done {
    /// For whom.
    pub id: ConnId,
    /// The bytes, as many as were asked for; `None` when the file is not what it was.
    pub bytes: Option<Vec<u8>>,
}

/// A slow read.
#[derive(Debug)]
pub struct Job {
    /// For whom.
    pub id: ConnId,
    /// Of which file.
    pub file: Arc<Opened>,
    /// From where.
    pub offset: u64,
    /// How much.
    pub length: usize,
    /// Who is told.
    pub desk: Desk,
}

/// Where a shard's answers arrive.
#[derive(Clone, Debug)]
pub struct Desk {
    answers: Sender<Done>,
    doorbell: Arc<Doorbell>,
}

impl Desk {
    /// A desk that rings when something has been put on it, and its other side.
    #[must_use]
    pub fn new(doorbell: Arc<Doorbell>) -> (Self, Receiver<Done>) {
        let (answers, arrived) = unbounded();
        (Self { answers, doorbell }, arrived)
    }
}

/// The way to the thread. It ends with the last of these.
#[derive(Clone, Debug)]
pub struct Reader(Sender<Job>);

impl Reader {
    /// # Errors
    /// When there is no thread to be had.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, queue) = unbounded();
        thread::Builder::new().name("files".to_owned()).spawn(move || read_all(&queue))?;
        Ok(Self(jobs))
    }

    /// Asks for a slow read; whether there is somebody to do it.
    #[must_use]
    pub fn ask(&self, job: Job) -> bool {
        self.0.send(job).is_ok()
    }
}

fn read_all(queue: &Receiver<Job>) {
    for Job { id, file, offset, length, desk } in queue {
        let mut bytes = vec![0; length];
        let is_whole = file.read_slowly(&mut bytes, offset) == Read::Whole;
        // A shard that has ended needs no answer.
        let _ = desk.answers.send(Done { id, bytes: is_whole.then_some(bytes) });
        desk.doorbell.ring();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::time::Duration;

    use super::*;
    use crate::app::files::testing::slice_of;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[test]
    fn a_slow_read_brings_what_was_asked_for_or_says_that_it_cannot() {
        let (folder, slice) = slice_of(b"0123456789");
        let (desk, arrived) = Desk::new(Arc::new(Doorbell::new()));
        let job = |offset, length| Job {
            id: ConnId::new(7, 1),
            file: Arc::clone(&slice.file),
            offset,
            length,
            desk: desk.clone(),
        };
        assert!(slice.reader.ask(job(3, 4)) && slice.reader.ask(job(8, 4)));
        let done = arrived.recv_timeout(PATIENCE).unwrap();
        assert_eq!((done.id, done.bytes.as_deref()), (ConnId::new(7, 1), Some(&b"3456"[..])));
        assert_eq!(arrived.recv_timeout(PATIENCE).unwrap().bytes, None, "it is shorter");
        std::fs::write(folder.0.join("file"), b"0123456789ab").unwrap();
        assert!(slice.reader.ask(job(3, 4)));
        assert_eq!(arrived.recv_timeout(PATIENCE).unwrap().bytes, None, "it is another file now");
    }
}
