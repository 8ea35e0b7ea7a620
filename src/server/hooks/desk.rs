//! Where events are taken from shards.

use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::{task, time};

use super::{Shared, Terms};
use crate::hooks::port::ThreadEnd;
use crate::hooks::settle::Vacancies;
use crate::hooks::{Counts, Event};
use crate::io::Wake;
use crate::mailbox::Doorbell;
use crate::metrics::Undelivered;
use crate::server::control::Ending;
use crate::server::race::race;
use crate::time::{Clock as _, Instant};

/// Events that are taken from one shard before it is the next one's turn, and the courier's.
const ROUND: usize = 512;

struct Bell(Arc<Notify>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// The desk.
pub(super) struct Desk {
    seats: Vec<ThreadEnd>,
    doorbell: Arc<Doorbell>,
    bell: Arc<Notify>,
    shared: Rc<Shared>,
    terms: Terms,
    vacancies: Vacancies,
}

impl Desk {
    /// `doorbell` is the one that the shards ring.
    pub(super) fn new(seats: Vec<ThreadEnd>, doorbell: Arc<Doorbell>, shared: Rc<Shared>, terms: Terms) -> Self {
        let bell = Arc::new(Notify::new());
        doorbell.connect(Arc::new(Bell(Arc::clone(&bell))));
        Self { seats, doorbell, bell, shared, terms, vacancies: Vacancies::default() }
    }

    /// Takes what comes until it is told to end, and then what has come before that.
    pub(super) async fn run(mut self, ending: Ending) {
        loop {
            // In this order: what was told before the end is there when it is seen.
            let is_last = ending.is_told();
            if self.gather() {
                task::yield_now().await;
            } else if is_last {
                break;
            } else {
                self.sleep(&ending).await;
            }
        }
        // Of topics that are empty now nobody can tell whether they will be occupied again.
        self.settle(Instant::from_nanos(u64::MAX));
        self.shared.is_closed.set(true);
        self.shared.news.notify_one();
    }

    /// Takes some of what shards have. Says whether there may be more.
    fn gather(&mut self) -> bool {
        let now = self.shared.clock.now();
        let (mut is_more, mut missed) = (false, Counts::default());
        for seat in 0..self.seats.len() {
            let events: Vec<Event> = std::iter::from_fn(|| self.seats[seat].take()).take(ROUND).collect();
            is_more |= events.len() == ROUND;
            missed.add_all(&self.seats[seat].take_missed());
            for event in events {
                if let Some(event) = self.vacancies.pass(event, now) {
                    self.push(&event, now);
                }
            }
        }
        self.miss(&missed);
        self.settle(now);
        self.shared.measure();
        is_more
    }

    /// Queues an event that is told. Which are is settled when they happen: whoever asks for fewer has what came before that.
    fn push(&mut self, event: &Event, now: Instant) {
        if !event.is_told() {
            return;
        }
        let hooks = self.terms.now();
        let Shared { metrics, queue, news, .. } = &*self.shared;
        metrics.events[event.kind() as usize].add(1);
        let dropped = queue.borrow_mut().push(event, &hooks, now);
        metrics.lose(Undelivered::Queue, dropped.full);
        news.notify_one();
    }

    /// Notes what found no room on its way.
    fn miss(&mut self, missed: &Counts) {
        if missed.is_empty() {
            return;
        }
        let Shared { metrics, queue, news, .. } = &*self.shared;
        for (kind, events) in missed.iter() {
            metrics.events[kind as usize].add(events);
        }
        metrics.lose(Undelivered::ShardQueue, missed.total());
        queue.borrow_mut().miss(missed);
        news.notify_one();
    }

    /// Tells which topics have been empty for long enough.
    fn settle(&mut self, now: Instant) {
        while let Some(event) = self.vacancies.next(now) {
            self.push(&event, self.shared.clock.now());
        }
    }

    /// Sleeps until something comes, or it is time to look at a topic again.
    async fn sleep(&mut self, ending: &Ending) {
        let wait = self.vacancies.due().map(|due| due.since(self.shared.clock.now()).max(Duration::from_millis(1)));
        self.doorbell.prepare_to_sleep();
        if self.seats.iter().all(ThreadEnd::is_empty) {
            let woken = pin!(self.bell.notified());
            let told = pin!(ending.told());
            let timer = pin!(async {
                match wait {
                    Some(wait) => time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            });
            let sleep = pin!(race(told, timer));
            race(woken, sleep).await;
        }
        self.doorbell.awake();
    }
}
