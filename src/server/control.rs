//! The control thread: what a process does beside serving, on one runtime, off the data path.
//!
//! It is one thread with a `tokio-uring` runtime. What runs there are tasks that share it and never block: the journal of
//! durable topics. Shards reach them through bounded queues, and nothing that a task does delays a shard.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use tokio::sync::Notify;

use super::ring;

/// A task. It stays on its thread.
pub type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Makes a task, on the thread that it will run on.
pub type Job = Box<dyn FnOnce(Ending) -> Task + Send>;

/// How tasks are told to end.
#[derive(Clone, Debug, Default)]
pub struct Ending(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    is_told: AtomicBool,
    notify: Notify,
}

impl Ending {
    /// Whether they have been told.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.0.is_told.load(Ordering::Acquire)
    }

    /// Comes back when they are told.
    pub async fn told(&self) {
        loop {
            let notified = self.0.notify.notified();
            if self.is_told() {
                return;
            }
            notified.await;
        }
    }

    pub(super) fn tell(&self) {
        self.0.is_told.store(true, Ordering::Release);
        self.0.notify.notify_waiters();
    }
}

/// Why there is no control thread.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// The kernel gives no ring.
    #[error("the kernel gives no io_uring: {0}")]
    NoUring(io::Error),
}

/// The thread. It ends with this value, when its tasks have ended.
#[derive(Debug)]
pub struct ControlThread {
    ending: Ending,
    thread: Option<JoinHandle<()>>,
}

impl ControlThread {
    /// Entries of the ring's submission queue: files are written one after the other.
    const RING_ENTRIES: u32 = 64;

    /// Starts it with these tasks.
    ///
    /// # Errors
    /// When there is no thread or no ring to be had.
    pub fn start(jobs: Vec<Job>) -> Result<Self, ControlError> {
        let ending = Ending::default();
        let (report, started) = mpsc::channel();
        let told = ending.clone();
        let run = move || {
            let mut builder = ring::builder();
            builder.entries(Self::RING_ENTRIES);
            let runtime = match ring::Runtime::new(&builder) {
                Ok(runtime) => runtime,
                Err(error) => {
                    let _ = report.send(Err(error));
                    return;
                }
            };
            let _ = report.send(Ok(()));
            runtime.block_on(async move {
                let tasks: Vec<_> = jobs.into_iter().map(|job| ring::spawn(job(told.clone()))).collect();
                for task in tasks {
                    if let Err(error) = task.await {
                        tracing::error!(%error, "a task of the control thread has ended; please report it");
                    }
                }
            });
        };
        let thread = thread::Builder::new().name("control".to_owned()).spawn(run).map_err(ControlError::Thread)?;
        let control = Self { ending, thread: Some(thread) };
        match started.recv() {
            Ok(Ok(())) => Ok(control),
            Ok(Err(error)) => Err(ControlError::NoUring(error)),
            Err(_) => Err(ControlError::NoUring(io::ErrorKind::Other.into())),
        }
    }

    /// Lets the tasks finish what they have, and returns when they have.
    pub fn end(&mut self) {
        self.ending.tell();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for ControlThread {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn tasks_run_until_they_are_told_to_end() {
        let (said, heard) = mpsc::channel();
        let job = move |said: mpsc::Sender<u32>, number| -> Job {
            Box::new(move |ending| {
                Box::pin(async move {
                    said.send(number).unwrap();
                    ending.told().await;
                    said.send(number + 10).unwrap();
                })
            })
        };
        let mut control = ControlThread::start(vec![job(said.clone(), 1), job(said, 2)]).unwrap();
        let mut begun = [heard.recv().unwrap(), heard.recv().unwrap()];
        begun.sort_unstable();
        assert_eq!((begun, heard.try_recv().is_err()), ([1, 2], true));
        control.end();
        let mut ended: Vec<_> = heard.iter().collect();
        ended.sort_unstable();
        assert_eq!(ended, [11, 12]);
    }

    #[test]
    fn a_task_that_panics_leaves_the_others() {
        let (said, heard) = mpsc::channel();
        let faulty: Job = Box::new(|_| Box::pin(async { panic!("as the test wants it") }));
        let good: Job = Box::new(move |ending| {
            Box::pin(async move {
                ending.told().await;
                said.send(()).unwrap();
            })
        });
        drop(ControlThread::start(vec![faulty, good]).unwrap());
        heard.recv().unwrap();
    }
}
