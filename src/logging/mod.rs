//! The log of the process: lines on standard error, as text or as JSON, filtered by levels that may change.
//!
//! Who logs never waits: lines go through a bounded queue to a thread that writes them, see `writer`. What peers can
//! cause is rationed where it is said (`shard::log`), so that the queue is only full when nobody reads standard error.
//! Spans of traces go to a collector too, where one is named, whatever the level: see `otlp`.

mod otlp;
mod writer;

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Config, LogFilter, LogFormat};
use otlp::Exporter;
use writer::Lines;

/// What of the process's log can be reached again.
struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
    lines: Lines,
    exporter: Option<Exporter>,
}

static LOG: OnceLock<Log> = OnceLock::new();

/// Sends log lines to standard error, and spans to the collector. A program that embeds this one can have a logger already; that one stays, and so
/// does the first of two.
pub fn start(config: &Config) {
    let lines = Lines::start(config.log_format == LogFormat::Json);
    let (filter, handle) = reload::Layer::new(env_filter(&config.log_filter));
    let exporter = config.collector.as_ref().and_then(Exporter::start);
    let spans = exporter
        .clone()
        .map(|exporter| exporter.with_filter(Targets::new().with_target(otlp::TARGET, tracing::Level::DEBUG)));
    let log = Registry::default().with(layer(config.log_format, &lines).with_filter(filter)).with(spans);
    if log.try_init().is_ok() {
        let _ = LOG.set(Log { filter: handle, lines, exporter });
    }
}

/// Changes which lines are written. Nothing happens where the log is another program's.
pub fn follow(filter: &LogFilter) {
    if let Some(log) = LOG.get() {
        let _ = log.filter.reload(env_filter(filter));
    }
}

/// Waits until all lines are written, but not long: whoever should read them may have stopped.
pub fn flush() {
    if let Some(log) = LOG.get() {
        if let Some(exporter) = &log.exporter {
            exporter.flush(Duration::from_secs(2));
        }
        log.lines.flush(Duration::from_secs(1));
    }
}

fn env_filter(filter: &LogFilter) -> EnvFilter {
    // What NATS' client says of itself is said in this program's own words; whoever wants to read it names it.
    let quiet = if filter.as_str().contains("async_nats") { "" } else { "async_nats=off," };
    // It was read once already, when it became a filter.
    EnvFilter::try_new(format!("{quiet}{}", filter.as_str())).unwrap_or_default()
}

fn layer<S>(format: LogFormat, lines: &Lines) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    // A closed standard error is nobody's fault; the logger must not panic over it.
    let layer = fmt::layer().with_writer(lines.clone()).log_internal_errors(false);
    match format {
        LogFormat::Text => layer.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    }
}
