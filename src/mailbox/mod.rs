//! Bounded lock-free queues between shards, and a doorbell that is rung only for those who sleep.
//!
//! Each shard has one [`Doorbell`] and any number of [`channel`]s that end at it. A sender pushes as much as it has
//! and rings once, at the end of its turn ([`Outlet::flush`]). Ringing an awake shard is a fence and a load; only the
//! first ring after it went to sleep makes the system call.
//!
//! A full queue is back-pressure: the message comes back, [`Outlet`] keeps it in order, and its user reads less from
//! those who publish until [`Outlet::staged`] is down again. Nothing is lost and nothing grows without its user
//! knowing. While something is staged its user must not sleep without a limit: nobody tells it that there is room.
//!
//! A queue's room is allocated and touched when it is made: `capacity * (size_of::<T>() + 8)` bytes, 576 KiB for 8192
//! messages of 64 bytes. So a shard has one queue for all others together, not one per pair, and big messages are
//! boxed. (The unbounded `SegQueue` under a counter takes no memory when empty, but allocates while messages flow.)

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

use self::sync::{AtomicBool, Ordering, fence};
use crate::io::Wake;

/// `tests/loom` compiles this file too, with atomics that take every turn that the memory model allows.
mod sync {
    #[cfg(loom)]
    pub(super) use loom::sync::atomic::{AtomicBool, Ordering, fence};
    #[cfg(not(loom))]
    pub(super) use std::sync::atomic::{AtomicBool, Ordering, fence};
}

/// What wakes a shard when there is something in its mailbox.
///
/// ```text
///            prepare_to_sleep              ring: wakes the owner
///   awake ---------------------> asleep --------------------------> awake
///                                asleep --------------------------> awake
///                                          awake
/// ```
///
/// The owner says that it will sleep, then looks into its queues once more, then sleeps. A sender pushes, then looks
/// whether the owner sleeps. Each writes one thing and reads the other's, so each has a `SeqCst` fence between the two:
/// whichever fence comes second in their one order is followed by a read that sees what was written before the first.
/// Either the sender sees the sleeper and wakes it, or the owner sees the message and does not sleep.
pub struct Doorbell {
    asleep: CachePadded<AtomicBool>,
    waker: OnceLock<Arc<dyn Wake>>,
}

impl Doorbell {
    /// A doorbell that wakes nobody yet. Its owner is awake.
    #[must_use]
    pub fn new() -> Self {
        Self { asleep: CachePadded::new(AtomicBool::new(false)), waker: OnceLock::new() }
    }

    /// Says what wakes the owner, once its backend exists and before it first sleeps. Only the first call counts.
    pub fn connect(&self, waker: Arc<dyn Wake>) {
        // A second waker is not what this doorbell's owner sleeps in.
        let _ = self.waker.set(waker);
    }

    /// Wakes the owner if it sleeps (or is about to) and nobody has woken it since. Call it after a push.
    pub fn ring(&self) {
        // The push comes before this fence, the look at `asleep` after it: see the type's comment.
        fence(Ordering::SeqCst);
        if !self.asleep.load(Ordering::Relaxed) {
            return;
        }
        // One of several ringers gets to wake. Acquire: the owner connected its waker before it went to sleep.
        if self.asleep.swap(false, Ordering::AcqRel)
            && let Some(waker) = self.waker.get()
        {
            waker.wake();
        }
    }

    /// The owner will sleep. It must look into its queues once more after this, and call [`Doorbell::awake`] instead of
    /// sleeping when it finds anything.
    pub fn prepare_to_sleep(&self) {
        // A swap, as everywhere: with plain stores between other threads' swaps loom cannot tell their order.
        self.asleep.swap(true, Ordering::AcqRel);
        // The announcement comes before this fence, the last look into the queues after it: see the type's comment.
        fence(Ordering::SeqCst);
    }

    /// The owner has slept, or will not. A wake that is under way may still arrive: it makes one later wait short.
    pub fn awake(&self) {
        self.asleep.swap(false, Ordering::AcqRel);
    }
}

impl Default for Doorbell {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Doorbell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doorbell").field("connected", &self.waker.get().is_some()).finish_non_exhaustive()
    }
}

/// A queue of `capacity` messages (at least one) to the owner of `doorbell`.
#[must_use]
pub fn channel<T>(capacity: usize, doorbell: Arc<Doorbell>) -> (Sender<T>, Receiver<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity.max(1)));
    (Sender { queue: Arc::clone(&queue), doorbell }, Receiver { queue })
}

/// The end for those who push, of any number. Each one's messages arrive in its order.
#[derive(Debug)]
pub struct Sender<T> {
    queue: Arc<ArrayQueue<T>>,
    doorbell: Arc<Doorbell>,
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: Arc::clone(&self.queue), doorbell: Arc::clone(&self.doorbell) }
    }
}

impl<T> Sender<T> {
    /// Pushes, and does not ring.
    ///
    /// # Errors
    /// Gives the message back when the queue is full.
    pub fn try_send(&self, message: T) -> Result<(), T> {
        self.queue.push(message)
    }

    /// Rings the receiver's doorbell.
    pub fn ring(&self) {
        self.doorbell.ring();
    }

    /// Messages that there is room for now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.queue.capacity().saturating_sub(self.queue.len())
    }

    /// Messages that there is room for when there are none.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.queue.capacity()
    }
}

/// The end of the shard that a queue leads to.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: Arc<ArrayQueue<T>>,
}

impl<T> Receiver<T> {
    /// Bytes of its room.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.queue.capacity() * (size_of::<T>() + size_of::<usize>())
    }

    /// The oldest message.
    pub fn try_recv(&mut self) -> Option<T> {
        self.queue.pop()
    }

    /// Whether there is none. One that is being pushed may count already.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

/// A shard's way to one other shard: a [`Sender`], what did not fit yet, and whether the doorbell is owed a ring.
#[derive(Debug)]
pub struct Outlet<T> {
    sender: Sender<T>,
    staged: VecDeque<T>,
    /// Something was sent since the last ring.
    unrung: bool,
}

impl<T> Outlet<T> {
    /// With nothing staged.
    #[must_use]
    pub const fn new(sender: Sender<T>) -> Self {
        Self { sender, staged: VecDeque::new(), unrung: false }
    }

    /// Sends, or stages behind what is staged. The bound of the stage is its user's, who asks [`Outlet::staged`].
    pub fn push(&mut self, message: T) {
        if let Err(message) = self.send(message) {
            self.staged.push_back(message);
        }
    }

    /// The same way for others, without the stage.
    #[must_use]
    pub const fn sender(&self) -> &Sender<T> {
        &self.sender
    }

    /// How many messages wait for room.
    #[must_use]
    pub fn staged(&self) -> usize {
        self.staged.len()
    }

    /// Sends what is staged as far as there is room, and rings if anything was sent since the last ring. To be called
    /// at the end of each turn, and often while something is staged.
    pub fn flush(&mut self) {
        while let Some(message) = self.staged.pop_front() {
            match self.sender.try_send(message) {
                Ok(()) => self.unrung = true,
                Err(message) => {
                    self.staged.push_front(message);
                    break;
                }
            }
        }
        if std::mem::take(&mut self.unrung) {
            self.sender.ring();
        }
    }

    /// Rings without having sent anything.
    pub fn ring(&self) {
        self.sender.ring();
    }

    fn send(&mut self, message: T) -> Result<(), T> {
        if !self.staged.is_empty() {
            return Err(message);
        }
        self.sender.try_send(message)?;
        self.unrung = true;
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
