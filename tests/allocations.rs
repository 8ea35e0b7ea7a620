//! The memory budgets, proven with an allocator that counts what shards do: no allocation for an echoed message, one
//! for a publication, none for a file in memory, and few bytes for an idle connection.

#![allow(unsafe_code, reason = "an allocator that counts is unsafe by its trait; it adds nothing to the system's own")]
#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

mod common;

mod allocations {
    pub mod counting;
    pub mod idle;
    pub mod messages;
    pub mod presence;
    pub mod requests;
}
