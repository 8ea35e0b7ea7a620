//! HTTP/1.1 messages, RFC 9110 and 9112: request heads in, responses out.

pub mod chunked;
pub mod date;
pub mod head;
pub mod response;
pub mod stream;
pub mod uri;

pub use chunked::{BadChunk, Chunks};
pub use date::Date;
pub use head::{Body, Head, Malformed};
pub use response::{Reply, Version, write_error, write_head, write_page, write_prepared};
pub use uri::Query;
