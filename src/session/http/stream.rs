//! Requests that have a stream of HTTP/2 each: where one ends is said beside its bytes, and nothing follows it.
//!
//! Their heads come in the form of HTTP/1.1's and are read by the same rules. A request that is refused is not answered
//! before its body has come, if that is small: a client need not be told twice, and what is wrong with the body itself
//! shows. But one that waits for a `100 Continue` is answered at once (RFC 9110 section 10.1.1).

use super::body::{Rest, expects_continue};
use super::{Assembly, Body, Head, Preflight, Service, Violation};
use crate::session::{Env, Partial};

/// Bytes of a body that is of no use before it is waited for no longer.
const DROPPED_BYTES_MAX: usize = 16 * 1024;

/// How far a request came.
#[derive(Debug, PartialEq, Eq)]
pub struct Progress<T> {
    /// What it came to, `None` while it is unfinished.
    pub outcome: Option<T>,
    /// The client waits for a `100 Continue`.
    pub expects: bool,
}

impl<T> Progress<T> {
    const fn of(outcome: Option<T>) -> Self {
        Self { outcome, expects: false }
    }
}

/// Takes a whole head, which is all that `kept` has. `ends`: nothing follows it. An unfinished request stays in `partial`.
///
/// # Errors
/// When the request is refused; answer with [`Violation::write`].
pub fn begin<S: Service>(
    partial: &mut Option<Box<Partial>>,
    mut kept: Box<Partial>,
    ends: bool,
    env: &mut Env<'_>,
    service: &mut S,
) -> Result<Progress<S::Answer>, Violation> {
    let limits = env.limits;
    let head_bytes = kept.buf.len();
    let step = Head::parse(&kept.buf, 0, limits, |head| {
        let preflight = service.preflight(head);
        let expects = expects_continue(head);
        // A client that waits to be told sends nothing before it has an answer, and so does one that asks for a tunnel.
        let waits = ends || expects == Ok(true) || head.field("upgrade").is_some();
        match preflight {
            Ok(Preflight::Call) => service.answer(head, if ends { Some(&[]) } else { None }).map(Step::Answered),
            Ok(_) if ends => service.answer(head, Some(&[])).map(Step::Answered),
            Err(violation) if waits => Err(violation),
            Ok(Preflight::Now) if waits => service.answer(head, None).map(Step::Answered),
            Ok(Preflight::Now) => Ok(Step::More(Rest::Dropped(DROPPED_BYTES_MAX), Preflight::Now, None, false)),
            Err(violation) => Ok(Step::More(Rest::Dropped(DROPPED_BYTES_MAX), Preflight::Now, Some(violation), false)),
            Ok(preflight) => {
                let bytes_max = preflight.bytes_max(limits);
                let fits = !matches!(head.body(), Body::Length(length) if length > bytes_max as u64);
                match expects {
                    Ok(expects) if fits => Ok(Step::More(Rest::Stream(bytes_max), preflight, None, expects)),
                    Ok(true) => Err(preflight.too_large(limits)),
                    _ => Ok(Step::More(Rest::Dropped(DROPPED_BYTES_MAX), preflight, None, false)),
                }
            }
        }
    });
    let result = match step {
        Ok(Ok(Step::More(rest, preflight, refused, expects))) => {
            kept.http = Assembly { head: head_bytes, rest, preflight, refused, ..Assembly::default() };
            *partial = Some(kept);
            return Ok(Progress { outcome: None, expects });
        }
        Ok(Ok(Step::Answered(answer))) => Ok(Progress::of(Some(answer))),
        Ok(Err(violation)) => Err(violation),
        Err(malformed) => Err(malformed.into()),
    };
    env.partials.give(kept);
    result
}

/// What a whole head came to.
enum Step<T> {
    Answered(T),
    /// Its body is to come; why it is refused then; and whether the client waits to be told to send it.
    More(Rest, Preflight, Option<Violation>, bool),
}

/// Takes more of a request's body. `ends`: these are the last bytes.
///
/// # Errors
/// As [`begin`].
pub fn go_on<S: Service>(
    partial: &mut Option<Box<Partial>>,
    bytes: &[u8],
    ends: bool,
    env: &mut Env<'_>,
    service: &mut S,
) -> Result<Progress<S::Answer>, Violation> {
    let limits = env.limits;
    let Some(mut kept) = partial.take() else { return Ok(Progress::of(None)) };
    let preflight = kept.http.preflight;
    let (head_bytes, is_over, refused) = (kept.http.head, bytes.len(), kept.http.refused);
    let is_whole = match &mut kept.http.rest {
        Rest::Stream(left) if is_over <= *left => {
            *left -= bytes.len();
            kept.buf.extend_from_slice(bytes);
            ends
        }
        Rest::Dropped(left) => {
            *left = left.saturating_sub(bytes.len());
            ends || *left == 0
        }
        Rest::Stream(_) | Rest::Length(_) | Rest::Chunks(_) => {
            env.partials.give(kept);
            return Err(preflight.too_large(limits));
        }
    };
    if !is_whole {
        *partial = Some(kept);
        return Ok(Progress::of(None));
    }
    let is_dropped = matches!(kept.http.rest, Rest::Dropped(_));
    let (head, body) = kept.buf.split_at(head_bytes);
    let result = Head::parse(head, 0, limits, |head| {
        if is_dropped {
            service.revisit(head);
            refused.map_or_else(|| refusal(head, preflight, limits), Err)?;
        }
        service.answer(head, Some(body))
    });
    let result = result.map_err(Violation::from).and_then(|answer| answer);
    env.partials.give(kept);
    result.map(|answer| Progress::of(Some(answer)))
}

/// Why a request's body was dropped, if that was not its own to say. `preflight`: what was said of its head.
fn refusal(head: &Head<'_>, preflight: Preflight, limits: &crate::config::Limits) -> Result<(), Violation> {
    expects_continue(head)?;
    match (preflight, head.body()) {
        (Preflight::Now | Preflight::Call, _) => Ok(()),
        (preflight, Body::Length(length)) if length > preflight.bytes_max(limits) as u64 => {
            Err(preflight.too_large(limits))
        }
        _ => Ok(()),
    }
}
