//! Questions to topics' owners, and the HTTP requests that are answered with what comes back.
//!
//! While a request waits for its answer ([`WaitsFor`]) its connection is not read: one request is answered after the
//! other, in order.

use super::batches::Batch;
use super::connection::Flags;
use super::control::Phase;
use super::core::Core;
use super::mail::{About, Ack, Answer, Answered, Asker, Delivery, OwnMail, Question, Terms};
use super::polls::CURSOR_FIELD;
use super::requests::Task;
use super::streams::place_of;
use crate::app::router::News;
use crate::app::{NotPublished, Published};
use crate::close::CloseReason;
use crate::codec::http1::response::write_page;
use crate::codec::json;
use crate::hub::presence::OFF;
use crate::hub::topics::{Info, NoRoom, Page};
use crate::id::ConnId;
use crate::message::{Cursor, Topic, Wants};
use crate::rule::{AuthRefusal, Limit};
use crate::session::Protocol;
use crate::session::http::challenge;

/// The type of JSON answers.
pub(super) const JSON: &str = "application/json";
pub(super) const JSON_LINES: &str = "application/x-ndjson";
/// Beside what is true for a moment: a cache without orders may guess how long an answer stays good.
pub(super) const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");
/// Why a question about a durable topic has no answer.
const UNAVAILABLE: &str = "the topic's stream cannot be reached now; try again later";
/// Beside a 429 and a 503.
const RETRY_AFTER: [(&str, &str); 1] = [("Retry-After", "1")];

/// What an HTTP request waits for.
#[derive(Debug, Default)]
pub(super) enum WaitsFor {
    /// Nothing, or a message.
    #[default]
    Nothing,
    /// A publication, or a topic's owner, whose answer is the body.
    One,
    /// The publications of a batch.
    Batch(Box<Batch>),
}

impl Core {
    /// Answers as the owner of a topic, or has the question wait until that can be done.
    pub(super) fn take_question(&mut self, question: Question) {
        self.turn_over(&question.topic);
        if matches!(question.about, About::Watch | About::Presence(..)) {
            // Of those who are there a stream knows nothing, but other nodes do.
            if let Some(question) = self.wait_for_others(question) {
                self.answer_question(question);
            }
            return;
        }
        let now = self.time();
        match self.topics.waits_for_stream(&question.topic, now) {
            Ok(false) => self.answer_question(question),
            Ok(true) => self.park_question(question),
            Err(NoRoom) => self.reply(question.asker, question.topic, Answered::NoRoom),
        }
    }

    pub(super) fn answer_question(&mut self, question: Question) {
        let Question { asker, topic, about } = question;
        let now = self.time();
        let what = match about {
            About::Past(start, wire) => {
                self.topics.prepare(&topic, start, Wants::NONE.with(wire), &mut self.deflater);
                self.topics.past(&topic, start, now).map_or(Answered::NoRoom, Answered::Past)
            }
            About::Watch => self.topics.watch(&topic, asker.shard, now).map_or(Answered::NoRoom, Answered::Watched),
            About::Presence(after, limit) => {
                Answered::Presence(self.topics.presence(&topic, after.as_ref(), limit, now).map(Box::new))
            }
            About::Info => {
                let info = self.topics.info(&topic, now);
                Answered::Json(write_info(&topic, &info), info.cursor)
            }
            About::Page { since, limit } => {
                let page = self.topics.page(&topic, since, limit, now);
                Answered::Json(write_history(&topic, &page), page.cursor)
            }
        };
        self.reply(asker, topic, what);
    }

    /// Tells a publisher where its message has its place.
    pub(super) fn acknowledge(&mut self, terms: &Terms, topic: Topic, ack: Ack) {
        self.reply(terms.asker, topic, Answered::Acked(terms.number, ack));
    }

    pub(super) fn reply(&mut self, asker: Asker, topic: Topic, what: Answered) {
        let answer = Answer { connection: asker.connection, topic, what };
        if asker.shard == self.id {
            self.own_mail.push_back(OwnMail::Answer(answer));
        } else {
            self.mail.deliver(asker.shard, Delivery::Answer(Box::new(answer)));
        }
    }

    /// Carries out an answer for a connection of this shard.
    pub(super) fn take_answer(&mut self, answer: Answer) {
        let Answer { connection: id, topic, what } = answer;
        match what {
            Answered::Past(past) => self.take_past(id, &topic, past),
            Answered::Acked(number, ack) if self.is_call(id) => {
                let Ack { cursor, subscribers, duplicate } = ack;
                self.tell_handler(id, News::Published(number, Ok(Published { topic, cursor, subscribers, duplicate })));
            }
            Answered::NotPublished(number, why) if self.is_call(id) => {
                self.tell_handler(id, News::Published(number, Err(why)));
            }
            Answered::Acked(number, ack) => {
                let mut line = std::mem::take(&mut self.line);
                line.clear();
                write_ack(&topic, ack, &mut line);
                self.take_ack(id, number, &line, None);
                self.line = line;
            }
            Answered::NotPublished(number, why) => {
                let mut error = Vec::new();
                json::write_error(why.code(), why.message(), &mut error);
                self.take_ack(id, number, &error, Some(why));
            }
            Answered::Refused(why) => self.take_refusal(id, why),
            Answered::NoRoom => {
                self.metrics.strike(Limit::TopicsMax);
                self.doomed.push((id, CloseReason::TryAgainLater, "no room for the topic"));
            }
            Answered::Watched(list) => self.take_watched(id, &topic, &list),
            Answered::Presence(page) if self.is_call(id) => {
                self.tell_handler(id, News::Presence(&topic, page.as_deref()));
            }
            Answered::Presence(Some(page)) => self.respond(id, 200, JSON, &page.to_json(&topic), &[NO_STORE]),
            Answered::Presence(None) => {
                let mut error = Vec::new();
                json::write_error("presence_off", OFF, &mut error);
                self.respond(id, 404, JSON, &error, &[NO_STORE]);
            }
            Answered::Unavailable => {
                let why = NotPublished::ClusterAway;
                if self.waits_for(id).is_none() {
                    return self.doomed.push((id, CloseReason::TryAgainLater, UNAVAILABLE));
                }
                let mut error = Vec::new();
                json::write_error(why.code(), UNAVAILABLE, &mut error);
                self.respond(id, why.status(), JSON, &error, &[]);
            }
            Answered::Json(body, cursor) => {
                let cursor = cursor.map(|cursor| cursor.to_string());
                let fields = [NO_STORE, (CURSOR_FIELD, cursor.as_deref().unwrap_or_default())];
                let fields = if cursor.is_some() { &fields[..] } else { &fields[..1] };
                self.respond(id, 200, JSON, &body, fields);
            }
        }
    }

    pub(super) fn is_call(&self, id: ConnId) -> bool {
        self.table.get(id).is_some_and(|connection| connection.protocol == Protocol::Grpc)
    }

    /// What an HTTP request of this connection waits for, if it waits for an answer.
    pub(super) fn waits_for(&mut self, id: ConnId) -> Option<&mut WaitsFor> {
        let connection = self.table.get_mut(id).filter(|connection| connection.flags.has(Flags::WAITING))?;
        let waits_for = &mut connection.extra.as_deref_mut()?.waiting.as_deref_mut()?.waits_for;
        (!matches!(waits_for, WaitsFor::Nothing)).then_some(waits_for)
    }

    /// What became of one of a connection's publications.
    fn take_ack(&mut self, id: ConnId, number: u32, line: &[u8], refused: Option<NotPublished>) {
        match self.waits_for(id) {
            None | Some(WaitsFor::Nothing) => {}
            Some(WaitsFor::One) => self.respond(id, refused.map_or(200, NotPublished::status), JSON, line, &[]),
            Some(WaitsFor::Batch(_)) => self.note_line(id, number, line, refused),
        }
    }

    /// Answers the request that a connection waits with, and lets it go on.
    pub(super) fn respond(
        &mut self,
        id: ConnId,
        status: u16,
        content_type: &str,
        body: &[u8],
        fields: &[(&str, &str)],
    ) {
        let Some(connection) = self.table.get_mut(id).filter(|one| !one.flags.has(Flags::CLOSING)) else { return };
        let Some(extra) = connection.extra.as_deref_mut().filter(|_| connection.flags.has(Flags::WAITING)) else {
            return;
        };
        let waiting = extra.waiting();
        let mut later = std::mem::take(&mut waiting.later);
        later.keep_alive &= self.phase == Phase::Running;
        waiting.waits_for = WaitsFor::Nothing;
        let fields = match status {
            429 | 503 => &RETRY_AFTER[..],
            401 => challenge(AuthRefusal::Missing),
            403 if self.live.access.is_on() && !self.live.operators_only => challenge(AuthRefusal::Forbidden),
            _ => fields,
        };
        let (visit, is_borne) = (later.visit.take(), connection.flags.has(Flags::BORNE));
        if let Some(visit) = visit {
            self.log_visit(id, &visit, status);
        }
        let reply = later.reply(self.date);
        if is_borne {
            let mut output = Vec::with_capacity(256 + body.len());
            write_page(status, content_type, body, fields, reply, &mut output);
            self.deliver_output(id, &output);
            return self.say_last(id);
        }
        self.write_own(id, |out| write_page(status, content_type, body, fields, reply, out));
        if later.keep_alive {
            self.answered(id);
        } else {
            self.doomed.push((id, CloseReason::Normal, ""));
        }
    }

    /// Does what a request waits for.
    pub(super) fn begin_task(&mut self, id: ConnId, task: Task) {
        self.set_waits_for(id, WaitsFor::One);
        match task {
            Task::Publish(message, key) => self.publish_for(id, message, key, 0),
            Task::Ask(topic, about) => self.ask(id, &topic, about),
            Task::Site => {}
            Task::Batch(lines, publications) => self.begin_batch(id, lines, publications),
        }
    }

    pub(super) fn set_waits_for(&mut self, id: ConnId, what: WaitsFor) {
        if let Some(connection) = self.table.get_mut(id) {
            connection.extra.get_or_insert_default().waiting().waits_for = what;
        }
    }
}

/// One line: where a publication has its place, and who there was to hear it.
fn write_ack(topic: &Topic, ack: Ack, out: &mut Vec<u8>) {
    place_of(topic, ack.cursor).open(out);
    out.extend_from_slice(b",\"subscribers\":");
    json::write_number(ack.subscribers, out);
    if ack.duplicate {
        out.extend_from_slice(b",\"duplicate\":true");
    }
    out.extend_from_slice(b"}\n");
}

/// The state of a topic: `{"topic","epoch","offset","subscribers","history":{...}}`; epoch and offset are null where nobody has
/// used the topic lately.
fn write_info(topic: &Topic, info: &Info) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + topic.as_str().len());
    write_place(topic, info.cursor, &mut out);
    let number = |name: &str, number: u64, out: &mut Vec<u8>| {
        out.extend_from_slice(name.as_bytes());
        json::write_number(number, out);
    };
    number(",\"subscribers\":", info.subscribers, &mut out);
    number(",\"history\":{\"messages\":", info.messages as u64, &mut out);
    number(",\"bytes\":", info.bytes as u64, &mut out);
    if let Some(first) = info.first {
        number(",\"first_offset\":", first.0, &mut out);
    }
    number(",\"messages_max\":", info.bounds.messages_max as u64, &mut out);
    number(",\"bytes_max\":", info.bounds.bytes_max as u64, &mut out);
    number(",\"age_max_seconds\":", info.bounds.age_max.as_secs(), &mut out);
    out.extend_from_slice(b"}}\n");
    out
}

fn write_place(topic: &Topic, cursor: Option<Cursor>, out: &mut Vec<u8>) {
    if let Some(cursor) = cursor {
        return place_of(topic, cursor).open(out);
    }
    out.extend_from_slice(b"{\"topic\":");
    json::write_string(topic.as_str(), out);
    out.extend_from_slice(b",\"epoch\":null,\"offset\":null");
}

/// Messages of a topic's history: an array of them; where some of what was asked for is lost, of a reset.
fn write_history(topic: &Topic, page: &Page) -> Vec<u8> {
    let mut out = Vec::from(b"[");
    if page.reset {
        place_of(topic, page.cursor.unwrap_or_default()).reset(&mut out);
    }
    for (index, message) in page.messages.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        message.write_json(&mut out);
    }
    out.extend_from_slice(b"]\n");
    out
}
