//! What durable topics have on the disk: its format, and what is known of it.
//!
//! A journal is a directory of [segments](segment), files of [records](record), which form a [chain] and are read one after
//! the other at the start ([`replay`]). A [census] knows which segments are still needed, and which are worth being written
//! anew. [`port`] is how shards have something written.
//!
//! This part knows bytes only. Who opens, writes and removes the files is the server.

pub mod census;
pub mod chain;
pub mod port;
pub mod record;
pub mod replay;
pub mod segment;
