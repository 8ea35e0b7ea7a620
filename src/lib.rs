//! Holdline holds millions of long-lived connections on one Linux machine and moves messages between them.
//!
//! It is a library, and the program `holdline` on top of it. To build a server of your own, start at [`app`], which has
//! a whole application in its docs, and [`server`], which serves it. This page is how the inside fits together.
//!
//! # One thread, one shard
//!
//! One thread per core runs one [shard]. A shard owns a [backend](io), a table of connections, a [timing wheel](wheel),
//! its part of the subscriptions, and a [mailbox]. No lock and no shared mutable state lies on any message's way. A
//! connection belongs to one shard for life, and while it is idle it is a slot in the shard's table and the kernel's
//! socket: no task, no buffer, no timer object.
//!
//! A [topic](message::Topic) belongs to one owner shard, chosen by its name, which gives each publication its
//! [offset](message::Offset) and knows which shards have subscribers; so every subscriber sees one order.
//!
//! # The way of a message
//!
//! ```text
//!  socket -> backend lends bytes -> session finds frames in place -> handler says publish
//!         -> one copy into a shared message -> owner shard: its offset
//!         -> each interested shard: its members -> one frame per wire format, shared -> socket
//! ```
//!
//! Only an unfinished frame is copied into its connection on the way in. On the way out the frame goes straight from
//! the shared allocation to the socket; a connection has a [queue](buf) only after the kernel took less than all.
//!
//! # The past
//!
//! The owner keeps a topic's last messages ([`hub::history`]): the same shared allocations that were fanned out. A subscriber
//! that asks for some of them joins its shard's members without taking part, and asks the owner; the answer comes through the
//! queue of the live messages, so it parts them at exactly the place where the past ends, and from there on the member takes
//! part. What is lost is told (a reset), never passed over. A stream of events does so even when it begins with now: that is
//! how it knows the place that it can be resumed at.
//!
//! Requests that depend on an owner (a publication that wants to know its place, a long poll, a look into the history) wait
//! on their connection, which is not read meanwhile. A queue group is a set of members like a topic's own, but each of its
//! messages goes to one: the owner chooses the shard, and the shard a member that has nothing queued.
//!
//! A durable topic's publication gets its place at once and is kept, handed out and acknowledged only when the
//! [journal] has it on the disk: nobody hears of what a crash could take back. Places are taken in the order in which they were
//! given; where the disk fails, all that waits is refused and its places are given again.
//!
//! # Streams inside connections
//!
//! A connection that begins with HTTP/2's preface bears streams, and each stream has an entry of its own in the table: a
//! route, subscriptions, a queue, a timer. So a request, a stream of events, a file, a WebSocket (RFC 8441) and a gRPC call are
//! on a stream what they are on a connection, and nothing above knows the difference. Only the bytes take another way: what
//! comes is found by the [session](session::http2) of the connection that bears it, and what goes is framed as far as the
//! windows reach; the rest waits in the stream's own queue, under the bound and the policy that every queue has.
//!
//! Heads are stored as HTTP/1.1 has them, after the rules of HTTP/2 have been checked; so there is one reader of requests.
//! A gRPC call is a handler like any other: its messages are messages, and what it is told beside them (half-closes,
//! publications that have their place) every handler can be told.
//!
//! # Operators
//!
//! What operators want of connections and topics comes to each shard as [orders](shard::orders), through a queue beside the
//! mail, and is worked off in a part of each turn; a thread of the [server] puts their answers together.
//!
//! What a receiver elsewhere wants to know, shards tell as [events](hooks): each pushes them into a bounded queue and goes on,
//! and counts what has no room. A thread of the [server] makes batches of them and posts those until they are taken.
//!
//! # Layers
//!
//! Folders are layers, and imports go down only; `tests/layering.rs` reads them and fails otherwise.
//!
//! ```text
//!  cli                                 flags and the terminal
//!  server   swarm   doctor   logging   shards on threads, admin pages, signals; a crowd of clients; what limits a machine;
//!                                      the log
//!  io::epoll   io::uring   sim         what implements the port: two kernels' interfaces and a simulated network
//!  io::tun                             and clients without sockets, for load
//!  io::proxy   io::tls                 and what goes between a kernel and a shard: the PROXY protocol, TLS
//!  shard                               the turn, the only place that sees all below; generic over the backend
//!  app                                 what a route does: echo, chat, topic, files, and handlers of your own
//!  session   hub   buf                 protocol state machines; who subscribes to what, and the past; outgoing queues;
//!  journal   cluster   hooks           what durable topics have on the disk; what nodes say to each other; what
//!                                      receivers elsewhere are told
//!  message   mailbox                   a topic, a payload and its frames; queues between shards
//!  codec   io                          bytes to frames and back; the port: what a kernel must offer
//!  id   wheel                          names for what lives in tables; timers
//!  time   close   config   metrics   host   what all others may use
//!  access                              tokens and keys, and what they allow
//! ```
//!
//! [`io`] is both the port, which is low because everything that sends or wakes is written against it, and the folder
//! of its implementations, which are high because only the server chooses one.
//!
//! Only the backends, the server and the command line touch sockets, clocks and threads. Hence the [simulation](sim)
//! runs the same shards as the server does, with a network, a clock and faults that follow from a seed.
//!
//! # Bounds
//!
//! Everything that a peer can make the server keep or do is bounded by [`config::Limits`]. Whoever does not read is
//! closed or misses messages as the route says ([`app::SlowConsumer`]), and a full mailbox is back-pressure to those
//! who publish.

pub mod access;
pub mod app;
pub mod buf;
pub mod cli;
pub mod close;
pub mod cluster;
pub mod codec;
pub mod config;
pub mod doctor;
pub mod hooks;
pub mod host;
pub mod hub;
pub mod id;
pub mod io;
pub mod journal;
pub mod logging;
pub mod mailbox;
pub mod message;
pub mod metrics;
pub mod rate;
pub mod rule;
pub mod server;
pub mod session;
pub mod shard;
pub mod sim;
pub mod swarm;
pub mod time;
pub mod wheel;

/// The README's example is compiled with the doc tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
