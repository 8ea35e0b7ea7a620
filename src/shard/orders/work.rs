//! Orders under way.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::bequest::Bequest;
use super::scan::Scan;
use super::{Filter, Order, Outcome, Parting, Progress, Report, Reports, Response, What};
use crate::app::NotPublished;
use crate::close::CloseReason;
use crate::cluster::port::Ticket;
use crate::hub::{Group, TopicKey};
use crate::id::ConnId;
use crate::io::Backend;
use crate::message::{Cursor, Message, Topic};
use crate::shard::Shard;
use crate::shard::answers::JSON;
use crate::shard::answers::NO_STORE;
use crate::shard::control::Publishing;
use crate::shard::core::Core;
use crate::shard::mail::Request;
use crate::shard::ordered::{Ordered, Place};
use crate::shard::pace::Pace;
use crate::time::Clock;
use crate::wheel::Tick;

/// An order that takes more than a step.
#[derive(Debug)]
pub(super) struct Work {
    number: u64,
    reports: Reports,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Connections(Scan<Filter>),
    Topics(Scan<Box<str>>),
    Kick(Filter, Closing),
    Legacies(Bequest),
    /// A message that waits for the disk with this place, in this generation.
    Publishing(Topic, Cursor, u32),
    /// A message that waits for its topic's stream to be read, since then.
    Joining(Box<Message>, Tick),
    /// One that waits for its place in its stream.
    Appending(Ticket),
    /// Members of these, from this place on.
    Close(VecDeque<TopicKey>, usize, Closing),
}

/// Connections that are being closed.
#[derive(Debug)]
struct Closing {
    parting: Parting,
    progress: Progress,
    closed: u64,
    /// Those from this place on have not been looked at, up to the other.
    next: u32,
    end: u32,
}

impl Closing {
    const fn new(parting: Parting, progress: Progress, end: u32) -> Self {
        Self { parting, progress, closed: 0, next: 0, end }
    }

    fn count(&mut self) {
        self.closed += 1;
        self.progress.fetch_add(1, Ordering::Relaxed);
    }
}

impl<B: Backend> Shard<B> {
    /// Does what operators want, as far as there is time.
    pub(in crate::shard) fn orders(&mut self, pace: &mut Pace<'_, impl Clock>) {
        if !self.core.has_orders() {
            return;
        }
        while pace.more() {
            if self.core.orders.has_room()
                && let Some(order) = self.core.mail.orders.try_recv()
            {
                self.core.begin_order(*order);
                continue;
            }
            let Some(mut work) = self.core.orders.running.pop_front() else { return };
            if self.core.is_parked(&work.task) {
                self.core.orders.parked.push_back(work);
                continue;
            }
            match self.step(&mut work.task) {
                Some(outcome) => self.core.report_order(work.number, &work.reports, outcome),
                None => self.core.orders.running.push_back(work),
            }
            self.pay(pace);
        }
        self.core.unfinished = true;
    }

    /// A few microseconds of work. Returns what it came to, when it is done.
    fn step(&mut self, task: &mut Task) -> Option<Outcome> {
        match task {
            Task::Connections(scan) => self.core.look_at_connections(scan),
            Task::Topics(scan) => self.core.look_at_topics(scan),
            Task::Legacies(bequest) => self.core.look_at_legacies(bequest),
            Task::Publishing(topic, cursor, _) => Some(Outcome::Published(self.core.has_published(topic, *cursor))),
            Task::Joining(message, since) => match self.core.publish_to_stream((**message).clone(), *since) {
                Ok(place) => Some(Outcome::Published(place)),
                Err(waits) => {
                    *task = *waits;
                    None
                }
            },
            Task::Appending(ticket) => Some(Outcome::Published(self.core.place_for_operator(*ticket))),
            Task::Kick(filter, closing) => {
                if let Some(id) = self.core.next_meant(&mut closing.next, closing.end, filter)
                    && self.kick(id, &closing.parting)
                {
                    closing.count();
                }
                (closing.next >= closing.end).then_some(Outcome::Closed(closing.closed))
            }
            Task::Close(topics, place, closing) => self.close_member(topics, place, closing),
        }
    }

    /// Closes the next member of topics that have been retired.
    fn close_member(
        &mut self,
        topics: &mut VecDeque<TopicKey>,
        place: &mut usize,
        closing: &mut Closing,
    ) -> Option<Outcome> {
        let Some(&topic) = topics.front() else { return Some(Outcome::Closed(closing.closed)) };
        let core = &mut self.core;
        let member = core.members.members(topic).get(*place).filter(|_| core.members.is_retired(topic)).copied();
        let Some(member) = member else {
            topics.pop_front();
            *place = 0;
            return None;
        };
        if let Some((id, _)) = core.table.at(member.connection())
            && self.kick(id, &closing.parting)
        {
            closing.count();
        }
        if self.core.members.members(topic).get(*place) == Some(&member) {
            // It leaves later, when what it is being sent has been sent.
            *place += 1;
        }
        None
    }

    /// Closes a connection for an operator. Returns whether that was new.
    fn kick(&mut self, id: ConnId, parting: &Parting) -> bool {
        if self.core.is_ending(id) {
            return false;
        }
        self.core.orders.parting = Some(parting.clone());
        self.begin_close(id, CloseReason::Kicked, &parting.reason);
        self.core.orders.parting = None;
        true
    }
}

impl Core {
    /// Whether there is something to do for operators.
    pub(in crate::shard) fn has_orders(&self) -> bool {
        !self.orders.is_empty() || (self.orders.has_room() && !self.mail.orders.is_empty())
    }

    fn report_order(&self, number: u64, reports: &Reports, what: Outcome) {
        // Who gave the order may have lost its patience.
        let _ = reports.send(Report { number, shard: self.id, what });
    }

    /// Does what can be done at once, and lists what cannot.
    fn begin_order(&mut self, order: Order) {
        let Order { number, what, reports } = order;
        let end = self.table.index_end();
        let task = match what {
            What::Connections(search) => Task::Connections(Scan::new(search)),
            What::Topics(search) => Task::Topics(Scan::new(search)),
            What::Legacies(from) => {
                // Whoever asks has said that nothing is published before.
                self.follow_publishing();
                Task::Legacies(Bequest::new(from))
            }
            What::Publish(message) => {
                self.turn_over(&message.topic);
                match self.publish_for_operator(message) {
                    Err(waits) => *waits,
                    Ok(outcome) => return self.report_order(number, &reports, Outcome::Published(outcome)),
                }
            }
            What::Kick(filter, parting, progress) => Task::Kick(filter, Closing::new(parting, progress, end)),
            What::CloseTopic(topic, groups, parting, progress) => {
                Task::Close(self.retire(&topic, &groups), 0, Closing::new(parting, progress, end))
            }
            at_once => {
                let outcome = self.do_at_once(at_once);
                return self.report_order(number, &reports, outcome);
            }
        };
        self.orders.running.push_back(Work { number, reports, task });
    }

    fn do_at_once(&mut self, what: What) -> Outcome {
        match what {
            What::Connection(id) => {
                let connection = self.table.get(id);
                Outcome::One(connection.map(|connection| self.write_connection(id, connection)))
            }
            What::Topic(topic) => Outcome::One(self.topics.sight(&topic).map(|sight| self.write_topic(&sight))),
            What::EndTopic(topic) => {
                let now = self.time();
                let epoch = self.topics.end(&topic, now);
                Outcome::Ended(epoch.map(|epoch| (epoch, self.topics.groups(&topic).cloned().collect())))
            }
            What::Trace(trace) => {
                self.begin_trace(*trace);
                Outcome::Done
            }
            What::Untrace(number) => {
                self.end_trace(number);
                Outcome::Done
            }
            What::Respond(response) => {
                let Response { connection, status, body } = *response;
                self.respond(connection, status, JSON, &body, &[NO_STORE]);
                Outcome::Done
            }
            // These take their time.
            What::Connections(_)
            | What::Topics(_)
            | What::Legacies(_)
            | What::Publish(_)
            | What::Kick(..)
            | What::CloseTopic(..) => Outcome::Done,
        }
    }

    /// Publishes, and says what became of it; or what waits for it.
    fn publish_for_operator(&mut self, message: Message) -> Result<Place, Box<Task>> {
        if self.publishing != Publishing::Open {
            return Ok(Err(NotPublished::Moved));
        }
        let topic = message.topic.clone();
        if self.topics.is_ordered(&topic) {
            return self.publish_to_stream(message, self.tick);
        }
        if self.topics.is_waited_for(&topic) && !self.topics.is_written(&topic) {
            // It would have to stand behind others, without a place to be found by.
            return Ok(Err(NotPublished::JournalBusy));
        }
        let (before, appended) = (self.topics.sight(&topic).map(|sight| sight.cursor), self.journal_state().0);
        self.take_request(Request::Publish(message.into()));
        let (now_appended, generation, works) = self.journal_state();
        if now_appended > appended
            && let Some(cursor) = self.topics.reserved_cursor(&topic)
        {
            return Err(Box::new(Task::Publishing(topic, cursor, generation)));
        }
        Ok(match self.topics.sight(&topic) {
            None => Err(NotPublished::NoRoom),
            Some(sight) if Some(sight.cursor) != before => Ok((sight.cursor, sight.subscribers)),
            Some(_) if !self.topics.is_written(&topic) => Err(NotPublished::TooFast),
            Some(_) if works => Err(NotPublished::JournalBusy),
            Some(_) => Err(NotPublished::JournalFailed),
        })
    }

    /// The same of a topic with a stream, which is waited for since then.
    fn publish_to_stream(&mut self, message: Message, since: Tick) -> Result<Place, Box<Task>> {
        if self.topics.awaits_stream(&message.topic) {
            let is_late = since.later(Ordered::PARKED_TICKS) <= self.tick;
            return if is_late {
                Ok(Err(NotPublished::ClusterAway))
            } else {
                Err(Box::new(Task::Joining(message.into(), since)))
            };
        }
        match self.order_for_operator(message) {
            Ok(ticket) => Err(Box::new(Task::Appending(ticket))),
            Err(why) => Ok(Err(why)),
        }
    }

    /// Whether a task has to wait until the disk, or a stream, has said something.
    fn is_parked(&self, task: &Task) -> bool {
        match task {
            Task::Joining(message, since) => {
                self.topics.awaits_stream(&message.topic) && since.later(Ordered::PARKED_TICKS) > self.tick
            }
            Task::Appending(ticket) => self.waits_for_place(*ticket),
            Task::Legacies(_) => self.has_durable_waiting(),
            Task::Publishing(topic, cursor, generation) => {
                self.has_published(topic, *cursor).is_err() && self.journal_state().1 == *generation
            }
            _ => false,
        }
    }

    /// Where a message stands that had this place reserved, if it has come to stand there.
    fn has_published(&self, topic: &Topic, cursor: Cursor) -> Place {
        match self.topics.sight(topic) {
            // Where the topic's past has ended meanwhile it was before that.
            Some(sight) if sight.cursor.epoch != cursor.epoch => Ok((cursor, 0)),
            Some(sight) if sight.cursor.offset >= cursor.offset => Ok((cursor, sight.subscribers)),
            _ => Err(NotPublished::JournalFailed),
        }
    }

    /// Takes the names from a topic and its groups here, and tells their owner that nobody is left.
    fn retire(&mut self, topic: &Topic, groups: &[Group]) -> VecDeque<TopicKey> {
        let mut keys = VecDeque::new();
        for group in std::iter::once(None).chain(groups.iter().map(Some)) {
            if let Some(key) = self.members.retire(topic, group) {
                keys.push_back(key);
                self.send_to_owner(topic, Request::Disinterest(topic.clone(), self.id, group.cloned()));
            }
        }
        keys
    }
}
