//! What can be set: one typed model, with the defaults that README.md lists.

mod limits;

pub use limits::Limits;
