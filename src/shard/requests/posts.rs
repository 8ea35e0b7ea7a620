//! What is posted to a route: one message, or a batch of them, whose places are the answer.

use super::{Requests, Task, trace_of};
use crate::app::batch::{self, Item};
use crate::app::router::Request;
use crate::app::{Publication, Refusal};
use crate::codec::json;
use crate::codec::trace::{OwnTrace, Trace};
use crate::message::{Message, Publisher};
use crate::session::http::{Head, Reply, write_page};
use crate::shard::admitting::user_of;
use crate::shard::answers::JSON_LINES;
use crate::shard::http::{Answer, Later};
use crate::shard::wishes::{key_of, kind_of};

impl Requests<'_> {
    /// Publishes what was posted.
    pub(super) fn publish(&mut self, head: &Head<'_>, body: &[u8], reply: Reply<'_>) -> Answer {
        let Some((route, param)) = self.route(head.path()) else { return reply.into() };
        if self.offers(route).batches {
            return self.publish_batch(head, body, reply);
        }
        let grant = self.grant.clone();
        let request = Request { user: user_of(&grant), ..self.request(head, param) };
        let posted = kind_of(head, body).and_then(|kind| {
            let key = key_of(head)?;
            let posted = self.router.post(route, &request, kind, body);
            posted.map(|posted| (posted, key)).map_err(|fault| self.refusal(fault))
        });
        match posted {
            Ok((publication, key)) => {
                let message = self.message(&publication, request.trace);
                Answer::Waits(Later::of(reply), Task::Publish(message, key.map(Box::from)))
            }
            Err(refusal) => self.refuse(&refusal, reply),
        }
    }

    fn publish_batch(&mut self, head: &Head<'_>, body: &[u8], reply: Reply<'_>) -> Answer {
        let (mut lines, mut publications, whole) = (Vec::new(), Vec::new(), trace_of(head));
        for (number, line) in (0..).zip(batch::lines(body, self.limits.topic_bytes_max)) {
            if lines.len() == batch::LINES_MAX {
                let message = format!("a batch has at most {} lines", batch::LINES_MAX);
                return self.refuse(&Refusal { status: 413, code: "too_many_lines", message }, reply);
            }
            let mut answer = Vec::new();
            match line {
                Ok(Item { publication, key, trace }) => {
                    let message = self.message(&publication, trace.as_ref().map(OwnTrace::as_trace).or(whole));
                    publications.push((number, message, key.as_deref().map(Box::from)));
                }
                Err(refusal) => json::write_error(refusal.code, &refusal.message, &mut answer),
            }
            lines.push(answer);
        }
        if !publications.is_empty() {
            return Answer::Waits(Later::of(reply), Task::Batch(lines, publications));
        }
        write_page(200, JSON_LINES, &lines.concat(), &[], reply, self.out);
        reply.into()
    }

    fn message(&self, publication: &Publication<'_>, trace: Option<Trace<'_>>) -> Message {
        let publisher = Publisher { shard: self.shard, connection: self.id };
        let Publication { topic, kind, payload } = publication;
        Message::traced(topic.clone(), *kind, payload, Some(publisher), trace)
    }
}
