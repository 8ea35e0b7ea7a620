//! What becomes of panics.

use std::any::Any;
use std::panic;
use std::sync::{Mutex, PoisonError};

use crate::rate::TokenBucket;
use crate::time::{Clock, SystemClock};

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
