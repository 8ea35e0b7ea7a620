//! What requests mean: which of them are taken, with which body, and the answers.
//!
//! | request | becomes |
//! |---|---|
//! | `POST` to a route that takes it | publications, whose places are the answer |
//! | `GET PATH/history`, `GET PATH/info` of a topic | a question to its owner |
//! | `GET` with `Upgrade: websocket` | a WebSocket |
//! | `GET` with `Accept: text/event-stream` or `?stream=1` | a response that goes on and on |
//! | `GET` with `?wait=` | a long poll |
//! | `GET` of anything that is no route | a page |

mod posts;
mod reads;

use std::net::IpAddr;
use std::sync::Arc;

use super::addresses::Addresses;
use super::admitting::{PROBES, user_of};
use super::batches::Numbered;
use super::control::Control;
use super::gate::Gate;
use super::http::{Answer, Later};
use super::mail::About;
use super::paces::Spent;
use super::shedding::{write_shed, write_shed_http2};
use super::visits::{Visit, status_of};
use crate::access::{Access, Grant, Verified};
use crate::app::files::Transfer;
use crate::app::router::{Fault, Request};
use crate::app::site::{Ask, Body, PageRequest, SECURITY_FIELDS, Site};
use crate::app::{Effect, Offers, Refusal, RouteId, Router, Subject};
use crate::close::CloseReason;
use crate::codec::trace::Trace;
use crate::codec::websocket::deflate::Deflater;
use crate::config::Limits;
use crate::id::{ConnId, ShardId};
use crate::message::{Message, Topic};
use crate::metrics::ShardMetrics;
use crate::rule::{AuthRefusal, Limit};
use crate::session::http::{
    self, Caller, Date, Head, Preflight, Reply, Service, UpgradePolicy, Version, Violation, write_error, write_head,
    write_page, write_prepared,
};
use crate::session::{Encoder, Protocol};
use crate::time::Instant;
use crate::wheel::Wheel;

/// The methods of a path that only takes batches.
const BATCH_METHODS: &str = "POST, OPTIONS";

/// What has to be done for an answer.
pub(super) enum Task {
    /// To publish this, with its idempotency key.
    Publish(Message, Option<Box<str>>),
    /// To publish these, of a batch. Lines that cannot be published have been answered.
    Batch(Vec<Vec<u8>>, Vec<Numbered>),
    /// To ask a topic's owner.
    Ask(Topic, About),
    /// To wait: the site has been asked.
    Site,
}

impl Task {
    /// Messages that it publishes, and their bytes.
    pub(super) fn sent(&self) -> Spent {
        let of = |message: &Message| Spent { messages: 1, bytes: message.payload().len() as u64 };
        match self {
            Self::Publish(message, _) => of(message),
            Self::Batch(_, publications) => publications.iter().map(|(_, message, _)| of(message)).sum(),
            Self::Ask(..) | Self::Site => Spent::default(),
        }
    }
}

/// What answers the requests of a connection.
pub(super) struct Requests<'a> {
    pub(super) id: ConnId,
    pub(super) shard: ShardId,
    pub(super) now: Instant,
    pub(super) date: Date,
    /// The server drains.
    pub(super) is_draining: bool,
    /// The connection has no place, and only hears that.
    pub(super) is_shed: bool,
    /// And that because its address has too many.
    pub(super) is_crowded: bool,
    /// The address that has a rate of requests, if there is one.
    pub(super) limited: Option<IpAddr>,
    pub(super) addresses: &'a Addresses,
    /// It is the first request of its connection.
    pub(super) is_first: bool,
    /// It has had all the requests that it may have, with this one.
    pub(super) is_last: bool,
    /// The version of its answers, where its head does not say it: on a stream.
    pub(super) version: Option<Version>,
    pub(super) policy: &'a UpgradePolicy,
    pub(super) access: &'a Access,
    /// Everything here is for operators.
    pub(super) operators_only: bool,
    pub(super) gate: &'a mut Gate,
    pub(super) control: &'a Control,
    /// The time, in milliseconds of Unix time.
    pub(super) unix_ms: u64,
    /// What the request at hand shows, until it is taken.
    pub(super) verified: Option<Verified>,
    /// What may be done by whoever sent the request that was taken; `None`: everything.
    pub(super) grant: Option<Arc<Grant>>,
    /// It will renew its token.
    pub(super) renews: bool,
    pub(super) site: &'a dyn Site,
    /// Whether the routes are served here, or just the pages.
    pub(super) routes: bool,
    pub(super) limits: &'a Limits,
    pub(super) wheel: &'a Wheel,
    pub(super) router: &'a mut Router,
    pub(super) deflater: &'a mut Deflater,
    pub(super) out: &'a mut Vec<u8>,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) metrics: &'a ShardMetrics,
    /// How the answer has to be when the request is refused after all.
    pub(super) later: Later,
    /// What the log will hear of the request at hand.
    pub(super) visit: Option<Box<Visit>>,
    /// Whether it hears of requests.
    pub(super) logs_visits: bool,
}

impl Service for Requests<'_> {
    type Answer = Answer;

    fn preface(&mut self) -> Option<Answer> {
        if !self.is_first || self.version.is_some() {
            return None;
        }
        if self.is_shed {
            write_shed_http2(self.is_crowded, self.out);
            return Some(Answer::Refused(CloseReason::TryAgainLater, String::new()));
        }
        Some(Answer::Http2)
    }

    fn revisit(&mut self, head: &Head<'_>) {
        let caller = http::caller(head, &self.policy.origins);
        self.later = Later::of(self.reply_to(head, caller));
        self.note_visit(head);
    }

    fn preflight(&mut self, head: &Head<'_>) -> Result<Preflight, Violation> {
        if self.is_shed {
            return Ok(Preflight::Now);
        }
        if let Some(ip) = self.limited
            && !self.addresses.takes_request(ip, self.now, self.limits.request_rate_per_address)
        {
            return Err(Violation::TooManyRequests);
        }
        // On a stream it is what its CONNECT named: there are no other upgrades.
        if self.version.is_some() && head.field("upgrade").is_some() && !head.has_token("upgrade", "websocket") {
            return Err(Violation::ProtocolUnknown);
        }
        let caller = http::caller(head, &self.policy.origins);
        self.revisit(head);
        let is_page = matches!(head.method(), "GET" | "HEAD") && self.route(head.path()).is_none();
        if caller == Caller::Foreign && !is_page {
            return Err(Violation::Origin);
        }
        if !self.is_call(head) {
            self.check(head)?;
        }
        if let Some(methods) = self.asks_site(head) {
            return preflight_ask(head, methods, caller);
        }
        if self.is_call(head) {
            return Ok(Preflight::Call);
        }
        if self.version.is_some() && head.has_token("upgrade", "websocket") && !is_page {
            return Ok(Preflight::Call);
        }
        if self.offers_at(head).calls {
            // On a stream at once: whoever takes a method for something else than gRPC may wait before it says all.
            return Ok(if self.version.is_some() { Preflight::Call } else { Preflight::Now });
        }
        if self.echoes(head) {
            return Ok(Preflight::Batch);
        }
        if head.method() == "POST" {
            let offers = self.offers_at(head);
            if offers.posts || offers.batches {
                return Ok(if offers.posts { Preflight::Message } else { Preflight::Batch });
            }
        }
        http::refuse_body(head).map_err(|violation| match violation {
            Violation::MethodNotAllowed(_) => Violation::MethodNotAllowed(self.methods(head)),
            other => other,
        })?;
        Ok(Preflight::Now)
    }

    fn answer(&mut self, head: &Head<'_>, body: Option<&[u8]>) -> Result<Answer, Violation> {
        if self.is_shed {
            write_shed(self.id, self.is_crowded, self.date, self.out);
            return Ok(Answer::Refused(CloseReason::TryAgainLater, String::new()));
        }
        self.note_visit(head);
        let start = self.out.len();
        let mut answer = self.answer_to(head, body);
        if let Some(visit) = &mut self.visit {
            match &mut answer {
                Ok(Answer::Waits(later, _) | Answer::Polls(_, _, later)) => later.visit = self.visit.take(),
                _ => visit.status = status_of(&self.out[start..]),
            }
        }
        answer
    }
}

impl Requests<'_> {
    /// Notes the request for the log.
    fn note_visit(&mut self, head: &Head<'_>) {
        if self.logs_visits {
            self.visit = Some(Visit::of(head, self.now));
        }
    }

    fn answer_to(&mut self, head: &Head<'_>, body: Option<&[u8]>) -> Result<Answer, Violation> {
        let mut reply = self.reply_to(head, http::caller(head, &self.policy.origins));
        if self.is_last && head.keep_alive() {
            self.metrics.strike(Limit::KeepAliveRequestsMax);
        }
        reply.keep_alive &= !self.is_last && body.is_some();
        if !self.is_call(head) {
            self.admit(head)?;
        }
        if self.asks_site(head).is_some() && head.method() != "OPTIONS" {
            return Ok(self.ask_site(head, body.unwrap_or_default(), reply));
        }
        if self.is_call(head) {
            return Ok(self.call(head, reply));
        }
        if self.offers_at(head).calls {
            let message = "this is a gRPC method; call it over HTTP/2 as application/grpc".to_owned();
            return Ok(self.refuse(&Refusal { status: 415, code: "unsupported_media_type", message }, reply));
        }
        match head.method() {
            "OPTIONS" => self.options(head, reply),
            "POST" if self.echoes(head) => self.echo(body.unwrap_or_default(), reply),
            "POST" => return Ok(self.publish(head, body.unwrap_or_default(), reply)),
            _ => match self.route(head.path()) {
                Some((route, param)) => return self.read(head, route, param, reply),
                None => return Ok(self.page(head, reply)),
            },
        }
        Ok(reply.into())
    }
}

impl Requests<'_> {
    /// How the answer has to be, for whoever asks.
    fn reply_to<'h>(&self, head: &Head<'_>, caller: Caller<'h>) -> Reply<'h> {
        let origin = if let Caller::Friend(origin) = caller { Some(origin) } else { None };
        let credentials = origin.is_some_and(|origin| self.policy.origins.lists(origin));
        let reply = head.reply(self.date);
        // In a drain each answer is a connection's last: whoever pools connections hears of it before they close.
        let keep_alive = reply.keep_alive && (self.version.is_some() || !self.is_draining);
        Reply { origin, credentials, keep_alive, version: self.version.unwrap_or(reply.version), ..reply }
    }

    /// The route of a path, and what its parameter stands for.
    pub(super) fn route<'p>(&self, path: &'p str) -> Option<(RouteId, &'p str)> {
        if self.routes { self.router.find(path) } else { None }
    }

    /// The methods of a path whose requests the site is asked.
    pub(super) fn asks_site(&self, head: &Head<'_>) -> Option<&'static str> {
        self.site.methods(head.path()).filter(|_| self.route(head.path()).is_none())
    }

    /// Asks the site, whose answer comes later.
    fn ask_site(&mut self, head: &Head<'_>, body: &[u8], reply: Reply<'_>) -> Answer {
        let user = user_of(&self.grant).map(Box::from);
        match self.site.ask(Ask { user, ..Ask::of(head, self.id, body) }) {
            Ok(()) => Answer::Waits(Later::of(reply), Task::Site),
            Err(refusal) => self.refuse(&refusal, reply),
        }
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
        let methods = self.methods(head);
        let asks = reply.origin.is_some() && head.field("access-control-request-method").is_some();
        let all = [
            ("Allow", methods),
            ("Access-Control-Allow-Methods", methods),
            (
                "Access-Control-Allow-Headers",
                "Content-Type, Idempotency-Key, Last-Event-ID, Authorization, X-API-Key, traceparent, tracestate",
            ),
            ("Access-Control-Max-Age", "600"),
        ];
        write_head(204, if asks { &all } else { &all[..1] }, reply, self.out);
    }

    /// The methods of a path, `*` being the server as a whole.
    fn methods(&self, head: &Head<'_>) -> &'static str {
        if let Some(methods) = self.asks_site(head) {
            return methods;
        }
        let offers = self.offers_at(head);
        if offers == (Offers { batches: true, ..Offers::default() }) {
            return "POST, OPTIONS";
        }
        let echoes = head.path() == "/echo" && self.route("/echo").is_some();
        if offers.batches {
            return BATCH_METHODS;
        }
        let takes_post = echoes || offers.posts || (head.path() == "*" && self.routes);
        if takes_post { "GET, HEAD, POST, OPTIONS" } else { http::METHODS }
    }

    /// What the route of a request offers.
    fn offers_at(&self, head: &Head<'_>) -> Offers {
        self.route(head.path()).map_or_else(Offers::default, |(route, _)| self.offers(route))
    }

    pub(super) fn offers(&self, route: RouteId) -> Offers {
        self.router.offers(route).unwrap_or_default()
    }

    /// What handlers are told about who asks.
    pub(super) fn subject<'g>(&self, protocol: Protocol, encoder: Encoder, grant: Option<&'g Grant>) -> Subject<'g> {
        let Self { id, shard, now, is_draining, .. } = *self;
        Subject { id, shard, now, protocol, encoder, topic: None, is_draining, grant }
    }

    /// The request as handlers see it.
    pub(super) fn request<'h>(&self, head: &'h Head<'_>, param: &'h str) -> Request<'h> {
        let before = head.path().len() - param.len();
        // Routes' own paths have no encodings: what stands before the parameter is the same in both forms.
        let raw_param = head.raw_path().get(before..).filter(|_| head.raw_path().starts_with(&head.path()[..before]));
        Request {
            path: head.path(),
            query: head.raw_query(),
            param,
            raw_param,
            last_event_id: head.field("last-event-id").and_then(|id| str::from_utf8(id).ok()),
            trace: trace_of(head),
            topic_bytes_max: self.limits.topic_bytes_max,
            topics_max: self.limits.subscriptions_max,
            user: None,
        }
    }

    /// Writes that a request cannot be served as it is; others may follow.
    pub(super) fn refuse(&mut self, refusal: &Refusal, reply: Reply<'_>) -> Answer {
        self.metrics.http_errors_total.add(1);
        let Refusal { status, code, message } = refusal;
        write_error(*status, code, message, challenge_of(*status), reply, self.out);
        reply.into()
    }

    /// What a fault of a handler is to the client.
    fn refusal(&self, fault: Fault) -> Refusal {
        match fault {
            Fault::Refused(refusal) => refusal,
            Fault::Panicked => {
                self.metrics.handler_panics_total.add(1);
                Refusal { status: 500, code: "internal", message: "the handler failed".to_owned() }
            }
        }
    }

    /// Writes a page, or that there is none.
    fn page(&mut self, head: &Head<'_>, reply: Reply<'_>) -> Answer {
        // Without a host it is no browser's: none of HTTP/1.0 need have one, and what asks for numbers may be that old.
        let is_told = !head.host().is_empty() || head.path().starts_with("/api/");
        if self.operators_only
            && is_told
            && !PROBES.contains(&head.path())
            && let Err(refusal) = self.site.lets_in(head.host())
        {
            return self.refuse(&refusal, reply);
        }
        // A page would tell whoever has sent a CONNECT that its tunnel is there.
        let is_tunnel = self.version.is_some() && head.field("upgrade").is_some();
        let page = if is_tunnel { None } else { self.site.get(&PageRequest::of(head, self.now)) };
        let Some(page) = page else {
            write_error(404, "not_found", "there is nothing at this path", &[], reply, self.out);
            return reply.into();
        };
        write_prepared(page.status, &page.fields, page.body.len(), reply, self.out);
        match page.body {
            Body::Bytes(bytes) if !reply.head_only => self.out.extend_from_slice(&bytes),
            Body::File(slice) if !reply.head_only => {
                return Answer::File(Box::new(Transfer::new(slice, !reply.keep_alive)));
            }
            Body::Bytes(_) | Body::File(_) => {}
        }
        reply.into()
    }
}

/// Whether such a request may be asked the site, and with which body.
fn preflight_ask(head: &Head<'_>, methods: &'static str, caller: Caller<'_>) -> Result<Preflight, Violation> {
    if caller == Caller::Foreign {
        return Err(Violation::Origin);
    }
    if !methods.split(", ").any(|method| method == head.method()) {
        return Err(Violation::MethodNotAllowed(methods));
    }
    if matches!(head.method(), "GET" | "HEAD" | "OPTIONS") {
        http::refuse_body(head)?;
        return Ok(Preflight::Now);
    }
    Ok(Preflight::Message)
}

/// The trace that a request belongs to. A state that is spread over several fields is left out.
fn trace_of<'h>(head: &'h Head<'_>) -> Option<Trace<'h>> {
    let mut parents = head.fields("traceparent");
    let parent = parents.next().filter(|_| parents.next().is_none())?;
    let mut states = head.fields("tracestate");
    let state = states.next().filter(|_| states.next().is_none());
    Trace::parse(parent, state)
}

/// The fields beside an error that has to do with permissions.
const fn challenge_of(status: u16) -> &'static [(&'static str, &'static str)] {
    match status {
        401 => http::challenge(AuthRefusal::Missing),
        403 => http::challenge(AuthRefusal::Forbidden),
        _ => &[],
    }
}
