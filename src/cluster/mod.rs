//! More than one machine: what nodes say to each other about topics.
//!
//! Nodes of a cluster share topics over NATS. There is no leader and no list of nodes: each one hears the topics that it
//! holds, and what is published on any of them reaches all that hold the topic.
//!
//! ```text
//!   plain topics     owner shard: place, members here --> NATS subject --> owner shards of other nodes: place, members there
//!   durable topics   owner shard --> JetStream stream: the place --> owner shards of all nodes that hold it: members
//! ```
//!
//! A *plain* topic has an order, an epoch and a past on each node, and is published in each publisher's order. Messages have
//! numbers by their origin ([`port::Said`]), so that whoever missed one knows it, and says so to its members.
//!
//! A *durable* topic is a stream of its own: its offsets are the stream's sequence numbers, 1, 2, 3, ..., its epoch is the time
//! at which the stream was made, and so both are the same on every node.
//!
//! This part knows no sockets. [`port`] is how shards and the cluster's thread talk, [`names`] and [`envelope`] are what the
//! thread says to NATS; the thread is the server's.

pub mod envelope;
pub mod names;
pub mod port;
pub mod presence;
