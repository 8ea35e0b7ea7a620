//! What keeps a journal small: segments that are not needed go, neighbours that are mostly dead are put together.
//!
//! It works in small parts between commits, and waits for none of them but those that it asks for itself: places of topics
//! that must be safe elsewhere before the segment that has them goes.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::desk::SAID;
use super::disk::Disk;
use super::room::Reserve;
use super::shared::{Order, Shared};
use super::{names, unix_ms};
use crate::journal::census::{Census, Entry, Stand, Step};
use crate::journal::record::{NoRecord, Place, Record};
use crate::journal::segment::{FIRST_BATCH, HEADER_BYTES, Header};
use crate::message::Topic;
use crate::server::control::Ending;
use crate::server::race::race;

/// Between two looks.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a segment is in no join after one failed, in milliseconds.
const BARRED_MS: u64 = 60_000;
/// Places that are written again in one commit.
const STANDS: usize = if cfg!(test) { 4 } else { 4096 };
/// Bytes that are read and looked through at once.
const PART: usize = 256 << 10;
/// Bytes that are written at once.
const PIECE: usize = 1 << 20;

/// Why a segment stays as it is.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stays {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("segment {0} cannot be read at {1}: {2}")]
    Corrupt(u64, u64, NoRecord),
    /// The journal cannot be written now.
    #[error("the journal is not written")]
    Busy,
}

/// The keeper.
pub(super) struct Keeper<D: Disk> {
    pub(super) disk: D,
    pub(super) shared: Rc<Shared>,
    pub(super) ending: Ending,
    pub(super) reserve: Reserve,
    /// When the log was told last that needed messages went.
    lost_said_at: Cell<Option<Instant>>,
    /// And that a join failed.
    barred_said_at: Cell<Option<Instant>>,
}

impl<D: Disk> Keeper<D> {
    pub(super) fn new(disk: D, shared: Rc<Shared>, ending: Ending) -> Self {
        let reserve = Reserve::new(&shared.bounds);
        Self { disk, shared, ending, reserve, lost_said_at: Cell::new(None), barred_said_at: Cell::new(None) }
    }

    /// Looks now and then, until it is told to end.
    pub(super) async fn run(self) {
        self.keep_reserve().await;
        self.weigh_all().await;
        loop {
            let told = std::pin::pin!(self.ending.told());
            let over = std::pin::pin!(self.shared.over.notified());
            let timer = std::pin::pin!(tokio::time::sleep(PERIOD));
            race(told, std::pin::pin!(race(over, timer))).await;
            if self.ending.is_told() {
                return;
            }
            self.keep_reserve().await;
            if let Err(error @ (Stays::Io(_) | Stays::Corrupt(..))) = self.look().await {
                tracing::error!(%error, "the journal stays larger than it could be");
                // What was wrong once is not asked for every second.
                let told = std::pin::pin!(self.ending.told());
                race(told, std::pin::pin!(tokio::time::sleep(PERIOD * 60))).await;
            }
        }
    }

    /// Does what there is to do.
    pub(super) async fn look(&self) -> Result<(), Stays> {
        self.shared.census.borrow_mut().weigh_next();
        self.remove_strays().await?;
        if self.shared.is_full.get() {
            self.make_room().await?;
        }
        let mut is_weighed = false;
        while self.shared.is_working.get() && !self.ending.is_told() {
            let (is_over, step) = self.next_step();
            match step {
                Some(Step::Remove(segment)) => self.remove(segment).await?,
                // What was needed when it was counted may not be any more.
                _ if is_over && !is_weighed => {
                    self.weigh_all().await;
                    is_weighed = true;
                    continue;
                }
                None => break,
                Some(Step::Join(segments)) => self.try_to_join(&segments).await,
                Some(Step::Lose(segment)) => self.lose(segment).await?,
            }
            is_weighed = false;
            self.shared.measure();
        }
        Ok(())
    }

    /// Whether there is too much, and what is to be done.
    fn next_step(&self) -> (bool, Option<Step>) {
        let (mut census, bounds) = (self.shared.census.borrow_mut(), &self.shared.bounds);
        let is_over = census.is_over(bounds);
        if is_over {
            census.weigh_grown();
        }
        (is_over, census.next_step(bounds, unix_ms()))
    }

    /// Counts what each segment is worth now.
    pub(super) async fn weigh_all(&self) {
        let numbers = self.shared.census.borrow().numbers();
        for number in numbers {
            self.shared.census.borrow_mut().weigh(number);
            tokio::task::yield_now().await;
        }
    }

    /// Removes files of segments that never were: while they are there, what is behind them says so.
    async fn remove_strays(&self) -> Result<(), Stays> {
        if !self.shared.strays.borrow().is_empty() {
            // What they were put together in has its name for good.
            self.disk.sync_names().await?;
        }
        loop {
            let Some(number) = self.shared.strays.borrow().last().copied() else { return Ok(()) };
            match self.disk.remove(&names::segment(number)).await {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => self.disk.sync_names().await?,
            }
            self.shared.strays.borrow_mut().retain(|&stray| stray != number);
        }
    }

    /// Removes the oldest segment, of which nothing is needed.
    pub(super) async fn remove(&self, segment: u64) -> Result<(), Stays> {
        self.take_away(segment).await?;
        self.shared.metrics.removed.add(1);
        Ok(())
    }

    /// Removes the oldest segment though it is needed, and says so.
    async fn lose(&self, segment: u64) -> Result<(), Stays> {
        self.take_away(segment).await?;
        self.shared.metrics.lost.add(1);
        if is_time(&self.lost_said_at) {
            let bytes_max = self.shared.bounds.bytes_max;
            tracing::warn!(
                segment,
                bytes_max,
                "what histories of durable topics need takes more than journal.bytes_max: the oldest of it will not be there after \
                 a restart; raise that, or keep less"
            );
        }
        Ok(())
    }

    /// Takes the oldest segment away. The places that only it has are written again before.
    async fn take_away(&self, segment: u64) -> Result<(), Stays> {
        self.remove_strays().await?;
        let stands = self.shared.census.borrow().places(&[segment], true, &self.shared.bounds, unix_ms());
        self.write_again(stands).await?;
        self.disk.remove(&names::segment(segment)).await?;
        self.disk.sync_names().await?;
        self.shared.census.borrow_mut().remove(segment);
        Ok(())
    }

    async fn write_again(&self, mut stands: Vec<Stand>) -> Result<(), Stays> {
        while !stands.is_empty() {
            if !self.shared.is_working.get() {
                // Nobody would answer.
                return Err(Stays::Busy);
            }
            let part = stands.split_off(stands.len().saturating_sub(STANDS));
            let (done, is_done) = oneshot::channel();
            self.shared.orders.borrow_mut().push_back(Order { stands: part, done });
            self.shared.bell.notify_one();
            if is_done.await != Ok(true) {
                return Err(Stays::Busy);
            }
        }
        Ok(())
    }

    /// Joins segments, or leaves them as they are.
    pub(super) async fn try_to_join(&self, segments: &[u64]) {
        let joined = self.join(segments).await;
        joined.unwrap_or_else(|error| self.bar(segments, &error));
    }

    /// Leaves segments as they are whose join failed: for a while, or for good those that are not what was written.
    fn bar(&self, segments: &[u64], error: &Stays) {
        let mut census = self.shared.census.borrow_mut();
        if let Stays::Corrupt(segment, ..) = error {
            census.bar(*segment, Census::CORRUPT);
            tracing::error!(%error, "a file of the journal is not what was written; the next start will refuse it");
            return;
        }
        let until_ms = unix_ms().saturating_add(BARRED_MS);
        segments.iter().for_each(|segment| census.bar(*segment, until_ms));
        if is_time(&self.barred_said_at) {
            tracing::error!(%error, "the journal stays larger than it could be");
        }
    }

    /// Writes what is needed of neighbours into one file, which takes the place of the last of them.
    async fn join(&self, segments: &[u64]) -> Result<(), Stays> {
        let header = {
            let census = self.shared.census.borrow();
            let header = |segment: Option<&u64>| segment.and_then(|segment| census.header(*segment));
            let (Some(first), Some(last)) = (header(segments.first()), header(segments.last())) else { return Ok(()) };
            Header { previous: first.previous, before: first.before, epoch: census.epoch(), ..last }
        };
        let written = self.write_joined(segments, header).await;
        if written.is_err() {
            // What there is of it takes room. Where it is not there, nothing does.
            let _ = self.disk.remove(&names::new(header.number)).await;
        }
        let (header, entries) = written?;
        self.shared.census.borrow_mut().join(segments, &header, &entries);
        let before = segments.iter().copied().filter(|segment| *segment != header.number);
        if let Err(error) = self.disk.sync_names().await {
            // It has its name, but nobody knows for how long: the others go when that is safe.
            self.shared.strays.borrow_mut().extend(before);
            return Err(error.into());
        }
        for segment in before {
            // One that stays is a leftover: it goes before what it is in does, or at the next start.
            match self.disk.remove(&names::segment(segment)).await {
                Ok(()) => self.shared.metrics.removed.add(1),
                Err(_) => self.shared.strays.borrow_mut().push(segment),
            }
        }
        Ok(self.disk.sync_names().await?)
    }

    async fn write_joined(&self, segments: &[u64], header: Header) -> Result<(Header, Vec<(Topic, Entry)>), Stays> {
        let mut copy = Copy::begin(&self.disk, header).await?;
        for &segment in segments {
            self.copy(&mut copy, segment).await?;
        }
        let stands = self.shared.census.borrow().places(segments, false, &self.shared.bounds, unix_ms());
        for stand in stands {
            copy.add(Record::of_cursor(stand.topic.as_str(), stand.cursor, stand.time_ms), &stand.topic);
            copy.write(PIECE).await?;
        }
        Ok(copy.finish().await?)
    }

    /// Copies what is needed of one segment.
    async fn copy(&self, copy: &mut Copy<'_, D>, segment: u64) -> Result<(), Stays> {
        let end = self.shared.census.borrow().length(segment);
        let file = self.disk.open(&names::segment(segment)).await?;
        let (mut held, mut position) = (Vec::new(), HEADER_BYTES as u64);
        let mut want = PART;
        while position < end {
            let have = held.len() as u64;
            let more = usize::try_from(end - position - have).unwrap_or(usize::MAX).min(want);
            held.extend(self.disk.read(&file, position + have, more).await?);
            if held.len() as u64 == have {
                return Err(Stays::Corrupt(segment, position, NoRecord::Short));
            }
            let used = self.copy_part(copy, segment, position, &held)?;
            // A record that is longer than what was read: all of it, then.
            want = if used == 0 { want.saturating_mul(2) } else { PART };
            held.drain(..used);
            position += used as u64;
            copy.write(PIECE).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Copies the whole records of a part, and says how many bytes they are.
    fn copy_part(&self, copy: &mut Copy<'_, D>, segment: u64, from: u64, bytes: &[u8]) -> Result<usize, Stays> {
        let census = self.shared.census.borrow();
        let mut used = 0;
        while used < bytes.len() {
            let position = from + used as u64;
            let record = match Record::read(&bytes[used..], Place { segment, position }) {
                Ok(record) => record,
                Err(NoRecord::Short) => break,
                Err(error) => return Err(Stays::Corrupt(segment, position, error)),
            };
            used += record.size();
            if census.needs(&record)
                && let Some(topic) = census.topic(record.topic)
            {
                copy.add(record, topic);
            }
        }
        Ok(used)
    }
}

/// Whether the log may be told of something again; then it was now.
fn is_time(said_at: &Cell<Option<Instant>>) -> bool {
    let now = Instant::now();
    let is_time = said_at.get().is_none_or(|said| now.duration_since(said) >= SAID);
    if is_time {
        said_at.set(Some(now));
    }
    is_time
}

/// A segment that is written anew.
struct Copy<'a, D: Disk> {
    disk: &'a D,
    file: D::File,
    header: Header,
    /// What is to be written, from here on.
    bytes: Vec<u8>,
    position: u64,
    entries: Vec<(Topic, Entry)>,
}

impl<'a, D: Disk> Copy<'a, D> {
    async fn begin(disk: &'a D, header: Header) -> io::Result<Self> {
        let file = disk.create(&names::new(header.number)).await?;
        Ok(Self { disk, file, header, bytes: Vec::new(), position: HEADER_BYTES as u64, entries: Vec::new() })
    }

    fn add(&mut self, record: Record<'_>, topic: &Topic) {
        let place = Place { segment: self.header.number, position: self.position + self.bytes.len() as u64 };
        let record = Record { batch: FIRST_BATCH, ..record };
        record.write(place, &mut self.bytes);
        self.entries.push((topic.clone(), Entry::of(&record)));
    }

    /// Writes what there is, if it is so much.
    async fn write(&mut self, least: usize) -> io::Result<()> {
        if self.bytes.is_empty() || self.bytes.len() < least {
            return Ok(());
        }
        let (result, mut bytes) = self.disk.write(&self.file, std::mem::take(&mut self.bytes), self.position).await;
        self.position += bytes.len() as u64;
        bytes.clear();
        self.bytes = bytes;
        result
    }

    /// Puts it in its place.
    async fn finish(mut self) -> io::Result<(Header, Vec<(Topic, Entry)>)> {
        self.write(0).await?;
        self.header.length = self.position;
        let (result, _) = self.disk.write(&self.file, self.header.to_bytes().to_vec(), 0).await;
        result?;
        self.disk.sync(&self.file).await?;
        let number = self.header.number;
        self.disk.rename(&names::new(number), &names::segment(number)).await?;
        Ok((self.header, self.entries))
    }
}
