//! What writes: one segment after the other, one commit at a time.

use std::io;

use super::disk::Disk;
use super::names;
use crate::journal::segment::{HEADER_BYTES, Header};

/// Bytes that there must be room for when it is tried again after a failure.
const ROOM: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// The segment that is written.
struct Segment<F> {
    number: u64,
    file: F,
}

/// The end of what is safe on the disk.
pub(super) struct Pen<D: Disk> {
    disk: D,
    segment: Option<Segment<D::File>>,
}

/// What is to be written with one write and made safe with one sync.
#[derive(Debug, Default)]
pub(super) struct Commit {
    /// The segment that it belongs to. If that is another one than before, this begins it.
    pub(super) header: Header,
    /// Where it begins.
    pub(super) position: u64,
    /// The records.
    pub(super) bytes: Vec<u8>,
}

impl<D: Disk> Pen<D> {
    /// That has not written yet.
    pub(super) const fn new(disk: D) -> Self {
        Self { disk, segment: None }
    }

    /// Writes a commit. When it returns well, all of it is safe; else none of it is to be found again, as far as the disk can be
    /// had to do that.
    pub(super) async fn commit(&mut self, commit: &mut Commit) -> io::Result<()> {
        let segment = match self.segment.take().filter(|segment| segment.number == commit.header.number) {
            Some(segment) => segment,
            None => self.begin(commit.header).await?,
        };
        if let Err(error) = self.write(&segment.file, commit).await {
            // It is not written to again, and the header that says how long it is may not be for long: a full disk has no room
            // for another segment.
            let erased = self.disk.erase(&segment.file, commit.position, commit.bytes.len() as u64).await;
            if erased.is_ok() {
                let _ = self.disk.sync(&segment.file).await;
            }
            return Err(error);
        }
        self.segment = Some(segment);
        Ok(())
    }

    async fn write(&self, file: &D::File, commit: &mut Commit) -> io::Result<()> {
        let (result, bytes) = self.disk.write(file, std::mem::take(&mut commit.bytes), commit.position).await;
        commit.bytes = bytes;
        result?;
        self.disk.sync(file).await
    }

    /// Looks whether a new segment can be had and written to, and begins it.
    pub(super) async fn try_again(&mut self, header: Header) -> io::Result<()> {
        self.segment = None;
        let segment = self.begin(header).await?;
        self.disk.take_room(&segment.file, HEADER_BYTES as u64, ROOM).await?;
        self.segment = Some(segment);
        Ok(())
    }

    async fn begin(&self, header: Header) -> io::Result<Segment<D::File>> {
        let name = names::segment(header.number);
        let file = self.disk.create(&name).await?;
        let (result, _) = self.disk.write(&file, header.to_bytes().to_vec(), 0).await;
        result?;
        self.disk.sync(&file).await?;
        self.disk.sync_names().await?;
        Ok(Segment { number: header.number, file })
    }
}
