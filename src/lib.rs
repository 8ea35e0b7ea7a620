//! Holdline holds millions of long-lived connections on one Linux machine and moves messages between them.

pub mod app;
pub mod buf;
pub mod cli;
pub mod close;
pub mod codec;
pub mod config;
pub mod hub;
pub mod id;
pub mod io;
pub mod mailbox;
pub mod message;
pub mod metrics;
pub mod rate;
pub mod rule;
pub mod server;
pub mod session;
pub mod shard;
pub mod sim;
pub mod time;
pub mod wheel;
