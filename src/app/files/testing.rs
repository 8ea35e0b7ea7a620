//! A file to test with.

#![allow(clippy::unwrap_used, reason = "a test that cannot get what it needs has failed")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::open::{Found, Root};
use super::{Reader, Slice};

/// A directory that goes with its value.
pub(super) struct Folder(pub(super) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The whole of a new file, named `file`.
pub(super) fn slice_of(bytes: &[u8]) -> (Folder, Slice) {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = Folder(std::env::temp_dir().join(format!("holdline-files-{}-{number}", std::process::id())));
    std::fs::create_dir_all(&folder.0).unwrap();
    std::fs::write(folder.0.join("file"), bytes).unwrap();
    let Some(Found::File(file)) = Root::open(&folder.0).unwrap().find("file") else { panic!("it is there") };
    let slice = Slice { file: Arc::new(file), start: 0, length: bytes.len() as u64, reader: Reader::start().unwrap() };
    (folder, slice)
}
