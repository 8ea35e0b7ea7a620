//! A tree of files that is gone with the test.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::tree::Tree;

/// A root with a /proc and a /sys of the test's own.
pub(crate) struct FakeTree(PathBuf);

impl FakeTree {
    pub(crate) fn new(name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("holdline-host-{}-{number}-{name}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    /// Adds or replaces a file.
    pub(crate) fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Adds a folder where a file is expected: opening works, reading fails.
    pub(crate) fn unreadable(self, path: &str) -> Self {
        std::fs::create_dir_all(self.0.join(path)).unwrap();
        self
    }

    pub(crate) fn root(&self) -> &std::path::Path {
        &self.0
    }

    pub(crate) fn tree(&self) -> Tree {
        Tree::new(&self.0)
    }
}

impl Drop for FakeTree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
