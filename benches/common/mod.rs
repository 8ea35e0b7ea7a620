//! What the whole-server benches share: bare loops to compare with, a load generator, a stopwatch for another process.
//!
//! Nothing here knows the server's code: it starts a program, reads the addresses that the program prints, and talks
//! to it over loopback. The bare loops are started the same way, so that both are measured alike.
//!
//! ```text
//! scenario  echo, connect, fanout, idle, requests: what the clients do, and what of it is measured
//! client    many connections on one thread; each is a direct descriptor of one ring
//! wire      the bytes: HTTP upgrade, WebSocket frames, length-prefixed messages, HTTP answers
//! http2     more of them: frames of HTTP/2, heads of requests, messages of gRPC
//! target    a child process pinned to one core: bare loop or server
//! nginx     another one: the web server to compare with
//! room      a certificate for localhost, and who trusts it
//! bare      the smallest loops that do the same work on raw TCP
//! ring sys  io_uring and the few system calls
//! ```
#![allow(dead_code, unused_imports, reason = "each bench uses its part")]
#![allow(unsafe_code, reason = "bare loops are bare: io_uring and libc without a layer between")]
#![allow(clippy::cast_possible_truncation, reason = "counts and sizes of a bench are small by construction")]

pub(crate) mod bare;
pub(crate) mod client;
pub(crate) mod http2;
pub(crate) mod nginx;
pub(crate) mod report;
pub(crate) mod ring;
pub(crate) mod room;
pub(crate) mod scenario;
pub(crate) mod sys;
pub(crate) mod target;
pub(crate) mod wire;
