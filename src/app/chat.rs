//! The `chat` application.
