//! Messages of the files under `proto`, as `tests/proto.rs` generates them.
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated; documented in the files under `proto`")]

#[rustfmt::skip]
pub mod edge;
#[rustfmt::skip]
pub mod health;
#[rustfmt::skip]
pub mod reflection;

/// A `FileDescriptorSet` with all files and nothing of their text.
pub const DESCRIPTORS: &[u8] = include_bytes!("descriptors.bin");
