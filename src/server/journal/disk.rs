//! What the journal asks of a disk: a seam, so that tests can have one that fails.

use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::super::ring::fs::{self, File, OpenOptions};
use crate::journal::record::HEADER_BYTES as RECORD_BYTES;

/// Modes of `fallocate` (linux/falloc.h): the size of the file stays as it is; what is there is given back, and read as zeros.
const KEEP_SIZE: i32 = 1;
const PUNCH_HOLE: i32 = 2;

/// Files of one directory. Names have no slashes.
pub(super) trait Disk: 'static {
    /// An open file.
    type File: 'static;

    /// Makes a file, empty; one of the same name is emptied.
    async fn create(&self, name: &str) -> io::Result<Self::File>;
    /// Writes all of it. The bytes come back.
    async fn write(&self, file: &Self::File, bytes: Vec<u8>, at: u64) -> (io::Result<()>, Vec<u8>);
    /// Returns when what was written, and how long the file is, is safe.
    async fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Looks whether there is room for so many bytes, and takes it.
    async fn take_room(&self, file: &Self::File, at: u64, bytes: u64) -> io::Result<()>;
    /// Has so many bytes read as zeros, and gives their room back. It needs none.
    async fn erase(&self, file: &Self::File, at: u64, bytes: u64) -> io::Result<()>;
    /// Opens a file to read it.
    async fn open(&self, name: &str) -> io::Result<Self::File>;
    /// Reads so many bytes or up to the end.
    async fn read(&self, file: &Self::File, at: u64, bytes: usize) -> io::Result<Vec<u8>>;
    /// Puts a file in the place of another one.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    async fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when names that were made, changed and removed are safe.
    async fn sync_names(&self) -> io::Result<()>;
}

/// The real one, through io_uring.
#[derive(Clone)]
pub(super) struct Ring {
    path: Rc<Path>,
    directory: Rc<File>,
}

impl Ring {
    /// The directory must be there.
    pub(super) async fn open(path: PathBuf) -> io::Result<Self> {
        let directory = Rc::new(File::open(&path).await?);
        Ok(Self { path: path.into(), directory })
    }
}

impl Disk for Ring {
    type File = File;

    async fn create(&self, name: &str) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path.join(name)).await
    }

    async fn write(&self, file: &File, bytes: Vec<u8>, at: u64) -> (io::Result<()>, Vec<u8>) {
        file.write_all_at(bytes, at).await
    }

    async fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data().await
    }

    async fn take_room(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        match file.fallocate(at, bytes, KEEP_SIZE).await {
            // Some filesystems cannot: then the next write tells.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            result => result,
        }
    }

    async fn erase(&self, file: &File, at: u64, bytes: u64) -> io::Result<()> {
        match file.fallocate(at, bytes, PUNCH_HOLE | KEEP_SIZE).await {
            // Some filesystems cannot: zeros do for a record's head, and the rest cannot be read then.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                file.write_all_at(vec![0; RECORD_BYTES.min(usize::try_from(bytes).unwrap_or(0))], at).await.0
            }
            result => result,
        }
    }

    async fn open(&self, name: &str) -> io::Result<File> {
        File::open(self.path.join(name)).await
    }

    async fn read(&self, file: &File, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while all.len() < bytes {
            let room = Vec::with_capacity(bytes - all.len());
            let (result, mut part) = file.read_at(room, at + all.len() as u64).await;
            part.truncate(result?);
            if part.is_empty() {
                break;
            }
            if all.is_empty() { all = part } else { all.append(&mut part) }
        }
        Ok(all)
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to)).await
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name)).await
    }

    async fn sync_names(&self) -> io::Result<()> {
        self.directory.sync_all().await
    }
}
