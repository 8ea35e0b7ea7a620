//! Spans to a collector: OTLP over HTTP, as JSON.
//!
//! Shards tell spans as events of [`TARGET`]; here they go into a bounded queue, from which a thread sends them. When the
//! collector is slow or away, spans are lost and counted; nothing waits for it. The protocol is a POST of JSON, small enough to
//! be written here: no other crate comes with it.

mod export;
mod json;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::config::Endpoint;
pub(super) use crate::shard::spans::TARGET;

/// One span, as it was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Span {
    name: String,
    trace_id: String,
    span_id: String,
    parent_id: String,
    topic: String,
    begin_ns: u64,
    end_ns: u64,
    offset: u64,
    reached: u64,
    shard: u64,
}

impl Visit for Span {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "begin_ns" => self.begin_ns = value,
            "end_ns" => self.end_ns = value,
            "offset" => self.offset = value,
            "reached" => self.reached = value,
            "shard" => self.shard = value,
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "name" => value.clone_into(&mut self.name),
            "topic" => value.clone_into(&mut self.topic),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "trace_id" => self.trace_id = format!("{value:?}"),
            "span_id" => self.span_id = format!("{value:?}"),
            "parent_id" => self.parent_id = format!("{value:?}"),
            _ => {}
        }
    }
}

/// What the thread is told.
enum Item {
    Span(Span),
    /// To send what it has, and say so.
    Flush(SyncSender<()>),
}

/// The way of spans to the thread.
#[derive(Clone)]
pub(super) struct Exporter {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

impl Exporter {
    /// Spans that may wait, some 300 bytes each.
    const WAITING_MAX: usize = 4096;

    /// A thread that sends to `endpoint`; `None` when there is no thread to be had.
    pub(super) fn start(endpoint: &Endpoint) -> Option<Self> {
        let (queue, items) = sync_channel(Self::WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let sender = export::Sender::new(endpoint.clone(), Arc::clone(&lost));
        let spawned = thread::Builder::new().name("otlp".to_owned()).spawn(move || sender.run(&items));
        spawned.ok().map(|_| Self { queue, lost })
    }

    /// Waits until what waits is sent, or for so long.
    pub(super) fn flush(&self, most: Duration) {
        let until = Instant::now() + most;
        let (done, is_done) = sync_channel(1);
        if self.queue.try_send(Item::Flush(done)).is_ok() {
            let _ = is_done.recv_timeout(until.saturating_duration_since(Instant::now()));
        }
    }
}

impl<S: Subscriber> Layer<S> for Exporter {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut span = Span::default();
        event.record(&mut span);
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Item::Span(span)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
