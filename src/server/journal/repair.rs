//! Going on with a journal in which something cannot be read.
//!
//! All of it is read first, and what is wrong is salvaged in memory. Then it is written, one whole file after the other:
//!
//! 1. Topics whose last messages may be lost are written again under a newer epoch, behind all other segments.
//! 2. What is wrong is put aside and written anew, from the oldest file on.
//!
//! An ordinary start refuses the journal until the last of these files is in its place, and by then the first step is done:
//! so whenever a repair is ended, no start goes on with such a topic under the epoch that it had. Another repair finds the
//! topics that have been written again behind all holes, and the others as this one did, since no hole goes before they all
//! are written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

use super::JournalError;
use super::names;
use super::open::{NAMED_MAX, Owned};
use crate::journal::chain::Link;
use crate::journal::replay::{Corrupt, Outcome, Replay, check, salvage};
use crate::journal::segment::Header;
use crate::message::Epoch;

/// Bytes from which on a file of topics that are written again is followed by another one.
const RENEWED_BYTES: usize = if cfg!(test) { 1 << 10 } else { 16 << 20 };

/// A repair.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// What is to be written anew, and under which headers.
    wrong: Vec<(Link, Header)>,
    /// The last segment so far, and where it ends.
    last: (u64, u64),
}

impl Repair {
    /// Reads the next segment, or what can be read of it.
    pub(super) fn read(
        &mut self,
        replay: &mut Replay<'_>,
        bytes: &[u8],
        link: &Link,
        header: Header,
    ) -> Result<Outcome, Corrupt> {
        let (previous, before) = self.last;
        if link.missing.is_none() && check(bytes, link.number, link.length).is_ok() {
            let outcome = replay.segment(bytes, link.number, link.length)?;
            self.last = (link.number, outcome.end);
            return Ok(outcome);
        }
        let is_nameless = Header::read(bytes, link.number).is_err();
        if link.missing.is_some() || is_nameless {
            // Nobody knows any more what was in front of it.
            replay.miss();
        }
        let header = Header { previous, before, ..header };
        let salvaged = salvage(bytes, link.length, header);
        self.wrong.push((*link, header));
        self.last = (link.number, salvaged.end);
        let outcome = replay.salvaged(&salvaged, link.number)?;
        if is_nameless && link.length.is_some_and(|length| length < bytes.len() as u64) {
            // What the next one says may be older than this file.
            replay.miss();
        }
        Ok(outcome)
    }

    /// Writes what there is to write, when all has been read.
    pub(super) fn finish(self, owned: &Owned, replay: &mut Replay<'_>, now_ms: u64) -> Result<(), JournalError> {
        self.renew(owned, replay, now_ms)?;
        self.wrong.iter().try_for_each(|(link, header)| mend(owned, link, *header))
    }

    fn renew(&self, owned: &Owned, replay: &mut Replay<'_>, now_ms: u64) -> Result<(), JournalError> {
        // Newer than one that is lost, too: an epoch is the time at which it began.
        let epoch = Epoch(replay.epoch().0.saturating_add(1).max(now_ms));
        let (mut previous, mut before) = self.last;
        loop {
            let number = previous.saturating_add(1);
            let header = Header { number, created_ms: now_ms, previous, before, length: 0, epoch };
            let Some(bytes) = replay.renewal(header, RENEWED_BYTES) else { return Ok(()) };
            let file = owned.put(number, &bytes)?;
            (previous, before) = (number, bytes.len() as u64);
            let outcome = replay.segment(&bytes, number, Some(before));
            let outcome = outcome.map_err(|what| JournalError::Corrupt { path: file.clone(), what })?;
            tracing::warn!(
                file = %file.display(), records = outcome.records, epoch = epoch.0,
                "topics whose last messages may be lost begin a new epoch: who resumes there is told of a gap"
            );
        }
    }
}

/// Puts a segment aside and writes it anew with what can be read of it.
fn mend(owned: &Owned, link: &Link, header: Header) -> Result<(), JournalError> {
    let name = names::segment(link.number);
    let salvaged = salvage(&owned.file(&name)?, link.length, header);
    let kept = put_aside(owned, link.number)?;
    let file = owned.put(link.number, &salvaged.bytes)?;
    let (lost_bytes, holes) = (salvaged.lost(), salvaged.holes.len());
    let places: Vec<_> = salvaged.holes.iter().take(NAMED_MAX).map(|(from, to)| format!("{from}-{to}")).collect();
    tracing::warn!(
        file = %file.display(), lost_bytes, holes, at = places.join(" "), records = salvaged.records,
        kept_as = %kept.display(), missing = link.missing,
        "the journal was repaired: what could not be read is lost"
    );
    Ok(())
}

/// Gives a segment another name beside its own. What an earlier repair has put aside stays.
fn put_aside(owned: &Owned, number: u64) -> Result<PathBuf, JournalError> {
    let path = owned.path.join(names::segment(number));
    let failed = |error| JournalError::Read { path: path.clone(), error };
    for copy in 1..=names::DAMAGED_MAX {
        let aside = owned.path.join(names::damaged(number, copy));
        match fs::hard_link(&path, &aside) {
            Ok(()) => {
                owned.sync_names()?;
                return Ok(aside);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        // A repair that was ended has done it.
        if fs::metadata(&aside).map_err(failed)?.ino() == fs::metadata(&path).map_err(failed)?.ino() {
            return Ok(aside);
        }
    }
    Err(JournalError::Aside { path })
}

impl Owned {
    /// Puts a whole file in the place of a segment, or where there is none, and says where that is.
    fn put(&self, number: u64, bytes: &[u8]) -> Result<PathBuf, JournalError> {
        let [path, new] = [names::segment(number), names::new(number)].map(|name| self.path.join(name));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        write().map_err(|error| JournalError::Directory { path: path.clone(), error })?;
        self.sync_names()?;
        Ok(path)
    }

    /// Returns when names that were made and changed are safe.
    fn sync_names(&self) -> Result<(), JournalError> {
        let synced = File::open(&self.path).and_then(|directory| directory.sync_all());
        synced.map_err(|error| JournalError::Directory { path: self.path.clone(), error })?;
        #[cfg(test)]
        if let Some(step) = self.on_step {
            step(&self.path);
        }
        Ok(())
    }
}
