//! The `echo` application.
