//! The thread that posts spans.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Item, Span, json};
use crate::config::Endpoint;

/// Posts spans, some of them at a time.
pub(super) struct Sender {
    endpoint: Endpoint,
    /// Spans that found no room in the queue.
    lost: Arc<AtomicU64>,
    /// When it was last told that some were lost.
    told: Option<Instant>,
}

/// What a collector made of a request.
enum Outcome {
    Taken,
    /// It may take it later.
    Later(String),
    /// It never will.
    Never(String),
}

impl Sender {
    /// Spans of one request.
    const BATCH_MAX: usize = 512;
    /// Time that the first span of a batch waits for others.
    const GATHERING: Duration = Duration::from_secs(1);
    /// Time for each step of a request.
    const TIME: Duration = Duration::from_secs(5);
    /// Times that a request is made, and the wait before the second; it doubles each time.
    const TRIES: u32 = 4;
    const WAIT: Duration = Duration::from_millis(250);
    /// Bytes of an answer that are looked at.
    const ANSWER_BYTES_MAX: u64 = 4096;
    /// Between two lines about what is lost.
    const QUIET: Duration = Duration::from_secs(10);

    pub(super) const fn new(endpoint: Endpoint, lost: Arc<AtomicU64>) -> Self {
        Self { endpoint, lost, told: None }
    }

    /// Until nobody can tell spans any more.
    pub(super) fn run(mut self, items: &Receiver<Item>) {
        while let Ok(first) = items.recv() {
            let mut flush = None;
            let batch = gather(first, items, &mut flush);
            if !batch.is_empty() {
                self.send(&batch);
            }
            if let Some(done) = flush {
                let _ = done.try_send(());
            }
        }
    }

    fn send(&mut self, batch: &[Span]) {
        let body = json::request(batch);
        let mut wait = Self::WAIT;
        let mut why = String::new();
        for attempt in 1..=Self::TRIES {
            why = match self.post(&body) {
                Ok(Outcome::Taken) => {
                    return self.tell(0, "the queue was full");
                }
                Ok(Outcome::Never(why)) => {
                    return self.tell(batch.len(), &why);
                }
                Ok(Outcome::Later(why)) => why,
                Err(error) => error.to_string(),
            };
            if attempt < Self::TRIES {
                thread::sleep(wait);
                wait *= 2;
            }
        }
        self.tell(batch.len(), &why);
    }

    /// Counts what is lost, and says so now and then.
    fn tell(&mut self, more: usize, why: &str) {
        let lost = self.lost.fetch_add(more as u64, Ordering::Relaxed) + more as u64;
        if lost == 0 || self.told.is_some_and(|told| told.elapsed() < Self::QUIET) {
            return;
        }
        self.lost.fetch_sub(lost, Ordering::Relaxed);
        self.told = Some(Instant::now());
        tracing::warn!(lost, why, endpoint = %self.endpoint, "spans did not reach the collector");
    }

    /// One request on a connection of its own: there is about one a second.
    fn post(&self, body: &str) -> io::Result<Outcome> {
        let Endpoint { authority, path } = &self.endpoint;
        let address = authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
        let mut stream = TcpStream::connect_timeout(&address, Self::TIME)?;
        stream.set_read_timeout(Some(Self::TIME))?;
        stream.set_write_timeout(Some(Self::TIME))?;
        let length = body.len();
        let head = format!(
            "POST {path}/v1/traces HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(Self::ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(outcome(&answer))
    }
}

/// What an answer says. The statuses that a client may try again are those of the specification (OTLP/HTTP, Failures).
fn outcome(answer: &[u8]) -> Outcome {
    let status = answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    match status {
        Some(200..=299) => Outcome::Taken,
        Some(status @ (429 | 502 | 503 | 504)) => Outcome::Later(format!("the collector answered {status}")),
        Some(status) => Outcome::Never(format!("the collector answered {status}")),
        None => Outcome::Never("the answer was no HTTP/1.1".to_owned()),
    }
}

/// Takes what comes for a while, or until a batch is full.
fn gather(first: Item, items: &Receiver<Item>, flush: &mut Option<SyncSender<()>>) -> Vec<Span> {
    let (mut batch, until) = (Vec::new(), Instant::now() + Sender::GATHERING);
    let mut next = Ok(first);
    loop {
        match next {
            Ok(Item::Span(span)) => batch.push(span),
            Ok(Item::Flush(done)) => {
                *flush = Some(done);
                return batch;
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return batch,
        }
        if batch.len() >= Sender::BATCH_MAX {
            return batch;
        }
        next = items.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    use tracing_subscriber::layer::SubscriberExt;

    use super::super::{Exporter, TARGET};
    use super::*;

    /// A collector that answers requests with these statuses, one after the other, and returns their bodies.
    fn collector(statuses: &'static [u16]) -> (Endpoint, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/base", listener.local_addr().unwrap()).parse().unwrap();
        let answer = move |status: &u16| {
            let mut reader = BufReader::new(listener.accept().unwrap().0);
            let (mut line, mut length) = (String::new(), 0);
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "POST /base/v1/traces HTTP/1.1\r\n");
            while line != "\r\n" {
                line.clear();
                reader.read_line(&mut line).unwrap();
                if let Some(value) = line.strip_prefix("Content-Length: ") {
                    length = value.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            write!(reader.get_mut(), "HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n{{}}").unwrap();
            String::from_utf8(body).unwrap()
        };
        (endpoint, thread::spawn(move || statuses.iter().map(answer).collect()))
    }

    fn tell_span() {
        tracing::debug!(
            target: TARGET, name = "publish", trace_id = format_args!("{:032x}", 10), span_id = format_args!("{:016x}", 11),
            parent_id = format_args!("{:016x}", 12), begin_ns = 5_u64, end_ns = 6_u64, topic = "news", offset = 7_u64,
            reached = 8_u64, shard = 9_u16, "span"
        );
    }

    #[test]
    fn spans_reach_a_collector_that_is_busy_at_first() {
        let (endpoint, requests) = collector(&[503, 200]);
        let exporter = Exporter::start(&endpoint).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(exporter.clone()), || {
            tell_span();
            tell_span();
        });
        exporter.flush(Duration::from_secs(20));
        let bodies = requests.join().unwrap();
        assert_eq!(bodies[0], bodies[1]);
        let body: serde_json::Value = serde_json::from_str(&bodies[1]).unwrap();
        let spans = &body["resourceSpans"][0]["scopeSpans"][0]["spans"];
        assert_eq!(spans.as_array().unwrap().len(), 2);
        let span = &spans[0];
        assert_eq!(span["traceId"], "0000000000000000000000000000000a");
        assert_eq!((&span["spanId"], &span["parentSpanId"]), (&"000000000000000b".into(), &"000000000000000c".into()));
        assert_eq!((&span["startTimeUnixNano"], &span["endTimeUnixNano"]), (&"5".into(), &"6".into()));
        assert_eq!((&span["name"], &span["kind"]), (&"publish news".into(), &4.into()));
        assert_eq!(span["attributes"][3]["value"]["intValue"], "7");
        let service = &body["resourceSpans"][0]["resource"]["attributes"][0];
        assert_eq!((&service["key"], &service["value"]["stringValue"]), (&"service.name".into(), &"holdline".into()));
    }

    #[test]
    fn what_a_collector_does_not_take_is_counted() {
        let (endpoint, requests) = collector(&[400]);
        let lost = Arc::new(AtomicU64::new(0));
        let mut sender = Sender::new(endpoint, Arc::clone(&lost));
        sender.told = Some(Instant::now());
        sender.send(&[Span::default(), Span::default()]);
        assert_eq!((requests.join().unwrap().len(), lost.load(Ordering::Relaxed)), (1, 2), "it is not asked again");
    }

    #[test]
    fn a_full_queue_loses_spans_and_nobody_waits() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let exporter = Exporter::start(&endpoint).unwrap();
        // Nobody answers: the thread waits for its first batch.
        let told = 2 * Exporter::WAITING_MAX + Sender::BATCH_MAX;
        tracing::subscriber::with_default(tracing_subscriber::registry().with(exporter.clone()), || {
            (0..told).for_each(|_| tell_span());
        });
        let lost = usize::try_from(exporter.lost.load(Ordering::Relaxed)).unwrap();
        assert!((told - Exporter::WAITING_MAX - 2 * Sender::BATCH_MAX..told).contains(&lost), "{lost}");
    }

    #[test]
    fn answers() {
        assert!(matches!(outcome(b"HTTP/1.1 200 OK\r\n"), Outcome::Taken));
        assert!(matches!(outcome(b"HTTP/1.1 429 Slow\r\n"), Outcome::Later(_)));
        for never in [&b"HTTP/1.1 404 No\r\n"[..], b"", b"HTTP/1.1 2", b"SSH-2.0"] {
            assert!(matches!(outcome(never), Outcome::Never(_)));
        }
    }
}
