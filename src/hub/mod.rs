//! Who subscribed to what, and what is kept of it: no bytes, no sockets, no clock.
//!
//! Every shard has both halves. [`Members`] knows this shard's subscribers of each topic. [`Topics`] holds the topics
//! that this shard owns: it gives each publication its place, keeps it for those who come later, and knows which shards
//! have subscribers.

mod audience;
pub mod group;
pub mod history;
mod local;
pub mod member;
pub mod members;
mod past;
pub mod presence;
mod ruling;
#[cfg(test)]
mod testing;
pub mod topics;

pub use group::Group;
pub use member::Member;
pub use members::{Members, TopicKey};
pub use topics::{Start, Topics};
