//! permessage-deflate without context takeover: one compressor and one inflater serve a whole shard.

/// Compresses messages, each on its own.
#[derive(Debug, Default)]
pub struct Deflater {}

/// Inflates messages, each on its own.
#[derive(Debug, Default)]
pub struct Inflater {}
