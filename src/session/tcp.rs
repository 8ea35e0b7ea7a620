//! The raw TCP sessions: lines and lengths.
