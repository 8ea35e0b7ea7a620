//! Publishing from threads that are no shard's.

use std::fmt;
use std::sync::Arc;

use crate::message::{Kind, Topic};
use crate::shard::{Control, Postbox};

/// Publishes to a server's topics, from any thread and without ever waiting. Clones share the way.
///
/// A publication goes to the shard that orders its topic, and takes its place there among those of the connections. What
/// one thread publishes to a topic arrives in its order.
#[derive(Clone)]
pub struct Publisher {
    postbox: Postbox,
    control: Arc<Control>,
}

/// Why a message was not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The mailbox of the topic's shard is half full: the other half is for the shards. Try again later.
    #[error("the mailbox of the topic's shard is full; try again later")]
    Full,
    /// Over `message_bytes_max`.
    #[error("the message has {0} bytes, the limit is {1}")]
    TooBig(usize, usize),
    /// The server has ended, or drains and has no clients left.
    #[error("the server has ended")]
    Ended,
}

impl Publisher {
    pub(super) const fn new(postbox: Postbox, control: Arc<Control>) -> Self {
        Self { postbox, control }
    }

    /// The way to the shards.
    pub(super) const fn postbox(&self) -> &Postbox {
        &self.postbox
    }

    /// Sends a message to all subscribers of a topic. The payload is copied, once for all of them. That it went well
    /// says that the topic's shard has it, not that anyone subscribes.
    ///
    /// # Errors
    /// When it was not published, and never will be by itself.
    pub fn publish(&self, topic: &Topic, kind: Kind, payload: &[u8]) -> Result<(), PublishError> {
        if self.control.is_over() {
            return Err(PublishError::Ended);
        }
        let bytes_max = self.control.message_bytes_max();
        if payload.len() > bytes_max {
            return Err(PublishError::TooBig(payload.len(), bytes_max));
        }
        if self.postbox.publish(topic, kind, payload) { Ok(()) } else { Err(PublishError::Full) }
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes_max = self.control.message_bytes_max();
        f.debug_struct("Publisher").field("message_bytes_max", &bytes_max).finish_non_exhaustive()
    }
}
