//! A line for each HTTP request, where an operator wants it, at a bounded rate.
//!
//! It has no query: tokens may stand there. Until it is turned on a request pays a comparison; from then on it allocates its
//! path and a line. A request that waits for another shard is told when it has its answer.

use super::core::Core;
use crate::codec::http1::Head;
use crate::codec::http2;
use crate::id::ConnId;
use crate::rate::TokenBucket;
use crate::time::Instant;

/// The target of these lines.
const TARGET: &str = "holdline::access";
/// Characters of a path that are told.
const PATH_CHARS_MAX: usize = 256;

/// What will be told of a request.
#[derive(Debug)]
pub(super) struct Visit {
    method: Box<str>,
    path: Box<str>,
    began: Instant,
    /// That of its answer, once there is one.
    pub(super) status: Option<u16>,
}

impl Visit {
    /// Of a request that has come by now.
    pub(super) fn of(head: &Head<'_>, now: Instant) -> Box<Self> {
        let path: String = head.path().chars().take(PATH_CHARS_MAX).collect();
        Box::new(Self { method: head.method().into(), path: path.into(), began: now, status: None })
    }
}

/// The status of an answer whose head is the first thing here.
pub(super) fn status_of(answer: &[u8]) -> Option<u16> {
    match answer.strip_prefix(b"HTTP/1.1 ") {
        Some(rest) => str::from_utf8(rest.get(..3)?).ok()?.parse().ok(),
        None => http2::response::status_of(answer),
    }
}

/// How many lines there may be.
#[derive(Debug)]
pub(super) struct VisitLog {
    rate: u32,
    bucket: TokenBucket,
    /// Left out since the last line.
    suppressed: u64,
}

impl Default for VisitLog {
    fn default() -> Self {
        Self { rate: 0, bucket: TokenBucket::new(1, 1), suppressed: 0 }
    }
}

impl VisitLog {
    /// Whether a line may be written now, at this rate; and how many could not be before it.
    fn permit(&mut self, rate: u32, now: Instant) -> Option<u64> {
        if rate != self.rate {
            (self.rate, self.bucket) = (rate, TokenBucket::new(rate, rate));
        }
        if self.bucket.take(now) {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

impl Core {
    /// Tells a request and the status of its answer.
    pub(super) fn log_visit(&mut self, id: ConnId, visit: &Visit, status: u16) {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return;
        }
        let Some(suppressed) = self.visit_log.permit(self.live.access_rate, self.now) else {
            self.metrics.log_lines_suppressed_total.add(1);
            return;
        };
        let Visit { method, path, began, .. } = visit;
        let (peer, user) = (self.whence(id).map(tracing::field::display), self.user(id));
        let ms = self.now.since(*began).as_millis();
        let ms = u64::try_from(ms).unwrap_or(u64::MAX);
        let (method, path, shard) = (&**method, &**path, self.id.0);
        tracing::info!(target: TARGET, shard, connection = %id.of(self.id), peer, user, method, path, status, ms, suppressed, "request");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_stands_first() {
        assert_eq!(status_of(b"HTTP/1.1 404 Not Found\r\n"), Some(404));
        for status in [200, 204, 304, 404, 500, 401, 429, 101] {
            let mut head = Vec::new();
            http2::response::write_head(http2::StreamId(1), status, [].into_iter(), true, &mut head);
            assert_eq!(status_of(&head), Some(status));
        }
        assert_eq!((status_of(b""), status_of(b"HTTP/1.1 2"), status_of(b"hello")), (None, None, None));
    }

    #[test]
    fn lines_are_rationed_by_a_rate_that_may_change() {
        let mut log = VisitLog::default();
        let permitted =
            |log: &mut VisitLog, rate| (0..100).filter(|_| log.permit(rate, Instant::ZERO).is_some()).count();
        assert_eq!(permitted(&mut log, 10), 10);
        assert_eq!(permitted(&mut log, 20), 20);
        assert_eq!(log.permit(20, Instant::from_millis(1000)), Some(80));
    }
}
