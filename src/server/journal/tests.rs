#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod files;
mod keeping;
mod repair;
mod ring;
mod scene;
