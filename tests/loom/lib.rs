//! The doorbell of `src/mailbox/mod.rs` under every interleaving that interrupts threads at most [`PREEMPTIONS`] times where they
//! could have run on (`cargo test -p holdline-loom`, with `LOOM_MAX_PREEMPTIONS=N` for another bound). That takes seconds;
//! four times as long for each one more, and two producers without a bound do not end. Without either fence of the doorbell
//! both models fail.
//!
//! The queue is a counter with relaxed accesses: the doorbell alone has to order them. A lost wake-up is a deadlock.
//!
//! It is a package of its own, so that nothing else has to be built on loom's atomics.

#![cfg(test)]

use std::sync::Arc;

use loom::sync::Notify;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;

use self::io::Wake;
use self::mailbox::Doorbell;

#[allow(dead_code, reason = "the queues are not modelled")]
#[path = "../../src/mailbox/mod.rs"]
mod mailbox;

/// What the mailbox takes from the port.
mod io {
    pub(crate) trait Wake: Send + Sync {
        fn wake(&self);
    }
}

const PREEMPTIONS: usize = 4;

/// What an eventfd does.
struct Event {
    notify: Notify,
    total: AtomicU32,
}

impl Wake for Event {
    fn wake(&self) {
        self.total.fetch_add(1, Ordering::Relaxed);
        self.notify.notify();
    }
}

/// The owner takes all that `producers` push, `each` in so many rounds, and sleeps in between.
fn run(producers: u32, each: u32) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(PREEMPTIONS);
    model.check(move || {
        let doorbell = Arc::new(Doorbell::new());
        let event = Arc::new(Event { notify: Notify::new(), total: AtomicU32::new(0) });
        doorbell.connect(Arc::clone(&event) as Arc<dyn Wake>);
        let pushed = Arc::new(AtomicU32::new(0));
        let threads: Vec<_> = (0..producers)
            .map(|_| {
                let (doorbell, pushed) = (Arc::clone(&doorbell), Arc::clone(&pushed));
                thread::spawn(move || {
                    for _ in 0..each {
                        pushed.fetch_add(1, Ordering::Relaxed);
                        doorbell.ring();
                    }
                })
            })
            .collect();
        let (mut taken, mut announced) = (0, 0);
        while taken < producers * each {
            doorbell.prepare_to_sleep();
            announced += 1;
            if pushed.load(Ordering::Relaxed) == taken {
                event.notify.wait();
            }
            doorbell.awake();
            taken = pushed.load(Ordering::Relaxed);
        }
        for thread in threads {
            thread.join().expect("no panics inside");
        }
        assert!(event.total.load(Ordering::Relaxed) <= announced, "one wake for each sleep at most");
    });
}

#[test]
fn one_producer_loses_no_wake_up() {
    run(1, 2);
}

#[test]
fn two_producers_lose_no_wake_up() {
    run(2, 1);
}
