//! Who subscribed to what: no bytes, no sockets, no time.
//!
//! Every shard has both halves. [`Members`] knows this shard's subscribers of each topic. [`Topics`] holds the topics
//! that this shard owns: it gives each publication its offset and knows which shards have subscribers.

pub mod members;
pub mod topics;

pub use members::{Member, Members, TopicKey};
pub use topics::Topics;
