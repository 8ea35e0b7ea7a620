//! A disk that forgets and fails as it is told, and a shard that counts.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::super::disk::Disk;
use super::super::{Journal, Opening};
use crate::config::{Journal as JournalConfig, TopicRules};
use crate::journal::census::Bounds;
use crate::journal::port::{self, Append, JournalEnd, ShardEnd, Verdict};
use crate::mailbox::Doorbell;
use crate::message::{Cursor, Epoch, Kind, Message, Offset, Topic};
use crate::sim::Random;

/// A directory that no other test has, gone with the value.
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    pub(super) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("holdline-journal-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    pub(super) fn open(&self) -> Result<Journal, String> {
        open(&self.0, Opening { now_ms: super::super::unix_ms(), ..Opening::default() })
    }

    /// The names in it, but for the lock's.
    pub(super) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name != "lock").collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn open(path: &Path, how: Opening) -> Result<Journal, String> {
    let config = JournalConfig { segment_bytes: 4096, bytes_max: 1 << 30, ..JournalConfig::default() };
    Journal::open(path, &config, &TopicRules::default(), how).map_err(|error| error.to_string())
}

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    safe: Vec<u8>,
    /// What is on its way to the disk.
    writes: Vec<(usize, Vec<u8>)>,
    /// Room that was taken before it was written to.
    taken: usize,
}

impl Content {
    fn room(&self) -> usize {
        self.seen.len().max(self.taken)
    }
}

fn put(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.resize(bytes.len().max(at + part.len()), 0);
    bytes[at..at + part.len()].copy_from_slice(part);
}

#[derive(Clone)]
enum Change {
    Put(String, usize),
    Take(String),
}

#[derive(Default)]
struct State {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    safe: BTreeMap<String, usize>,
    changes: Vec<Change>,
    /// Errors for the operations that come, by their kind; `None` is none.
    faults: BTreeMap<&'static str, VecDeque<Option<io::ErrorKind>>>,
    log: Vec<&'static str>,
    /// Bytes that all files together may have; 0 for no bound.
    capacity: usize,
}

impl State {
    /// Whether a file can be so long.
    fn has_room(&self, file: usize, bytes: usize) -> io::Result<()> {
        let others = self.names.values().filter(|&&number| number != file).map(|&number| self.contents[number].room());
        let is_there = self.capacity == 0 || others.sum::<usize>() + bytes <= self.capacity;
        is_there.then_some(()).ok_or(io::ErrorKind::StorageFull.into())
    }
}

/// The disk.
#[derive(Clone, Default)]
pub(super) struct Fake(Rc<RefCell<State>>);

impl Fake {
    /// With the files of a directory, all safe.
    pub(super) fn of(directory: &Directory) -> Self {
        let fake = Self::default();
        for name in directory.names() {
            let bytes = fs::read(directory.0.join(&name)).unwrap();
            let mut state = fake.0.borrow_mut();
            let number = state.contents.len();
            state.contents.push(Content { seen: bytes.clone(), safe: bytes, ..Content::default() });
            state.names.insert(name.clone(), number);
            state.safe.insert(name, number);
        }
        fake
    }

    /// The next operation of this kind but `after` fails.
    pub(super) fn fail(&self, operation: &'static str, after: usize, error: io::ErrorKind) {
        let mut state = self.0.borrow_mut();
        let faults = state.faults.entry(operation).or_default();
        faults.extend(std::iter::repeat_n(None, after));
        faults.push_back(Some(error));
    }

    /// All files together have no more bytes than this.
    pub(super) fn limit(&self, capacity: usize) {
        self.0.borrow_mut().capacity = capacity;
    }

    /// Changes a byte of a file.
    pub(super) fn spoil(&self, name: &str, at: usize) {
        let mut state = self.0.borrow_mut();
        let number = state.names[name];
        state.contents[number].seen[at] ^= 1;
    }

    /// The names of all files.
    pub(super) fn files(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    pub(super) fn log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.borrow_mut().log)
    }

    /// What the directory has after the power was off now.
    pub(super) fn crash(&self, random: &mut Random, directory: &Directory) {
        let mut state = self.0.borrow_mut();
        let done = random.below(state.changes.len() + 1);
        let changes: Vec<_> = state.changes.drain(..).collect();
        for change in changes.into_iter().take(done) {
            match change {
                Change::Put(name, number) => drop(state.safe.insert(name, number)),
                Change::Take(name) => drop(state.safe.remove(&name)),
            }
        }
        for name in directory.names() {
            fs::remove_file(directory.0.join(name)).unwrap();
        }
        for (name, number) in &state.safe {
            let Content { safe, writes, .. } = &state.contents[*number];
            let mut bytes = safe.clone();
            for (at, part) in writes {
                // Pages get there in an order of their own, or not at all.
                const PAGE: usize = 512;
                let mut from = *at;
                while from < at + part.len() {
                    let to = ((from / PAGE + 1) * PAGE).min(at + part.len());
                    if random.below(2) == 0 {
                        put(&mut bytes, from, &part[from - at..to - at]);
                    }
                    from = to;
                }
            }
            fs::write(directory.0.join(name), bytes).unwrap();
        }
    }

    /// What is written to the directory as it is seen.
    pub(super) fn leave(&self, directory: &Directory) {
        for name in directory.names() {
            fs::remove_file(directory.0.join(name)).unwrap();
        }
        let state = self.0.borrow();
        for (name, number) in &state.names {
            fs::write(directory.0.join(name), &state.contents[*number].seen).unwrap();
        }
    }

    async fn operation(&self, name: &'static str) -> io::Result<()> {
        tokio::task::yield_now().await;
        let mut state = self.0.borrow_mut();
        state.log.push(name);
        match state.faults.get_mut(name).and_then(VecDeque::pop_front).flatten() {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }
}

impl Disk for Fake {
    type File = usize;

    async fn create(&self, name: &str) -> io::Result<usize> {
        self.operation("create").await?;
        let mut state = self.0.borrow_mut();
        let number = state.contents.len();
        state.contents.push(Content::default());
        state.names.insert(name.to_owned(), number);
        state.changes.push(Change::Put(name.to_owned(), number));
        Ok(number)
    }

    async fn write(&self, file: &usize, bytes: Vec<u8>, at: u64) -> (io::Result<()>, Vec<u8>) {
        let at = usize::try_from(at).unwrap();
        if let Err(error) = self.0.borrow().has_room(*file, at + bytes.len()) {
            return (Err(error), bytes);
        }
        let result = self.operation("write").await;
        let mut state = self.0.borrow_mut();
        let content = &mut state.contents[*file];
        // One that fails may have written a part.
        let part = if result.is_ok() { &bytes[..] } else { &bytes[..bytes.len() / 2] };
        put(&mut content.seen, at, part);
        content.writes.push((at, part.to_vec()));
        (result, bytes)
    }

    async fn sync(&self, file: &usize) -> io::Result<()> {
        let result = self.operation("sync").await;
        let mut state = self.0.borrow_mut();
        let content = &mut state.contents[*file];
        match result {
            Ok(()) => {
                content.safe = content.seen.clone();
                content.writes.clear();
                Ok(())
            }
            // The next one would say that all is well.
            Err(error) => Err(error),
        }
    }

    async fn take_room(&self, file: &usize, at: u64, bytes: u64) -> io::Result<()> {
        self.operation("room").await?;
        let mut state = self.0.borrow_mut();
        let end = usize::try_from(at + bytes).unwrap();
        state.has_room(*file, end)?;
        state.contents[*file].taken = end;
        Ok(())
    }

    async fn erase(&self, file: &usize, at: u64, bytes: u64) -> io::Result<()> {
        self.operation("erase").await?;
        let (at, mut state) = (usize::try_from(at).unwrap(), self.0.borrow_mut());
        let end = at + usize::try_from(bytes).unwrap();
        let content = &mut state.contents[*file];
        content.writes.push((at, vec![0; end.min(content.seen.len()).saturating_sub(at)]));
        content.seen.iter_mut().take(end).skip(at).for_each(|byte| *byte = 0);
        Ok(())
    }

    async fn open(&self, name: &str) -> io::Result<usize> {
        self.operation("open").await?;
        self.0.borrow().names.get(name).copied().ok_or(io::ErrorKind::NotFound.into())
    }

    async fn read(&self, file: &usize, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        self.operation("read").await?;
        let (at, state) = (usize::try_from(at).unwrap(), self.0.borrow());
        let rest = state.contents[*file].seen.get(at..).unwrap_or_default();
        // Less than all, as the kernel may.
        Ok(rest[..rest.len().min(bytes).min(1000)].to_vec())
    }

    async fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.operation("rename").await?;
        let mut state = self.0.borrow_mut();
        let number = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), number);
        // One change, as a rename is.
        let taken = state.changes.iter().position(|change| matches!(change, Change::Put(name, _) if name == from));
        taken.into_iter().for_each(|at| drop(state.changes.remove(at)));
        state.safe.remove(from);
        state.changes.push(Change::Put(to.to_owned(), number));
        Ok(())
    }

    async fn remove(&self, name: &str) -> io::Result<()> {
        self.operation("remove").await?;
        let mut state = self.0.borrow_mut();
        state.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
        state.changes.push(Change::Take(name.to_owned()));
        Ok(())
    }

    async fn sync_names(&self) -> io::Result<()> {
        self.operation("names").await?;
        let mut state = self.0.borrow_mut();
        let changes: Vec<_> = state.changes.drain(..).collect();
        for change in changes {
            match change {
                Change::Put(name, number) => drop(state.safe.insert(name, number)),
                Change::Take(name) => drop(state.safe.remove(&name)),
            }
        }
        Ok(())
    }
}

/// A topic of a shard.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// The newest offset that was given out.
    pub(super) reserved: u64,
    /// The newest that is committed.
    pub(super) committed: u64,
    /// The oldest that is kept.
    pub(super) kept: u64,
}

/// A shard: publishes, and does with verdicts what the port says.
pub(super) struct Publisher {
    end: ShardEnd,
    pub(super) generation: u32,
    pub(super) is_on: bool,
    waiting: VecDeque<(String, u64)>,
    pub(super) topics: BTreeMap<String, Account>,
    /// The epoch of all of its topics.
    pub(super) epoch: u64,
    pub(super) refused: u64,
}

impl Publisher {
    /// Messages that a topic keeps.
    pub(super) const KEPT: u64 = 5;

    pub(super) fn new() -> (Self, JournalEnd, Arc<Doorbell>) {
        let doorbell = Arc::<Doorbell>::default();
        let (end, journal) = port::pair(Arc::default(), Arc::clone(&doorbell));
        let topics = BTreeMap::new();
        let publisher =
            Self { end, generation: 0, is_on: true, waiting: VecDeque::new(), topics, epoch: 5, refused: 0 };
        (publisher, journal, doorbell)
    }

    pub(super) fn publish(&mut self, name: &str) {
        if !self.is_on {
            self.refused += 1;
            return;
        }
        let account = self.topics.entry(name.to_owned()).or_default();
        account.reserved += 1;
        let offset = account.reserved;
        account.kept = account.kept.max(account.committed.saturating_sub(Self::KEPT - 1)).max(1);
        let topic = Topic::parse(name.as_bytes(), 255).unwrap();
        let mut message = Message::new(topic, Kind::Text, format!("{name} {offset}").as_bytes(), None);
        let time_ms = super::super::unix_ms();
        (message.epoch, message.offset, message.time_ms) = (Epoch(self.epoch), Offset(offset), time_ms);
        let first_kept = Offset(account.kept);
        self.waiting.push_back((name.to_owned(), offset));
        self.end.appends.push(Append::Message { generation: self.generation, message, key: None, first_kept });
    }

    pub(super) fn forget(&mut self, name: &str) {
        let Some(account) = self.topics.get_mut(name) else { return };
        let cursor = Cursor { epoch: Epoch(self.epoch), offset: Offset(account.committed) };
        account.kept = account.committed + 1;
        self.end.appends.push(Append::Forget(Topic::parse(name.as_bytes(), 255).unwrap(), cursor));
    }

    /// Ends a topic's past: it begins anew under this epoch.
    pub(super) fn end_past(&mut self, name: &str, epoch: u64) {
        let topic = Topic::parse(name.as_bytes(), 255).unwrap();
        self.end.appends.push(Append::Forget(topic, Cursor { epoch: Epoch(epoch), offset: Offset(0) }));
    }

    /// Ends a turn: what was published is sent, and what was told is heard.
    pub(super) fn turn(&mut self) {
        self.end.appends.flush();
        while let Some(verdict) = self.end.verdicts.try_recv() {
            match verdict {
                Verdict::Committed { generation, count } if generation == self.generation => {
                    for _ in 0..count {
                        let (name, offset) = self.waiting.pop_front().expect("a verdict is of what waits");
                        let account = self.topics.get_mut(&name).unwrap();
                        assert_eq!(account.committed + 1, offset, "in order");
                        account.committed = offset;
                    }
                }
                Verdict::Failed { generation } if generation == self.generation => {
                    self.refused += self.waiting.len() as u64;
                    self.waiting.clear();
                    self.topics.values_mut().for_each(|account| account.reserved = account.committed);
                    self.generation += 1;
                    self.is_on = false;
                }
                Verdict::Working => self.is_on = true,
                _ => {}
            }
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

/// What a journal that was opened has of its topics: their places and offsets.
pub(super) fn topics(journal: &Journal) -> BTreeMap<String, (u64, Vec<u64>)> {
    let topic = |legacy: &crate::hub::topics::Legacy| {
        for left in &legacy.messages {
            let expected = format!("{} {}", legacy.topic, left.message.offset.0);
            assert_eq!(left.message.payload(), expected.as_bytes());
        }
        let offsets = legacy.messages.iter().map(|left| left.message.offset.0).collect();
        (legacy.topic.to_string(), (legacy.cursor.offset.0, offsets))
    };
    journal.topics.iter().map(topic).collect()
}

pub(super) const BOUNDS: Bounds = Bounds { segment_bytes: 2_000, bytes_max: 1 << 30, age_max_ms: 1 << 40 };
