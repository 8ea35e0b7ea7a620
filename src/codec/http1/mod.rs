//! HTTP/1.1 messages, RFC 9110 and 9112: request heads in, responses out.

pub mod head;
pub mod response;
pub mod uri;

pub use head::{Body, Head, Malformed};
pub use response::{Reply, write_error, write_page, write_prepared};
pub use uri::Query;
