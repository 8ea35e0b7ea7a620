//! HTTP/1.1: whole requests out of bytes, up to the point where a connection becomes something else.
//!
//! ```text
//!            bytes            whole head             whole body
//!   waiting --------> partial ----------> preflight ------------> answer ----> 101, then WebSocket
//!      ^  \______________________________/  |    \_______________/   |
//!      |            whole at once           |     whole at once      | write_page, write_error
//!      |                                    v 100 Continue           |
//!      +-------------------------------------------------------------+
//! ```
//!
//! [`receive`] finds one request at a time and says where it ended; what it means is a [`Service`]'s to decide: first
//! whether its body is taken, then the answer, with [`upgrade()`] for a WebSocket's opening handshake and [`refuse_body`]
//! for what is not served. Every [`Violation`] is the last thing on its connection: where requests end is not certain any
//! more.

mod body;
mod credentials;
#[doc(hidden)]
pub mod fuzz;
mod origin;
pub mod stream;
mod upgrade;

use super::{Env, Partial, Violation as _};
use crate::close::CloseReason;
use crate::codec::http1::head::find_end;
use crate::codec::http2::frame::PREFACE_HEAD;
use crate::config::Limits;
use crate::rule::{AuthRefusal, Rule};
use body::expects_continue;

pub use crate::codec::http1::{
    BadChunk, Body, Date, Head, Malformed, Query, Reply, Version, write_error, write_head, write_page, write_prepared,
};
pub use body::{Assembly, Preflight};
pub use credentials::{SUBPROTOCOL, TOKEN_SUBPROTOCOL, credentials};
pub use origin::{Caller, caller};
pub use upgrade::{Upgrade, UpgradePolicy, upgrade, upgrade_stream, write_accepted, write_switching_protocols};

/// How far [`receive`] came.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress<T> {
    /// Bytes that are done with. What lies behind them belongs to what comes after the head.
    pub consumed: usize,
    /// What the request came to, `None` while it is unfinished.
    pub outcome: Option<T>,
    /// The client waits for a `100 Continue`, see [`CONTINUE`].
    pub expects: bool,
}

/// What a client that asked for it waits for before it sends a body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What requests mean.
pub trait Service {
    /// What an answer comes to.
    type Answer;

    /// Says what is done with a request whose head is whole.
    ///
    /// # Errors
    /// When it is refused.
    fn preflight(&mut self, head: &Head<'_>) -> Result<Preflight, Violation>;

    /// Looks again at a head that it has said all about, so as to answer it: nothing of it is counted or checked anew.
    fn revisit(&mut self, _head: &Head<'_>) {}

    /// What a connection becomes that begins with HTTP/2's preface, where that is spoken.
    fn preface(&mut self) -> Option<Self::Answer> {
        None
    }

    /// Answers a request. The body is `None` where there is one that [`Preflight::Now`] left unread.
    ///
    /// # Errors
    /// When it is refused.
    fn answer(&mut self, head: &Head<'_>, body: Option<&[u8]>) -> Result<Self::Answer, Violation>;
}

/// How a request broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The head cannot be read.
    #[error(transparent)]
    Head(#[from] Malformed),
    /// The body's chunks cannot be read.
    #[error(transparent)]
    Chunk(#[from] BadChunk),
    /// Over the limit of a message.
    #[error("the body has more than {0} bytes")]
    MessageTooLarge(usize),
    /// Over the limit.
    #[error("the body has more than {0} bytes")]
    BodyTooLarge(usize),
    /// An expectation that nobody knows.
    #[error("the Expect field has something else than 100-continue in it")]
    Expectation,
    /// Not a method of this path.
    #[error("this method is not allowed here; allowed are {0}")]
    MethodNotAllowed(&'static str),
    /// A method that RFC 9110 does not know.
    #[error("this method is unknown")]
    MethodUnknown,
    /// An extended CONNECT for something else than a WebSocket (RFC 8441 section 4).
    #[error("a CONNECT is taken here with the :protocol websocket alone")]
    ProtocolUnknown,
    /// A body where none is taken.
    #[error("a body is not taken here")]
    BodyNotTaken,
    /// A body of unknown length where none is taken.
    #[error("a body without a Content-Length is not taken here")]
    LengthRequired,
    /// The route is a WebSocket's and the request does not ask for one.
    #[error("this is a WebSocket; ask for an upgrade to it{0}")]
    UpgradeRequired(&'static str),
    /// An upgrade in HTTP/1.0.
    #[error("an upgrade needs HTTP/1.1")]
    UpgradeOldVersion,
    /// No `Connection: Upgrade` beside `Upgrade: websocket`.
    #[error("the Connection field does not have Upgrade in it")]
    ConnectionField,
    /// Another version than 13.
    #[error("the Sec-WebSocket-Version is not 13")]
    WebSocketVersion,
    /// No key, two keys, or not 16 bytes in base64.
    #[error("the Sec-WebSocket-Key is missing or malformed")]
    WebSocketKey,
    /// More requests from its address than it may send in a second.
    #[error("too many requests come from this address; come back after the time in Retry-After")]
    TooManyRequests,
    /// A page of another site wants to speak for its visitor.
    #[error("this origin is not allowed")]
    Origin,
    /// Who asks has not proved who it is, or may not do this.
    #[error("{}", .0.message())]
    Unauthorized(AuthRefusal),
    /// The same of a page that operators open in a browser, which asks for their key when it is told to.
    #[error("{}", .0.message())]
    NoOperator(AuthRefusal),
    /// The client did not wait for the 101.
    #[error("data came before the upgrade was answered")]
    BytesBeforeSwitch,
}

/// The fields beside a refusal (RFC 6750 section 3).
#[must_use]
pub const fn challenge(cause: AuthRefusal) -> &'static [(&'static str, &'static str)] {
    match (cause, cause.status()) {
        (AuthRefusal::Missing, _) => &[("WWW-Authenticate", "Bearer realm=\"holdline\"")],
        (_, 401) => &[("WWW-Authenticate", "Bearer realm=\"holdline\", error=\"invalid_token\"")],
        (_, 403) => &[("WWW-Authenticate", "Bearer realm=\"holdline\", error=\"insufficient_scope\"")],
        _ => &[("Retry-After", "1")],
    }
}

/// The methods of a path that has nothing but pages or WebSockets.
pub const METHODS: &str = "GET, HEAD, OPTIONS";

impl Violation {
    /// The status of the answer.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Head(malformed) => malformed.status(),
            Self::MethodNotAllowed(_) => 405,
            Self::MethodUnknown | Self::ProtocolUnknown => 501,
            Self::BodyNotTaken | Self::MessageTooLarge(_) | Self::BodyTooLarge(_) => 413,
            Self::Expectation => 417,
            Self::LengthRequired => 411,
            Self::UpgradeRequired(_) | Self::WebSocketVersion => 426,
            Self::Origin => 403,
            Self::TooManyRequests => 429,
            Self::Unauthorized(cause) | Self::NoOperator(cause) => cause.status(),
            Self::Chunk(_)
            | Self::UpgradeOldVersion
            | Self::ConnectionField
            | Self::WebSocketKey
            | Self::BytesBeforeSwitch => 400,
        }
    }

    /// Appends the whole answer, the last one of its connection.
    pub fn write(self, reply: Reply<'_>, out: &mut Vec<u8>) {
        let extra: &[(&str, &str)] = match self {
            Self::MethodNotAllowed(methods) => &[("Allow", methods)],
            // After a second of none there are as many again as there may be in one.
            Self::TooManyRequests => &[("Retry-After", "1")],
            Self::UpgradeRequired(_) => &[("Upgrade", "websocket"), ("Connection", "Upgrade, close")],
            Self::WebSocketVersion => {
                &[("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket"), ("Connection", "Upgrade, close")]
            }
            // A field for each: of one with both, browsers see the first alone, and ask for nothing.
            Self::NoOperator(cause) if cause.status() == 401 => &[
                ("WWW-Authenticate", "Basic realm=\"holdline, with a key as the password\""),
                ("WWW-Authenticate", "Bearer realm=\"holdline\""),
            ],
            Self::Unauthorized(cause) => challenge(cause),
            _ => &[],
        };
        let status = match (self.status(), reply.version) {
            // There is nothing to upgrade to.
            (426, Version::Http2(_)) => 400,
            (status, _) => status,
        };
        let code = match self {
            Self::Unauthorized(cause) | Self::NoOperator(cause) => cause.code(),
            _ => self.rule().label(),
        };
        write_error(status, code, &self.to_string(), extra, Reply { keep_alive: false, ..reply }, out);
    }
}

impl super::Violation for Violation {
    fn rule(&self) -> Rule {
        match self {
            Self::Head(malformed) => malformed.rule(),
            Self::Chunk(bad) => bad.rule(),
            Self::MessageTooLarge(_) => Rule::MessageTooBig,
            Self::BodyTooLarge(_) => Rule::BodyTooLarge,
            Self::Expectation => Rule::Expectation,
            Self::MethodNotAllowed(_) => Rule::MethodNotAllowed,
            Self::MethodUnknown | Self::ProtocolUnknown => Rule::MethodUnknown,
            Self::BodyNotTaken => Rule::BodyNotTaken,
            Self::LengthRequired => Rule::LengthRequired,
            Self::UpgradeRequired(_) => Rule::UpgradeRequired,
            Self::UpgradeOldVersion => Rule::UpgradeOldVersion,
            Self::ConnectionField => Rule::ConnectionField,
            Self::WebSocketVersion => Rule::WebSocketVersion,
            Self::WebSocketKey => Rule::WebSocketKey,
            Self::Origin => Rule::Origin,
            Self::TooManyRequests => Rule::TooManyRequests,
            Self::Unauthorized(_) | Self::NoOperator(_) => Rule::Unauthorized,
            Self::BytesBeforeSwitch => Rule::BytesBeforeSwitch,
        }
    }

    fn reason(&self) -> CloseReason {
        CloseReason::BadHandshake
    }
}

/// Looks for one request. One that is whole in `bytes` is read in place; an unfinished one is kept in `partial`: its head,
/// then what has come of its body. Bytes of a body in chunks are moved together within `bytes`.
///
/// No byte is looked at twice for the head's end, however they were cut (CVE-2023-43669), and no more than
/// `head_bytes_max` and what [`Service::preflight`] allows are kept.
///
/// # Errors
/// When the bytes are no request that is taken here; answer with [`Violation::write`] and close.
pub fn receive<S: Service>(
    partial: &mut Option<Box<Partial>>,
    bytes: &mut [u8],
    env: &mut Env<'_>,
    service: &mut S,
) -> Result<Progress<S::Answer>, Violation> {
    let bytes_max = env.limits.head_bytes_max;
    let Some(mut kept) = partial.take() else {
        let Some(end) = head_end(bytes, 0, env.limits)? else {
            if !bytes.is_empty() {
                let kept = partial.insert(env.partials.take());
                kept.buf.extend_from_slice(bytes);
                kept.scanned = bytes.len();
            }
            return Ok(Progress { consumed: bytes.len(), outcome: None, expects: false });
        };
        let (head, behind) = bytes.split_at_mut(end);
        let step = begin(head, behind, env.limits, service)?;
        if let Step::More { assembly, written, .. } = &step {
            let kept = partial.insert(env.partials.take());
            kept.buf.extend_from_slice(head);
            kept.buf.extend_from_slice(&behind[..*written]);
            kept.http = *assembly;
        }
        return Ok(step.progress(end));
    };
    if kept.http.head > 0 {
        let progress = go_on(&mut kept, bytes, env.limits, service);
        keep_or_give(partial, kept, env, &progress);
        return progress;
    }
    let before = kept.buf.len();
    let room = bytes_max.saturating_sub(before);
    kept.buf.extend_from_slice(&bytes[..bytes.len().min(room)]);
    let progress = match head_end(&kept.buf, kept.scanned, env.limits) {
        Ok(Some(end)) => {
            kept.buf.truncate(end);
            let behind = &mut bytes[end - before..];
            begin(&kept.buf, behind, env.limits, service).map(|step| {
                if let Step::More { assembly, written, .. } = &step {
                    kept.buf.extend_from_slice(&behind[..*written]);
                    kept.http = *assembly;
                }
                step.progress(end - before)
            })
        }
        Ok(None) => {
            kept.scanned = kept.buf.len();
            Ok(Progress { consumed: bytes.len(), outcome: None, expects: false })
        }
        Err(malformed) => Err(malformed.into()),
    };
    keep_or_give(partial, kept, env, &progress);
    progress
}

/// Keeps what is unfinished.
fn keep_or_give<T>(
    partial: &mut Option<Box<Partial>>,
    kept: Box<Partial>,
    env: &mut Env<'_>,
    progress: &Result<Progress<T>, Violation>,
) {
    if matches!(progress, Ok(Progress { outcome: None, .. })) {
        *partial = Some(kept);
    } else {
        env.partials.give(kept);
    }
}

/// What a whole head came to.
enum Step<T> {
    /// The request is whole, with so many bytes behind the head.
    Answered { body: usize, answer: T },
    /// More of the body is to come; so many bytes of it are at the start of what was behind the head.
    More { assembly: Assembly, consumed: usize, written: usize, expects: bool },
}

impl<T> Step<T> {
    fn progress(self, head: usize) -> Progress<T> {
        match self {
            Self::Answered { body, answer } => {
                Progress { consumed: head + body, outcome: Some(answer), expects: false }
            }
            Self::More { consumed, expects, .. } => Progress { consumed: head + consumed, outcome: None, expects },
        }
    }
}

/// Takes a whole head, and what has come behind it.
fn begin<S: Service>(
    head: &[u8],
    behind: &mut [u8],
    limits: &Limits,
    service: &mut S,
) -> Result<Step<S::Answer>, Violation> {
    if head == PREFACE_HEAD
        && let Some(answer) = service.preface()
    {
        return Ok(Step::Answered { body: 0, answer });
    }
    let head_bytes = head.len();
    Head::parse(head, behind.len(), limits, |head| {
        let preflight = service.preflight(head)?;
        let expects = expects_continue(head)?;
        if preflight == Preflight::Now || head.body() == Body::None {
            let body = if head.body() == Body::None { Some(&[][..]) } else { None };
            return Ok(Step::Answered { body: 0, answer: service.answer(head, body)? });
        }
        let expects = expects && behind.is_empty();
        let taken = Assembly::begin(head, head_bytes, preflight, limits)?.take(behind, limits)?;
        Ok(match taken.more {
            None => {
                let answer = service.answer(head, Some(&behind[..taken.written]))?;
                Step::Answered { body: taken.consumed, answer }
            }
            Some(assembly) => Step::More { assembly, consumed: taken.consumed, written: taken.written, expects },
        })
    })?
}

/// Takes more of a body whose head is kept.
fn go_on<S: Service>(
    kept: &mut Partial,
    bytes: &mut [u8],
    limits: &Limits,
    service: &mut S,
) -> Result<Progress<S::Answer>, Violation> {
    let taken = kept.http.take(bytes, limits)?;
    kept.buf.extend_from_slice(&bytes[..taken.written]);
    let consumed = taken.consumed;
    if let Some(assembly) = taken.more {
        kept.http = assembly;
        return Ok(Progress { consumed, outcome: None, expects: false });
    }
    let (head, body) = kept.buf.split_at(kept.http.head);
    let answer = Head::parse(head, bytes.len() - consumed, limits, |head| service.answer(head, Some(body)))??;
    Ok(Progress { consumed, outcome: Some(answer), expects: false })
}

/// Where the head ends, within the limit.
fn head_end(bytes: &[u8], scanned: usize, limits: &Limits) -> Result<Option<usize>, Malformed> {
    let bytes_max = limits.head_bytes_max;
    let within = &bytes[..bytes.len().min(bytes_max)];
    let end = find_end(within, scanned)?;
    if end.is_none() && bytes.len() >= bytes_max {
        // A request line that does not end is its target's fault.
        let is_line = memchr::memchr(b'\n', &within[within.len().min(2)..]).is_none();
        let target_max = limits.target_bytes_max;
        return Err(if is_line && target_max < bytes_max {
            Malformed::TargetTooLong(target_max)
        } else {
            Malformed::TooLarge(bytes_max)
        });
    }
    Ok(end)
}

/// Refuses what is not served: every method but GET, HEAD and OPTIONS, and every body.
///
/// # Errors
/// When the request is such a one.
pub fn refuse_body(head: &Head<'_>) -> Result<(), Violation> {
    match (head.method(), head.body()) {
        ("GET" | "HEAD" | "OPTIONS", Body::None) => Ok(()),
        ("GET" | "HEAD" | "OPTIONS", Body::Length(_)) => Err(Violation::BodyNotTaken),
        ("GET" | "HEAD" | "OPTIONS", Body::Chunked) => Err(Violation::LengthRequired),
        ("POST" | "PUT" | "DELETE" | "PATCH" | "TRACE" | "CONNECT", _) => Err(Violation::MethodNotAllowed(METHODS)),
        _ => Err(Violation::MethodUnknown),
    }
}

#[cfg(test)]
mod tests;
