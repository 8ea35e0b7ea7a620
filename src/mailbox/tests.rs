#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

/// Counts wakes, and sleeps until there is one.
#[derive(Default)]
struct Event {
    pending: Mutex<bool>,
    woken: Condvar,
    total: AtomicU32,
}

impl Event {
    /// Whether it was woken before the time was over.
    fn wait(&self, limit: Duration) -> bool {
        let pending = self.pending.lock().unwrap();
        let (mut pending, _) = self.woken.wait_timeout_while(pending, limit, |pending| !*pending).unwrap();
        std::mem::take(&mut *pending)
    }

    fn total(&self) -> u32 {
        self.total.load(Ordering::Relaxed)
    }
}

impl Wake for Event {
    fn wake(&self) {
        *self.pending.lock().unwrap() = true;
        self.total.fetch_add(1, Ordering::Relaxed);
        self.woken.notify_one();
    }
}

fn connected() -> (Arc<Doorbell>, Arc<Event>) {
    let (doorbell, event) = (Arc::new(Doorbell::new()), Arc::new(Event::default()));
    doorbell.connect(Arc::clone(&event) as Arc<dyn Wake>);
    (doorbell, event)
}

#[test]
fn only_a_sleeper_is_woken_and_once() {
    let (doorbell, event) = connected();
    doorbell.ring();
    assert_eq!(event.total(), 0);
    doorbell.prepare_to_sleep();
    doorbell.ring();
    doorbell.ring();
    assert_eq!(event.total(), 1);
    doorbell.awake();
    doorbell.ring();
    assert_eq!(event.total(), 1);
    doorbell.prepare_to_sleep();
    doorbell.awake();
    doorbell.ring();
    assert_eq!(event.total(), 1);
}

#[test]
fn the_first_waker_stays_and_none_is_no_harm() {
    Doorbell::default().ring();
    let (doorbell, event) = connected();
    doorbell.connect(Arc::new(Event::default()));
    doorbell.prepare_to_sleep();
    doorbell.ring();
    assert_eq!(event.total(), 1);
}

#[test]
fn a_full_queue_gives_the_message_back() {
    let (doorbell, event) = connected();
    let (sender, mut receiver) = channel(2, doorbell);
    assert!(receiver.is_empty());
    assert_eq!((sender.try_send(1), sender.try_send(2), sender.try_send(3)), (Ok(()), Ok(()), Err(3)));
    assert_eq!(receiver.len(), 2);
    assert_eq!((receiver.try_recv(), receiver.try_recv(), receiver.try_recv()), (Some(1), Some(2), None));
    assert_eq!(event.total(), 0, "sending does not ring");
    assert_eq!(channel::<u8>(0, Arc::default()).0.try_send(1), Ok(()));
}

#[test]
fn an_outlet_rings_once_a_turn_and_only_if_it_sent() {
    let (doorbell, event) = connected();
    let (sender, mut receiver) = channel(2, Arc::clone(&doorbell));
    let mut outlet = Outlet::new(sender);
    let rings = |outlet: &mut Outlet<u32>| {
        doorbell.prepare_to_sleep();
        let before = event.total();
        outlet.flush();
        event.total() - before
    };
    assert_eq!(rings(&mut outlet), 0);
    for message in 1..=3 {
        outlet.push(message);
    }
    assert_eq!((outlet.staged(), rings(&mut outlet)), (1, 1));
    assert_eq!((outlet.staged(), rings(&mut outlet)), (1, 0), "nothing was sent, nothing is rung");
    assert_eq!(receiver.try_recv(), Some(1));
    assert_eq!((rings(&mut outlet), outlet.staged()), (1, 0));
}

proptest! {
    #[test]
    fn an_outlet_is_a_queue(
        capacity in 1..8_usize,
        ops in prop::collection::vec(0..3_u8, 1..200),
    ) {
        let (sender, mut receiver) = channel(capacity, Arc::default());
        let mut outlet = Outlet::new(sender);
        let mut model = VecDeque::new();
        for (i, op) in ops.into_iter().enumerate() {
            match op {
                0 => {
                    outlet.push(i);
                    model.push_back(i);
                }
                1 => outlet.flush(),
                _ => {
                    // What is staged is not there yet, but then the queue held something.
                    let received = receiver.try_recv();
                    if received.is_some() || outlet.staged() == 0 {
                        prop_assert_eq!(received, model.pop_front());
                    }
                }
            }
            prop_assert!(receiver.len() <= capacity);
            prop_assert_eq!(receiver.len() + outlet.staged(), model.len());
            prop_assert_eq!(receiver.is_empty(), outlet.staged() == model.len());
        }
    }
}

/// Producers push through outlets into a small queue; the owner sleeps whenever it is empty. Each producer's messages
/// arrive in order, all of them, and no sleep lasts.
#[test]
fn nothing_is_lost_between_threads() {
    const PRODUCERS: u8 = 3;
    const EACH: u32 = 20_000;
    let (doorbell, event) = connected();
    let (sender, mut receiver) = channel(64, Arc::clone(&doorbell));
    let threads: Vec<_> = (0..PRODUCERS)
        .map(|producer| {
            let mut outlet = Outlet::new(sender.clone());
            thread::spawn(move || {
                for i in 0..EACH {
                    outlet.push((producer, i));
                    // Turns of different lengths.
                    if i % (u32::from(producer) * 7 + 1) == 0 || outlet.staged() > 16 {
                        outlet.flush();
                    }
                    while outlet.staged() > 16 {
                        thread::yield_now();
                        outlet.flush();
                    }
                }
                while outlet.staged() > 0 {
                    thread::yield_now();
                    outlet.flush();
                }
                outlet.flush();
            })
        })
        .collect();
    let (mut next, mut sleeps) = ([0; PRODUCERS as usize], 0);
    while next.iter().any(|&next| next < EACH) {
        if let Some((producer, i)) = receiver.try_recv() {
            assert_eq!(i, next[usize::from(producer)]);
            next[usize::from(producer)] += 1;
            continue;
        }
        doorbell.prepare_to_sleep();
        if receiver.is_empty() {
            sleeps += 1;
            assert!(event.wait(Duration::from_secs(20)), "a wake-up was lost");
        }
        doorbell.awake();
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(receiver.is_empty());
    println!("{sleeps} sleeps, {} wakes", event.total());
}
