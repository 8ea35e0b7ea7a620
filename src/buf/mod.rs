//! Buffers that connections have only while they need them.

mod outbox;

pub use outbox::{Next, Outbox, Outboxes};
