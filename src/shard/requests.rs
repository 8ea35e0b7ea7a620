//! What requests mean: which of them are taken, with which body, and the answers.

use super::http::{Answer, Later};
use super::opening::{Opened, fault_reason};
use super::shedding::write_shed;
use crate::app::router::{Fault, Request};
use crate::app::site::{SECURITY_FIELDS, Site};
use crate::app::{Context, Effect, Refusal, RouteId, Router, Subject};
use crate::close::CloseReason;
use crate::codec::websocket::deflate::Deflater;
use crate::id::{ConnId, ShardId};
use crate::message::Wire;
use crate::metrics::ShardMetrics;
use crate::rule::Limit;
use crate::session::http::{
    self, Caller, Date, Head, Preflight, Reply, Service, UpgradePolicy, Violation, write_error, write_head, write_page,
};
use crate::session::{Encoder, Protocol, websocket};
use crate::time::Instant;

/// What answers the requests of a connection.
pub(super) struct Requests<'a> {
    pub(super) id: ConnId,
    pub(super) shard: ShardId,
    pub(super) now: Instant,
    pub(super) date: Date,
    /// The connection has no place, and only hears that.
    pub(super) is_shed: bool,
    /// It has had all the requests that it may have, with this one.
    pub(super) is_last: bool,
    pub(super) policy: &'a UpgradePolicy,
    pub(super) site: &'a dyn Site,
    /// Whether the routes are served here, or just the pages.
    pub(super) routes: bool,
    pub(super) topic_bytes_max: usize,
    pub(super) router: &'a mut Router,
    pub(super) deflater: &'a mut Deflater,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) metrics: &'a ShardMetrics,
    /// How the answer has to be when the request is refused after all.
    pub(super) later: Later,
}

impl Service for Requests<'_> {
    type Answer = Answer;

    fn preflight(&mut self, head: &Head<'_>) -> Result<Preflight, Violation> {
        if self.is_shed {
            return Ok(Preflight::Now);
        }
        let caller = http::caller(head, &self.policy.origins);
        self.later = Later::of(reply_to(head, caller, self.date));
        let is_page = matches!(head.method(), "GET" | "HEAD") && self.route(head.path()).is_none();
        if caller == Caller::Foreign && !is_page {
            return Err(Violation::Origin);
        }
        if self.echoes(head) {
            return Ok(Preflight::Batch);
        }
        http::refuse_body(head)?;
        Ok(Preflight::Now)
    }

    fn answer(&mut self, head: &Head<'_>, body: Option<&[u8]>) -> Result<Answer, Violation> {
        if self.is_shed {
            write_shed(self.id, self.date, self.out);
            return Ok(Answer::Refused(CloseReason::TryAgainLater, String::new()));
        }
        let mut reply = reply_to(head, http::caller(head, &self.policy.origins), self.date);
        reply.keep_alive &= !self.is_last && body.is_some();
        match head.method() {
            "OPTIONS" => self.options(head, reply),
            "POST" => self.echo(body.unwrap_or_default(), reply),
            _ => match self.route(head.path()) {
                Some((route, param)) => return self.open(head, route, param, reply),
                None => self.page(head, reply),
            },
        }
        if self.is_last && head.keep_alive() {
            self.metrics.strike(Limit::KeepAliveRequestsMax);
        }
        Ok(reply.into())
    }
}

impl Requests<'_> {
    /// The route of a path, and what its parameter stands for.
    fn route<'p>(&self, path: &'p str) -> Option<(RouteId, &'p str)> {
        if self.routes { self.router.find(path) } else { None }
    }

    /// `POST /echo` answers its body: what a WebSocket there does with a message.
    fn echoes(&self, head: &Head<'_>) -> bool {
        let is_plain = !head.has_token("upgrade", "websocket");
        head.method() == "POST" && head.path() == "/echo" && is_plain && self.route(head.path()).is_some()
    }

    /// As bytes without a type: a browser must not take what someone sent for a page of ours.
    fn echo(&mut self, body: &[u8], reply: Reply<'_>) {
        write_page(200, "application/octet-stream", body, SECURITY_FIELDS, reply, self.out);
    }

    /// What is allowed at a path; and to pages of other sites, when one asks before it sends something.
    fn options(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        let methods = self.methods(head.path());
        let asks = reply.origin.is_some() && head.field("access-control-request-method").is_some();
        let all = [
            ("Allow", methods),
            ("Access-Control-Allow-Methods", methods),
            ("Access-Control-Allow-Headers", "Content-Type, Idempotency-Key, Last-Event-ID, Authorization"),
            ("Access-Control-Max-Age", "600"),
        ];
        write_head(204, if asks { &all } else { &all[..1] }, reply, self.out);
    }

    /// The methods of a path, `*` being the server as a whole.
    fn methods(&self, path: &str) -> &'static str {
        let takes_post = path == "*" || path == "/echo";
        if takes_post && self.routes { "GET, HEAD, POST, OPTIONS" } else { http::METHODS }
    }

    /// Makes a WebSocket of the connection, if that is what the request asks for.
    fn open(&mut self, head: &Head<'_>, route: RouteId, param: &str, reply: Reply<'_>) -> Result<Answer, Violation> {
        let start = self.out.len();
        let (websocket, encoder) = switch(head, self.policy, self.out)?;
        let request =
            Request { path: head.path(), query: head.raw_query(), param, topic_bytes_max: self.topic_bytes_max };
        let subject = Subject {
            id: self.id,
            shard: self.shard,
            now: self.now,
            protocol: Protocol::WebSocket,
            encoder,
            topic: None,
        };
        let mut context = Context::new(subject, self.deflater, self.out, self.effects);
        Ok(match self.router.open(route, &request, &mut context) {
            Ok(state) => Answer::Opened(Opened { route, state, websocket }),
            Err(fault) => {
                self.effects.clear();
                self.out.truncate(start);
                refuse(&fault, reply, self.out);
                let (reason, detail) = fault_reason(fault, self.metrics);
                Answer::Refused(reason, detail)
            }
        })
    }

    /// Writes a page, or that there is none.
    fn page(&mut self, head: &Head<'_>, reply: Reply<'_>) {
        match self.site.page(head.path()) {
            Some(page) => write_page(page.status, page.content_type, &page.body, SECURITY_FIELDS, reply, self.out),
            None => write_error(404, "not_found", "there is nothing at this path", &[], reply, self.out),
        }
    }
}

/// How the answer has to be, for whoever asks.
fn reply_to<'h>(head: &Head<'_>, caller: Caller<'h>, date: Date) -> Reply<'h> {
    let origin = if let Caller::Friend(origin) = caller { Some(origin) } else { None };
    Reply { origin, ..head.reply(date) }
}

/// Writes the answer that turns the connection into a WebSocket.
fn switch(
    head: &Head<'_>,
    policy: &UpgradePolicy,
    out: &mut Vec<u8>,
) -> Result<(websocket::State, Encoder), Violation> {
    let upgrade = http::upgrade(head, policy)?;
    http::write_switching_protocols(&upgrade, out);
    let window_bits = upgrade.deflate.map_or(0, |agreement| agreement.window_bits);
    let wire = if window_bits == 15 { Wire::WebSocketDeflate } else { Wire::WebSocket };
    Ok((websocket::State::open(window_bits), Encoder { wire, window_bits }))
}

/// Writes why there is no connection, the last answer of it.
fn refuse(fault: &Fault, reply: Reply<'_>, out: &mut Vec<u8>) {
    let reply = Reply { keep_alive: false, ..reply };
    match fault {
        Fault::Refused(Refusal { status, code, message }) => write_error(*status, code, message, &[], reply, out),
        Fault::Panicked => write_error(500, "internal", "the handler failed", &[], reply, out),
    }
}
