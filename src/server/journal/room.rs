//! Room on a disk that is full.
//!
//! Most of what fills it may be the journal's own and not needed any more, but a segment that has one needed message is written
//! anew before it goes, and that takes room too. So a file without content keeps some, which is given back for just that:
//! what fits into it is written first, and each file that goes makes room for the next one.

use std::cell::Cell;
use std::io;

use super::disk::Disk;
use super::keeper::{Keeper, Stays};
use super::{names, unix_ms};
use crate::journal::census::{Bounds, Step};

/// The file that keeps room.
pub(super) struct Reserve {
    bytes: u64,
    is_there: Cell<bool>,
    /// The log was told that it cannot be had.
    is_missed: Cell<bool>,
}

impl Reserve {
    /// The part of a segment that is kept.
    const PART: u64 = 8;

    pub(super) const fn new(bounds: &Bounds) -> Self {
        let bytes = bounds.segment_bytes / Self::PART;
        Self { bytes, is_there: Cell::new(false), is_missed: Cell::new(false) }
    }

    /// Takes its room, if it is there.
    pub(super) async fn keep<D: Disk>(&self, disk: &D) -> io::Result<()> {
        if self.is_there.get() {
            return Ok(());
        }
        let file = disk.create(names::RESERVE).await?;
        let taken = disk.take_room(&file, 0, self.bytes).await;
        drop(file);
        if taken.is_err() {
            let _ = disk.remove(names::RESERVE).await;
        }
        self.is_there.set(taken.is_ok());
        taken
    }

    /// Gives it to whoever writes now, and says how much.
    async fn give<D: Disk>(&self, disk: &D) -> io::Result<u64> {
        if !self.is_there.replace(false) {
            return Ok(0);
        }
        match disk.remove(names::RESERVE).await {
            Ok(()) => Ok(self.bytes),
            // Somebody else has given it, to whomever.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }
}

impl<D: Disk> Keeper<D> {
    /// The part of a segment for which room is looked for where none is reserved.
    const TRIED: u64 = 64;

    /// Takes the room of the reserve, if there is that much.
    pub(super) async fn keep_reserve(&self) {
        if !self.shared.is_working.get() {
            return;
        }
        let kept = self.reserve.keep(&self.disk).await;
        if let Err(error) = &kept
            && !self.reserve.is_missed.get()
        {
            let bytes = self.reserve.bytes;
            tracing::warn!(%error, bytes, "the disk has no room for the journal's reserve: once it is full it may stay that");
        }
        self.reserve.is_missed.set(kept.is_err());
    }

    /// Makes room where nothing can be written because there is none: removes what is not needed, and puts together what takes
    /// no more room than there is.
    pub(super) async fn make_room(&self) -> Result<(), Stays> {
        let _room = self.shared.room.lock().await;
        if self.shared.is_working.get() {
            return Ok(());
        }
        self.weigh_all().await;
        let before = self.shared.census.borrow().bytes();
        let made = self.shrink(before).await;
        // Where nothing was made, it takes back what it gave.
        let _ = self.reserve.keep(&self.disk).await;
        let bytes = before.saturating_sub(self.shared.census.borrow().bytes());
        if bytes > 0 {
            tracing::info!(bytes, "the disk is full: the journal has made room on it");
        }
        made
    }

    async fn shrink(&self, before: u64) -> Result<(), Stays> {
        // What did not reach the disk whole has given its room back, so that some may be there without a reserve.
        let reserved = self.reserve.give(&self.disk).await?.max(self.shared.bounds.segment_bytes / Self::TRIED);
        while !self.ending.is_told() {
            let step = {
                let census = self.shared.census.borrow();
                let room = reserved + before.saturating_sub(census.bytes());
                census.next_step_within(room, &self.shared.bounds, unix_ms())
            };
            match step {
                Some(Step::Join(segments)) => self.try_to_join(&segments).await,
                Some(Step::Remove(segment)) => self.remove(segment).await?,
                Some(Step::Lose(_)) | None => break,
            }
            self.shared.measure();
        }
        Ok(())
    }
}
