//! Requests under way: which orders they take, and what their reports come to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::answers;
use super::wish::{Pacing, Wish};
use super::worker::Worker;
use crate::app::NotPublished;
use crate::id::{ConnId, ShardId};
use crate::message::{Cursor, Epoch, Topic};
use crate::server::admin::Phase;
use crate::shard::orders::{Filter, Item, Outcome, Parting, Progress, Search, What};

/// A request under way.
#[derive(Debug)]
pub(super) struct Job {
    asker: ConnId,
    /// When it is answered with what there is.
    pub(super) deadline: Instant,
    doing: Doing,
}

/// What is waited for.
#[derive(Debug)]
enum Doing {
    /// A page, of one shard after the other.
    Page(Look, ShardId, Vec<Item>),
    /// The heaviest of all shards.
    Top(Look, u16, Vec<Item>),
    /// One thing, called so.
    One(&'static str),
    /// All shards to close connections.
    Closing(u16, Progress, Option<(Topic, Epoch)>),
    /// The owner of a topic to end it; then all shards close its subscribers.
    Ending(Topic, Parting),
    /// The owner of a topic to publish a message.
    Publishing(Topic),
}

/// A look at many.
#[derive(Clone, Debug)]
enum Look {
    Connections(Search<Filter>),
    Topics(Search<Box<str>>),
}

impl Look {
    const fn name(&self) -> &'static str {
        match self {
            Self::Connections(_) => "connections",
            Self::Topics(_) => "topics",
        }
    }

    const fn is_top(&self) -> bool {
        match self {
            Self::Connections(search) => search.top,
            Self::Topics(search) => search.top,
        }
    }

    const fn limit(&self) -> usize {
        match self {
            Self::Connections(search) => search.limit,
            Self::Topics(search) => search.limit,
        }
    }

    const fn from(&self) -> u32 {
        match self {
            Self::Connections(search) => search.from,
            Self::Topics(search) => search.from,
        }
    }

    /// The look at what is left.
    const fn go_on(&mut self, next: u32, found: usize) {
        let (from, limit) = match self {
            Self::Connections(search) => (&mut search.from, &mut search.limit),
            Self::Topics(search) => (&mut search.from, &mut search.limit),
        };
        *from = next;
        *limit = limit.saturating_sub(found);
    }

    fn order(&self) -> What {
        match self {
            Self::Connections(search) => What::Connections(search.clone()),
            Self::Topics(search) => What::Topics(search.clone()),
        }
    }
}

/// Time for an answer. Clients wait for 30 seconds at most, on our side.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same where connections are closed: all of a million take a while.
const PATIENCE_TO_CLOSE: Duration = Duration::from_secs(25);

impl Worker {
    /// Begins what somebody wants.
    pub(super) fn begin(&mut self, asker: ConnId, wish: Wish) {
        if self.is_full() {
            return self.busy(asker);
        }
        let owner = |topic: &Topic, worker: &Self| topic.owner(worker.desk.realm.shards.shards());
        match wish {
            Wish::Connections(shard, search) => self.look(asker, shard, Look::Connections(search)),
            Wish::Topics(shard, search) => self.look(asker, shard, Look::Topics(search)),
            Wish::Connection(shard, id) => {
                self.ask_one(asker, shard, What::Connection(id), Doing::One("connection"), PATIENCE);
            }
            Wish::Topic(topic) => {
                let shard = owner(&topic, self);
                self.ask_one(asker, shard, What::Topic(topic), Doing::One("topic"), PATIENCE);
            }
            Wish::Publish(message) => {
                let topic = message.topic.clone();
                let shard = owner(&topic, self);
                self.ask_one(asker, shard, What::Publish(message), Doing::Publishing(topic), PATIENCE);
            }
            Wish::CloseTopic(topic, parting) => {
                let (shard, what) = (owner(&topic, self), What::EndTopic(topic.clone()));
                self.ask_one(asker, shard, what, Doing::Ending(topic, parting), PATIENCE);
            }
            Wish::Kick(shard, filter, parting) => {
                let shards = shard.map_or_else(|| self.all_shards().collect(), |shard| vec![shard]);
                let progress = Progress::default();
                let what = |_: ShardId| What::Kick(filter.clone(), parting.clone(), Arc::clone(&progress));
                self.close_on(asker, &shards, &progress, None, what);
            }
            Wish::Drain(pacing) => self.drain(asker, pacing),
            Wish::Undrain => self.undrain(asker),
            Wish::DrainState => {
                let body = answers::phase(&self.desk.realm);
                self.answer(asker, 200, body);
            }
            Wish::Limits => {
                let body = answers::limits(&self.desk.realm);
                self.answer(asker, 200, body);
            }
            Wish::Reload => {
                // It reads a file, for which this thread is there.
                let (status, body) = answers::reloaded(&self.desk.realm.reloader.reload());
                self.answer(asker, status, body);
            }
            Wish::Config => {
                let body = answers::config(&self.desk.realm);
                self.answer(asker, 200, body);
            }
        }
    }

    fn ask_one(&mut self, asker: ConnId, shard: ShardId, what: What, doing: Doing, patience: Duration) {
        let number = self.number();
        self.keep(number, Job { asker, deadline: Instant::now() + patience, doing });
        self.order(shard, number, what);
    }

    fn look(&mut self, asker: ConnId, shard: ShardId, look: Look) {
        let (number, what) = (self.number(), look.order());
        let deadline = Instant::now() + PATIENCE;
        if !look.is_top() {
            self.keep(number, Job { asker, deadline, doing: Doing::Page(look, shard, Vec::new()) });
            return self.order(shard, number, what);
        }
        let shards: Vec<ShardId> = self.all_shards().collect();
        let waiting = u16::try_from(shards.len()).unwrap_or(u16::MAX);
        for shard in shards {
            self.order(shard, number, look.order());
        }
        self.keep(number, Job { asker, deadline, doing: Doing::Top(look, waiting, Vec::new()) });
    }

    /// Has these shards close connections.
    fn close_on(
        &mut self,
        asker: ConnId,
        shards: &[ShardId],
        progress: &Progress,
        ended: Option<(Topic, Epoch)>,
        what: impl Fn(ShardId) -> What,
    ) {
        let number = self.number();
        let waiting = u16::try_from(shards.len()).unwrap_or(u16::MAX);
        let doing = Doing::Closing(waiting, Arc::clone(progress), ended);
        self.keep(number, Job { asker, deadline: Instant::now() + PATIENCE_TO_CLOSE, doing });
        shards.iter().for_each(|&shard| self.order(shard, number, what(shard)));
    }

    /// Takes what one shard has to say to a job.
    pub(super) fn go_on(&mut self, number: u64, job: Job, shard: ShardId, outcome: Outcome) {
        let Job { asker, deadline, doing } = job;
        match (doing, outcome) {
            (Doing::Page(look, of, items), Outcome::Found(found, next)) => {
                debug_assert_eq!(of, shard);
                self.turn_page(number, Job { asker, deadline, doing: Doing::Page(look, of, items) }, found, next);
            }
            (Doing::Top(look, waiting, mut items), Outcome::Found(found, _)) => {
                items.extend(found);
                if waiting > 1 {
                    return self.keep(number, Job { asker, deadline, doing: Doing::Top(look, waiting - 1, items) });
                }
                items.sort_by(|a, b| b.cmp(a));
                items.truncate(look.limit());
                self.answer(asker, 200, answers::page(look.name(), &items, None));
            }
            (Doing::One(_), Outcome::One(Some(mut json))) => {
                json.push(b'\n');
                self.answer(asker, 200, json);
            }
            (Doing::One(name), Outcome::One(None)) => self.not_found(asker, name),
            (Doing::Closing(waiting, progress, ended), Outcome::Closed(_)) if waiting > 1 => {
                self.keep(number, Job { asker, deadline, doing: Doing::Closing(waiting - 1, progress, ended) });
            }
            (Doing::Closing(_, progress, ended), Outcome::Closed(_)) => {
                self.answer(asker, 200, answers::closed(progress.load(Ordering::Relaxed), true, ended.as_ref()));
            }
            (Doing::Ending(_, _), Outcome::Ended(None)) => self.not_found(asker, "topic"),
            (Doing::Ending(topic, parting), Outcome::Ended(Some((epoch, groups)))) => {
                let (shards, progress) = (self.all_shards().collect::<Vec<_>>(), Progress::default());
                let what = |_| What::CloseTopic(topic.clone(), groups.clone(), parting.clone(), Arc::clone(&progress));
                self.close_on(asker, &shards, &progress, Some((topic.clone(), epoch)), what);
            }
            (Doing::Publishing(topic), Outcome::Published(place)) => self.published(asker, &topic, place),
            // A shard reports what it was asked for.
            (_, _) => self.busy(asker),
        }
    }

    /// Takes what was found on a shard, and looks on, there or on the next one, if the page is not full.
    fn turn_page(&mut self, number: u64, job: Job, found: Vec<Item>, next: Option<u32>) {
        let Job { asker, deadline, doing: Doing::Page(mut look, of, mut items) } = job else { return };
        let (count, all) = (found.len(), self.desk.realm.shards.shards());
        items.extend(found);
        let place = match next {
            Some(next) => Some((of, next)),
            None => (of.0 + 1 < all).then_some((ShardId(of.0 + 1), 0)),
        };
        let is_full = count >= look.limit();
        let Some((shard, from)) = place.filter(|_| !is_full) else {
            return self.answer(asker, 200, answers::page(look.name(), &items, place));
        };
        look.go_on(from, count);
        let what = look.order();
        self.keep(number, Job { asker, deadline, doing: Doing::Page(look, shard, items) });
        self.order(shard, number, what);
    }

    /// Answers a job that has taken too long.
    pub(super) fn give_up(&mut self, job: Job) {
        let Job { asker, doing, .. } = job;
        match doing {
            Doing::Page(look, of, items) => {
                let body = answers::page(look.name(), &items, Some((of, look.from())));
                self.answer(asker, 200, body);
            }
            Doing::Closing(_, progress, ended) => {
                self.answer(asker, 202, answers::closed(progress.load(Ordering::Relaxed), false, ended.as_ref()));
            }
            Doing::Top(..) | Doing::One(_) | Doing::Ending(..) | Doing::Publishing(_) => self.busy(asker),
        }
    }

    fn published(&mut self, asker: ConnId, topic: &Topic, place: Result<(Cursor, u64), NotPublished>) {
        match place {
            Ok((cursor, subscribers)) => self.answer(asker, 200, answers::published(topic, cursor, subscribers)),
            Err(why) => self.answer(asker, why.status(), answers::error(why.code(), &why.to_string())),
        }
    }

    fn not_found(&mut self, asker: ConnId, name: &str) {
        self.answer(asker, 404, answers::error("not_found", &format!("there is no such {name}")));
    }

    fn busy(&mut self, asker: ConnId) {
        self.answer(asker, 503, answers::error("busy", "a shard did not answer in time; try again later"));
    }

    fn drain(&mut self, asker: ConnId, pacing: Pacing) {
        let realm = &self.desk.realm;
        let connections = realm.metrics.total(|shard| shard.connections.get());
        let period = match pacing {
            Pacing::Over(period) => period,
            Pacing::Rate(rate) => Duration::from_secs(connections.div_ceil(rate)),
        };
        if !realm.drainer.drain(period) {
            let message = "the server drains already; its pace cannot be changed";
            return self.answer(asker, 409, answers::error("draining", message));
        }
        tracing::info!(connections, ?period, "draining, as an operator wants it");
        let body = answers::phase(realm);
        self.answer(asker, 202, body);
    }

    fn undrain(&mut self, asker: ConnId) {
        let (code, message) = if self.desk.realm.phase.get() >= Phase::Draining {
            ("draining", "a drain cannot be undone: the listeners are closed; start another server")
        } else {
            ("not_draining", "the server does not drain")
        };
        self.answer(asker, 409, answers::error(code, message));
    }
}
