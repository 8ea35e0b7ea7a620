//! Files below a root, opened so that nothing leads out of it.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::{Errno, ReadWriteFlags};

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    /// Seconds since 1970, and the rest in nanoseconds.
    pub(super) modified: (i64, i64),
    pub(super) size: u64,
}

impl Stamp {
    fn new(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            size: u64::try_from(stat.st_size).unwrap_or(0),
        }
    }
}

/// An open regular file, and its state when it was opened.
#[derive(Debug)]
pub struct Opened {
    file: File,
    pub(super) stamp: Stamp,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Found {
    File(Opened),
    Directory,
}

/// The directory that is served.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// Links within the root may be followed, but not those of `/proc`, which lead anywhere.
    const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

    /// # Errors
    /// When it is no directory that can be read, or the kernel has no `openat2` (Linux 5.6).
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let directory = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = Self(rustix::fs::open(path, directory, Mode::empty())?);
        rustix::fs::openat2(&root.0, ".", directory, Mode::empty(), Self::RESOLVE)?;
        Ok(root)
    }

    /// What is at a path below the root. Whatever cannot be opened is not there.
    pub(super) fn find(&self, path: &str) -> Option<Found> {
        // A pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.openat(path, flags)?;
        let stat = rustix::fs::fstat(&file).ok()?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Some(Found::File(Opened { file: file.into(), stamp: Stamp::new(&stat) })),
            FileType::Directory => Some(Found::Directory),
            _ => None,
        }
    }

    /// The state of the regular file at a path.
    pub(super) fn stamp(&self, path: &str) -> Option<Stamp> {
        let file = self.openat(path, OFlags::PATH | OFlags::CLOEXEC)?;
        let stat = rustix::fs::fstat(&file).ok()?;
        (FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile).then(|| Stamp::new(&stat))
    }

    fn openat(&self, path: &str, flags: OFlags) -> Option<OwnedFd> {
        // The kernel asks for another try when something was renamed meanwhile.
        (0..3).find_map(|_| match rustix::fs::openat2(&self.0, path, flags, Mode::empty(), Self::RESOLVE) {
            Err(Errno::AGAIN | Errno::INTR) => None,
            other => Some(other.ok()),
        })?
    }
}

/// What a read came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// So many bytes, as many as were asked for.
    Whole,
    /// Only a slow read can get them.
    Cold,
    /// The file is not what it was, or cannot be read.
    Changed,
}

impl Opened {
    /// Fills `room` with what is at `offset`, if that is in memory.
    pub fn read_now(&self, room: &mut [u8], offset: u64) -> Read {
        let mut filled = 0;
        while filled < room.len() {
            let parts = &mut [IoSliceMut::new(&mut room[filled..])];
            match rustix::io::preadv2(&self.file, parts, offset + filled as u64, ReadWriteFlags::NOWAIT) {
                Ok(0) => return Read::Changed,
                Ok(read) => filled += read,
                // A file system that cannot tell is one that may block.
                Err(Errno::AGAIN | Errno::OPNOTSUPP) => return Read::Cold,
                Err(Errno::INTR) => {}
                Err(_) => return Read::Changed,
            }
        }
        self.verdict()
    }

    /// Fills `room` with what is at `offset`, however long that takes.
    pub fn read_slowly(&self, room: &mut [u8], offset: u64) -> Read {
        match std::os::unix::fs::FileExt::read_exact_at(&self.file, room, offset) {
            Ok(()) => self.verdict(),
            Err(_) => Read::Changed,
        }
    }

    /// Looks after a read: what was read before a change is still what was promised.
    fn verdict(&self) -> Read {
        let now = rustix::fs::fstat(&self.file).map(|stat| Stamp::new(&stat));
        if now == Ok(self.stamp) { Read::Whole } else { Read::Changed }
    }
}
