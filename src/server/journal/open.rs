//! The start of a journal: its directory is made, locked and read, before anything is written.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::JournalError;
use super::names::{self, Named};
use super::repair::Repair;
use crate::config::TopicRules;
use crate::journal::chain::{Link, links};
use crate::journal::replay::{Found, Outcome, Replay};
use crate::journal::segment::{BadHeader, HEADER_BYTES, Header};

/// Between two looks whether the process before has left the directory.
const LOOK: Duration = Duration::from_millis(20);
/// Foreign files that are named in the log, and places in a file.
pub(super) const NAMED_MAX: usize = 5;

/// Between two looks at a journal that another process writes, and how many of them have to find something wrong.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
const LOOKS: u32 = 5;

/// A directory that this process has. It is left when this value is dropped.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) path: PathBuf,
    /// `None` where another process has it, and nothing in it may be touched.
    lock: Option<File>,
    /// What a test does after each step of a repair.
    #[cfg(test)]
    pub(super) on_step: Option<fn(&Path)>,
}

/// What was read.
#[derive(Debug)]
pub(super) struct Past {
    pub(super) found: Found,
    pub(super) segments: usize,
    pub(super) messages: u64,
    pub(super) torn: u64,
    pub(super) took: Duration,
}

impl Owned {
    /// Makes the directory if it is not there, and takes it; another process may have it for so long.
    pub(super) fn take(path: &Path, wait: Duration) -> Result<Self, JournalError> {
        let mut builder = fs::DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| JournalError::Directory { path: path.into(), error })?;
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path.join(names::LOCK));
        let lock = lock.map_err(|error| JournalError::Directory { path: path.into(), error })?;
        let until = Instant::now() + wait;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self::of(path, Some(lock))),
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(LOOK),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(JournalError::InUse { path: path.into() }),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(JournalError::Directory { path: path.into(), error: error.into() }),
            }
        }
    }

    fn of(path: &Path, lock: Option<File>) -> Self {
        Self {
            path: path.into(),
            lock,
            #[cfg(test)]
            on_step: None,
        }
    }

    /// Reads a journal that another process has, and changes nothing: whether it could be taken over. Segments come and go
    /// meanwhile, so that only what is wrong time and again is wrong.
    pub(super) fn look(path: &Path, rules: &TopicRules, now_ms: u64) -> Result<(), JournalError> {
        let there = Self::of(path, None);
        for _ in 1..LOOKS {
            if !path.exists() || there.read(rules, now_ms, false).is_ok() {
                return Ok(());
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        there.read(rules, now_ms, false).map(drop)
    }

    /// Reads all of it. `repair` goes on where something is wrong.
    pub(super) fn read(&self, rules: &TopicRules, now_ms: u64, repair: bool) -> Result<Past, JournalError> {
        let began = Instant::now();
        let mut numbers = self.list()?;
        self.forget_unborn(&mut numbers)?;
        let headers = self.headers(&numbers, repair)?;
        let mut replay = Replay::new(rules, now_ms);
        let mut repair = repair.then(Repair::default);
        let (mut segments, mut messages, mut torn) = (0, 0, 0);
        for (link, header) in links(&headers).into_iter().zip(headers) {
            let name = names::segment(link.number);
            if link.is_leftover {
                self.remove(&name)?;
                continue;
            }
            let bytes = self.file(&name)?;
            let outcome = match &mut repair {
                None => self.sound(&mut replay, &bytes, &link)?,
                Some(repair) => {
                    let outcome = repair.read(&mut replay, &bytes, &link, header);
                    outcome.map_err(|what| JournalError::Corrupt { path: self.path.join(name), what })?
                }
            };
            segments += 1;
            messages += outcome.messages;
            torn += outcome.torn;
        }
        if let Some(repair) = repair {
            repair.finish(self, &mut replay, now_ms)?;
        }
        Ok(Past { found: replay.finish(), segments, messages, torn, took: began.elapsed() })
    }

    /// Reads a segment in which nothing is wrong.
    fn sound(&self, replay: &mut Replay<'_>, bytes: &[u8], link: &Link) -> Result<Outcome, JournalError> {
        if let Some(missing) = link.missing {
            return Err(JournalError::Missing { path: self.path.join(names::segment(missing)) });
        }
        let corrupt = |what| JournalError::Corrupt { path: self.path.join(names::segment(link.number)), what };
        replay.segment(bytes, link.number, link.length).map_err(corrupt)
    }

    /// The numbers of all segments, in order. What was not finished is removed, and what is not ours is left alone.
    fn list(&self) -> Result<Vec<u64>, JournalError> {
        let failed = |error| JournalError::Directory { path: self.path.clone(), error };
        let (mut numbers, mut foreign) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_string_lossy();
            match Named::of(&name) {
                Named::Segment(number) => numbers.push(number),
                Named::New => self.remove(&name)?,
                Named::Aside => {}
                Named::Foreign => foreign.push(name.into_owned()),
            }
        }
        numbers.sort_unstable();
        if !foreign.is_empty() {
            foreign.sort_unstable();
            let (count, directory) = (foreign.len(), self.path.display());
            foreign.truncate(NAMED_MAX);
            tracing::warn!(%directory, count, names = foreign.join(", "), "files in the journal's directory that are not its own are left alone");
        }
        Ok(numbers)
    }

    /// Removes the last segments whose headers did not reach the disk: nothing was written behind those.
    fn forget_unborn(&self, numbers: &mut Vec<u64>) -> Result<(), JournalError> {
        while let Some(&last) = numbers.last() {
            let bytes = self.head(last)?;
            let is_zero = bytes.iter().all(|&byte| byte == 0);
            let is_begun = matches!(Header::read(&bytes, last), Err(BadHeader::Short | BadHeader::Checksum));
            if bytes.len() > HEADER_BYTES || !(is_zero || is_begun) {
                break;
            }
            self.remove(&names::segment(last))?;
            numbers.pop();
        }
        Ok(())
    }

    /// The headers of segments. Files between two that follow each other need none: they are removed.
    fn headers(&self, numbers: &[u64], repair: bool) -> Result<Vec<Header>, JournalError> {
        let read = |&number: &u64| Ok((number, Header::read(&self.head(number)?, number)));
        let read: Vec<_> = numbers.iter().map(read).collect::<Result<_, JournalError>>()?;
        let mut headers: Vec<Header> = Vec::with_capacity(read.len());
        for (number, header) in &read {
            let spans = |header: &Header| header.previous < *number && *number < header.number;
            let is_between = || read.iter().any(|(_, header)| header.as_ref().is_ok_and(spans));
            match header {
                Ok(header) => headers.push(*header),
                Err(_) if is_between() => self.remove(&names::segment(*number))?,
                // It is written anew when it is read; until then it follows the one before it.
                Err(_) if repair => {
                    let previous = headers.last().map_or(0, |header| header.number);
                    headers.push(Header { number: *number, previous, ..Header::default() });
                }
                Err(error) => {
                    let path = self.path.join(names::segment(*number));
                    return Err(JournalError::Corrupt { path, what: (*error).into() });
                }
            }
        }
        Ok(headers)
    }

    /// The beginning of a segment, and a byte more if there is one.
    fn head(&self, number: u64) -> Result<Vec<u8>, JournalError> {
        let path = self.path.join(names::segment(number));
        let mut head = Vec::new();
        let read = File::open(&path).and_then(|file| file.take(HEADER_BYTES as u64 + 1).read_to_end(&mut head));
        read.map_err(|error| JournalError::Read { path, error })?;
        Ok(head)
    }

    /// All of a file.
    pub(super) fn file(&self, name: &str) -> Result<Vec<u8>, JournalError> {
        let path = self.path.join(name);
        fs::read(&path).map_err(|error| JournalError::Read { path, error })
    }

    fn remove(&self, name: &str) -> Result<(), JournalError> {
        if self.lock.is_none() {
            return Ok(());
        }
        let path = self.path.join(name);
        fs::remove_file(&path).map_err(|error| JournalError::Directory { path, error })
    }
}
