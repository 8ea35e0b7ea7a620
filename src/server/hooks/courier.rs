//! Where batches are delivered: one after the other, each until the receiver has taken it or it is given up.

use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time;

use super::{FLUSH, Outcome, Receiver, Shared, Terms};
use crate::config::Hooks;
use crate::hooks::pace::Pace;
use crate::hooks::{Batch, Counts};
use crate::metrics::Undelivered;
use crate::server::control::Ending;
use crate::server::race::race;
use crate::time::Clock as _;

/// Between two lines of the log about the same trouble.
const SAID: Duration = Duration::from_secs(60);

/// The courier.
pub(super) struct Courier<R> {
    shared: Rc<Shared>,
    terms: Terms,
    receiver: R,
    pace: Pace,
    trouble: Trouble,
    /// Events that were lost, for whatever reason, when a batch was last taken.
    lost: u64,
}

/// What the log has been told.
#[derive(Default)]
struct Trouble {
    said_at: Option<Instant>,
    /// Events that were given up since then.
    given_up: u64,
    /// Events that found no room since then, while the receiver took others.
    overflown: u64,
    /// Requests fail.
    lasts: bool,
}

impl Trouble {
    /// Whether it is time for a line.
    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = self.said_at.is_none_or(|said| now.duration_since(said) >= SAID);
        if is_due {
            self.said_at = Some(now);
        }
        is_due
    }
}

impl<R: Receiver> Courier<R> {
    pub(super) fn new(shared: Rc<Shared>, terms: Terms, receiver: R, seed: u64) -> Self {
        Self { shared, terms, receiver, pace: Pace::new(seed), trouble: Trouble::default(), lost: 0 }
    }

    /// Delivers until nothing more comes, or the time after the end is over.
    pub(super) async fn run(mut self, ending: Ending, hurry: Ending) {
        let last = pin!(async {
            ending.told().await;
            let (no_time, timer) = (pin!(hurry.told()), pin!(time::sleep(FLUSH)));
            race(no_time, timer).await;
        });
        let work = pin!(self.work(&ending));
        race(last, work).await;
    }

    async fn work(&mut self, ending: &Ending) {
        while let Some(batch) = self.next().await {
            self.shared.in_hand.set(batch.events);
            let is_refused = self.deliver(&batch, ending).await;
            self.shared.in_hand.set(Counts::default());
            self.shared.measure();
            // Whoever will not take what is there will not hear either how much of it is missing.
            if is_refused && self.shared.is_closed.get() && self.shared.queue.borrow().bytes() == 0 {
                return;
            }
        }
    }

    /// The next batch, when it is due; `None` when nothing more comes.
    async fn next(&mut self) -> Option<Batch> {
        let shared = Rc::clone(&self.shared);
        loop {
            let (hooks, now) = (self.terms.now(), shared.clock.now());
            let late = shared.queue.borrow_mut().expire(hooks.retry_max_age, now).late;
            self.note_late(late, &hooks);
            let due = shared.queue.borrow().due(&hooks);
            let is_closed = shared.is_closed.get();
            match due {
                None if is_closed => return None,
                None => shared.news.notified().await,
                Some(due) if due <= now || is_closed => {
                    return shared.queue.borrow_mut().take_within(
                        &hooks,
                        now,
                        shared.clock.unix_ms(),
                        self.receiver.bytes_max(),
                    );
                }
                Some(due) => {
                    // More may come and make it due at once.
                    let _ = time::timeout(due.since(now), shared.news.notified()).await;
                }
            }
        }
    }

    /// Delivers a batch or gives it up; whether the receiver has refused it.
    async fn deliver(&mut self, batch: &Batch, ending: &Ending) -> bool {
        loop {
            let hooks = self.terms.now();
            let began = Instant::now();
            let outcome = self.receiver.post(batch, &hooks).await;
            let took = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.shared.metrics.batch_seconds.observe(took);
            let wait = match outcome {
                Outcome::Taken => {
                    self.taken(batch, &hooks);
                    return false;
                }
                Outcome::Never(why) => {
                    self.refused(batch, &why, &hooks);
                    let wait = self.pace.fail(None);
                    rest(wait, ending).await;
                    return true;
                }
                Outcome::Later(why, asked) => {
                    // Whoever asks for more time than an event lives would hear of none of those that wait.
                    let asked = asked.map(|asked| asked.min(hooks.retry_max_age));
                    if self.shared.clock.now().since(batch.came) > hooks.retry_max_age {
                        self.shared.queue.borrow_mut().give_up(batch);
                        self.note_late(batch.events.total(), &hooks);
                        let wait = self.pace.fail(asked);
                        rest(wait, ending).await;
                        return false;
                    }
                    self.failed(&why, &hooks);
                    self.pace.fail(asked)
                }
            };
            self.shared.metrics.retries.add(1);
            rest(wait, ending).await;
        }
    }

    fn taken(&mut self, batch: &Batch, hooks: &Hooks) {
        self.shared.metrics.delivered.add(batch.events.total());
        self.pace.succeed();
        let lost_before = std::mem::replace(&mut self.lost, self.shared.metrics.lost());
        let lost = self.lost.saturating_sub(lost_before);
        if self.trouble.lasts {
            self.trouble = Trouble::default();
            tracing::info!(receiver = self.receiver.origin(), lost, "the receiver of hooks takes events again");
        } else {
            self.overflown(lost, hooks);
        }
    }

    /// Events found no room though the receiver takes what it is given.
    fn overflown(&mut self, events: u64, hooks: &Hooks) {
        self.trouble.overflown += events;
        if self.trouble.overflown > 0 && self.trouble.is_due() {
            let (receiver, events) = (self.receiver.origin(), std::mem::take(&mut self.trouble.overflown));
            let (waiting, queue_bytes) = (self.shared.metrics.queued.get(), hooks.queue_bytes);
            tracing::warn!(
                receiver,
                events,
                waiting,
                queue_bytes,
                "events of hooks are lost: they come faster than the receiver takes them; ask for fewer with hooks.events and \
                 hooks.topics, or raise hooks.batch_max"
            );
        }
    }

    fn failed(&mut self, why: &str, hooks: &Hooks) {
        self.trouble.lasts = true;
        if self.trouble.is_due() {
            let (receiver, waiting) = (self.receiver.origin(), self.shared.metrics.queued.get());
            let age_max = hooks.retry_max_age;
            tracing::warn!(
                receiver,
                why,
                waiting,
                ?age_max,
                "the receiver of hooks takes no events; they are tried again"
            );
        }
    }

    fn refused(&mut self, batch: &Batch, why: &str, hooks: &Hooks) {
        let events = batch.events.total();
        self.shared.metrics.lose(Undelivered::Refused, events);
        self.shared.queue.borrow_mut().give_up(batch);
        self.given_up(events, why, hooks);
    }

    fn note_late(&mut self, events: u64, hooks: &Hooks) {
        if events > 0 {
            self.shared.metrics.lose(Undelivered::TooOld, events);
            self.given_up(events, "they waited for longer than hooks.retry_max_age", hooks);
        }
    }

    fn given_up(&mut self, events: u64, why: &str, hooks: &Hooks) {
        self.trouble.lasts = true;
        self.trouble.given_up += events;
        // A batch may have said only what is missing.
        if self.trouble.given_up > 0 && self.trouble.is_due() {
            let (receiver, events) = (self.receiver.origin(), std::mem::take(&mut self.trouble.given_up));
            let waiting = self.shared.metrics.queued.get();
            let age_max = hooks.retry_max_age;
            tracing::error!(receiver, why, events, waiting, ?age_max, "events of hooks are lost");
        }
    }
}

/// Waits; when the server ends there is no time for that, but for a moment.
async fn rest(wait: Duration, ending: &Ending) {
    const MOMENT: Duration = Duration::from_millis(100);
    if ending.is_told() {
        return time::sleep(wait.min(MOMENT)).await;
    }
    let (told, timer) = (pin!(ending.told()), pin!(time::sleep(wait)));
    race(told, timer).await;
}
