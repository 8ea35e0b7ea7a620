//! The `topic` application.
