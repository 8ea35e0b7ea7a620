//! Log lines on standard error, and what becomes of panics.

use std::any::Any;
use std::io;
use std::panic;
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;

use super::Failure;
use crate::config::LogFormat;
use crate::rate::TokenBucket;
use crate::time::{Clock, SystemClock};

/// The variable that says how much is logged, in the syntax of tracing-subscriber's `EnvFilter`.
const FILTER_VARIABLE: &str = "HOLDLINE_LOG";

/// Sends log lines to standard error.
pub(super) fn init(format: LogFormat) -> Result<(), Failure> {
    let filter = std::env::var(FILTER_VARIABLE).unwrap_or_else(|_| "info".to_owned());
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        let mend = "write a level such as info or debug, or a filter such as holdline=trace";
        Failure::usage(format_args!("bad log filter: {error}, environment variable {FILTER_VARIABLE}: {mend}"))
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    // A closed standard error is nobody's fault; the logger must not panic over it.
    let builder = builder.log_internal_errors(false);
    // Only a program that embeds this one can have a logger already; that one stays.
    let _ = match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}

/// A panic becomes one log line, at a bounded rate: a handler that panics at every message must not flood the log.
pub(super) fn install_panic_hook() {
    let clock = SystemClock::new();
    let bucket = Mutex::new(TokenBucket::new(1, 10));
    panic::set_hook(Box::new(move |info| {
        let permitted = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(clock.now());
        if permitted {
            let place = info.location().map(ToString::to_string).unwrap_or_default();
            tracing::error!(place, "internal error: {}", panic_message(info.payload()));
        }
    }));
}

/// What a panic says, in one short line.
pub(super) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    super::one_line(&text.chars().take(500).collect::<String>())
}
