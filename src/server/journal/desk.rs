//! Where appends are made commits and commits verdicts.

use std::io;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::disk::Disk;
use super::pen::{Commit, Pen};
use super::shared::{Order, Shared};
use super::unix_ms;
use crate::io::Wake;
use crate::journal::census::{Bounds, Census, Entry};
use crate::journal::port::{Append, JournalEnd, Verdict};
use crate::journal::record::{Place, Record};
use crate::journal::segment::{HEADER_BYTES, Header};
use crate::mailbox::Doorbell;
use crate::message::{Cursor, Offset, Topic};
use crate::metrics::JournalMetrics;
use crate::server::control::Ending;
use crate::server::race::{Side, race};

/// Bytes from which on a batch takes no more.
const BATCH_BYTES: usize = 4 << 20;
/// Appends that are taken from one shard before it is the next one's turn.
const ROUND: usize = 256;
/// From a failure to the next try, at first and at most.
const RETRY: (Duration, Duration) =
    if cfg!(test) { (PAUSE, PAUSE) } else { (Duration::from_millis(100), Duration::from_secs(5)) };
const PAUSE: Duration = Duration::from_millis(1);
/// Between two looks for room for verdicts that found none.
const STAGED: Duration = Duration::from_millis(2);
/// Between two lines of the log about failures.
pub(super) const SAID: Duration = Duration::from_secs(10);

struct Bell(Arc<Notify>);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// One shard.
struct Seat {
    end: JournalEnd,
    /// The generation of its appends that count.
    generation: u32,
}

/// What is gathered for a commit.
#[derive(Default)]
struct Batch {
    commit: Commit,
    /// Its records, for the census.
    entries: Vec<(Topic, Entry, Offset)>,
    /// Pasts that have ended: while it is not safe, that is owed.
    endings: Vec<(Topic, Cursor)>,
    /// How many messages of each shard.
    counts: Vec<u32>,
    orders: Vec<oneshot::Sender<bool>>,
}

/// The desk.
pub(super) struct Desk {
    seats: Vec<Seat>,
    doorbell: Arc<Doorbell>,
    shared: Rc<Shared>,
    /// The segment to which the next batch belongs, and where it begins there.
    header: Header,
    position: u64,
    /// The end of what is safe: a segment, 0 for none, and its bytes.
    safe: (u64, u64),
    next: Batch,
    /// A batch is on its way.
    is_committing: bool,
    /// Pasts that have ended, to be written before all else when writing works.
    owed: Vec<(Topic, Cursor)>,
    trouble: Trouble,
}

/// What has to do with failures.
struct Trouble {
    /// The next try, while writing does not work.
    retry_at: Option<Instant>,
    pause: Duration,
    said_at: Option<Instant>,
}

impl Desk {
    pub(super) fn new(
        ends: Vec<JournalEnd>,
        doorbell: Arc<Doorbell>,
        metrics: Arc<JournalMetrics>,
        census: Census,
        bounds: Bounds,
    ) -> Self {
        let safe = census.last().unwrap_or_default();
        let shared = Rc::new(Shared::new(census, bounds, metrics));
        doorbell.connect(Arc::new(Bell(Arc::clone(&shared.bell))));
        let trouble = Trouble { retry_at: None, pause: RETRY.0, said_at: None };
        let seats = ends.into_iter().map(|end| Seat { end, generation: 0 }).collect();
        let (header, position, next) = (Header::default(), HEADER_BYTES as u64, Batch::default());
        let (is_committing, owed) = (false, Vec::new());
        let mut desk = Self { seats, doorbell, shared, header, position, safe, next, is_committing, owed, trouble };
        desk.roll(safe.0);
        desk
    }

    pub(super) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.shared)
    }

    /// Serves until it is told to end and has written what came before that.
    pub(super) async fn run<D: Disk>(mut self, mut pen: Pen<D>, ending: Ending, directory: &Path) {
        loop {
            self.gather();
            if !self.next.commit.bytes.is_empty() {
                self.commit(&mut pen, directory).await;
            } else if self.trouble.retry_at.is_some_and(|at| at <= Instant::now()) {
                self.try_again(&mut pen, directory).await;
            } else if ending.is_told() && self.is_idle() {
                break;
            } else {
                self.sleep(&ending).await;
            }
        }
    }

    /// Whether no shard wants anything, and all have been told.
    fn is_idle(&self) -> bool {
        self.seats.iter().all(|seat| seat.end.appends.is_empty())
    }

    /// Sleeps until something comes, or it is time for something.
    async fn sleep(&mut self, ending: &Ending) {
        let is_staged = self.seats.iter().any(|seat| seat.end.verdicts.staged() > 0);
        let staged = is_staged.then(|| Instant::now() + STAGED);
        let until = self.trouble.retry_at.into_iter().chain(staged).min();
        self.doorbell.prepare_to_sleep();
        if self.is_idle() {
            let woken = pin!(self.shared.bell.notified());
            let told = pin!(ending.told());
            let timer = pin!(async {
                match until {
                    Some(until) => tokio::time::sleep_until(until.into()).await,
                    None => std::future::pending().await,
                }
            });
            let sleep = pin!(race(told, timer));
            race(woken, sleep).await;
        }
        self.doorbell.awake();
        self.seats.iter_mut().for_each(|seat| seat.end.verdicts.flush());
    }

    /// Takes what shards have, in turns, until the batch is full. Where places are to be written again, that waits until all
    /// that was gathered is safe, and comes before all else: a place behind what the census does not know yet would take it back.
    fn gather(&mut self) {
        let is_ordered = !self.shared.orders.borrow().is_empty();
        if is_ordered && (self.is_committing || !self.next.commit.bytes.is_empty()) {
            return;
        }
        if self.next.counts.is_empty() {
            self.next.counts = vec![0; self.seats.len()];
            let header = self.header;
            (self.next.commit.header, self.next.commit.position) = (header, self.position);
        }
        self.take_orders();
        self.pay();
        let mut is_more = true;
        while is_more && self.next.commit.bytes.len() < BATCH_BYTES {
            is_more = false;
            for seat in 0..self.seats.len() {
                is_more |= self.take_from(seat);
            }
        }
    }

    /// Takes some appends of a shard. Says whether there may be more.
    fn take_from(&mut self, seat: usize) -> bool {
        for _ in 0..ROUND {
            if self.next.commit.bytes.len() >= BATCH_BYTES {
                return false;
            }
            match self.seats[seat].end.appends.try_recv() {
                None => return false,
                Some(Append::Forget(topic, cursor)) => self.forget(topic, cursor),
                Some(Append::Message { generation, message, key, first_kept }) => {
                    let its = &mut self.seats[seat];
                    if generation < its.generation {
                        continue;
                    }
                    its.generation = generation;
                    if !self.shared.is_working.get() {
                        self.refuse(seat, 1);
                        continue;
                    }
                    let record = Record::of(&message, key.as_deref());
                    let entry = self.write(record);
                    self.next.counts[seat] += 1;
                    self.next.entries.push((message.topic, entry, first_kept));
                }
            }
        }
        true
    }

    /// A topic's messages up to there are not needed any more. Where that ends the past that is on the disk, it is written.
    fn forget(&mut self, topic: Topic, cursor: Cursor) {
        // Messages of another epoch may be on their way to the disk, of which the census does not know yet.
        let is_ended = self.shared.census.borrow_mut().forget(&topic, cursor);
        let is_coming = cursor.offset == Offset(0);
        if !(is_ended || is_coming) {
            return;
        }
        // Only the last one of a topic counts.
        self.owed.retain(|(owed, _)| *owed != topic);
        self.owed.push((topic, cursor));
        self.pay();
    }

    /// Writes which pasts have ended, if writing works.
    fn pay(&mut self) {
        if !self.shared.is_working.get() {
            return;
        }
        for (topic, cursor) in std::mem::take(&mut self.owed) {
            let entry = self.write(Record::of_cursor(topic.as_str(), cursor, unix_ms()));
            self.next.entries.push((topic.clone(), entry, Offset(cursor.offset.0.saturating_add(1))));
            self.next.endings.push((topic, cursor));
        }
    }

    /// Takes what the keeper wants written: topics that still are where they were.
    fn take_orders(&mut self) {
        if !self.shared.is_working.get() {
            // Nobody can be helped now.
            return self.shared.orders.borrow_mut().clear();
        }
        let shared = Rc::clone(&self.shared);
        while let Some(Order { stands, done }) = shared.orders.borrow_mut().pop_front() {
            for stand in stands {
                if shared.census.borrow().stands(&stand) {
                    let entry = self.write(Record::of_cursor(stand.topic.as_str(), stand.cursor, stand.time_ms));
                    // What was kept stays as it is.
                    self.next.entries.push((stand.topic, entry, Offset(0)));
                }
            }
            if self.next.commit.bytes.is_empty() {
                let _ = done.send(true);
            } else {
                self.next.orders.push(done);
            }
        }
    }

    /// Appends a record to the batch.
    fn write(&mut self, record: Record<'_>) -> Entry {
        let Commit { header, position, bytes } = &mut self.next.commit;
        let batch = u32::try_from(*position).expect("a segment ends long before 4 GiB");
        let record = Record { batch, ..record };
        record.write(Place { segment: header.number, position: *position + bytes.len() as u64 }, bytes);
        Entry::of(&record)
    }

    /// Writes the batch, and gathers the next one meanwhile.
    async fn commit<D: Disk>(&mut self, pen: &mut Pen<D>, directory: &Path) {
        let mut batch = std::mem::take(&mut self.next);
        batch.commit.header.epoch = self.shared.census.borrow().epoch();
        let (number, bytes) = (batch.commit.header.number, batch.commit.bytes.len() as u64);
        self.position = batch.commit.position + bytes;
        let end = self.position;
        if end >= self.shared.bounds.segment_bytes {
            self.roll_behind(number, end);
        }
        let began = Instant::now();
        self.is_committing = true;
        let result = {
            let mut commit = pin!(pen.commit(&mut batch.commit));
            let bell = Arc::clone(&self.shared.bell);
            loop {
                self.doorbell.prepare_to_sleep();
                let woken = pin!(bell.notified());
                match race(commit.as_mut(), woken).await {
                    Side::First(result) => break result,
                    Side::Second(()) => self.gather(),
                }
            }
        };
        self.doorbell.awake();
        self.is_committing = false;
        match result {
            Ok(()) => self.committed(batch, end, began.elapsed()),
            Err(error) => self.failed(batch, &error, directory),
        }
    }

    /// Begins another segment behind the one that is written now, which ends there.
    fn roll_behind(&mut self, number: u64, end: u64) {
        let epoch = self.shared.census.borrow().epoch();
        let (previous, before) = (number, end);
        self.header = Header { number: number + 1, created_ms: unix_ms(), previous, before, length: 0, epoch };
        self.position = HEADER_BYTES as u64;
    }

    /// Begins another segment behind what is safe.
    fn roll(&mut self, after: u64) {
        let (number, end) = self.safe;
        self.roll_behind(number, end);
        self.header.number = after.max(number) + 1;
    }

    fn committed(&mut self, mut batch: Batch, end: u64, took: Duration) {
        let Header { number, .. } = batch.commit.header;
        let is_new = self.safe.0 != number;
        self.safe = (number, end);
        let mut census = self.shared.census.borrow_mut();
        if is_new {
            census.begin(&batch.commit.header);
        }
        census.grow(number, end);
        let records = batch.entries.len() as u64;
        for (topic, entry, kept) in batch.entries.drain(..) {
            census.note(number, topic.as_str(), entry, kept);
        }
        if is_new && census.is_over(&self.shared.bounds) {
            self.shared.over.notify_one();
        }
        drop(census);
        let messages: u32 = batch.counts.iter().sum();
        // First, so that who has its answer finds it counted.
        let metrics = &self.shared.metrics;
        metrics.messages.add(u64::from(messages));
        metrics.written.add(batch.commit.bytes.len() as u64);
        metrics.commit_seconds.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        metrics.commit_records.observe(records);
        for (seat, count) in self.seats.iter_mut().zip(batch.counts.drain(..)).filter(|(_, count)| *count > 0) {
            seat.end.verdicts.push(Verdict::Committed { generation: seat.generation, count });
            seat.end.verdicts.flush();
        }
        batch.orders.drain(..).for_each(|done| {
            let _ = done.send(true);
        });
        self.trouble.pause = RETRY.0;
        self.shared.measure();
        self.reuse(batch.commit.bytes);
    }

    /// Keeps the memory of what was written for what comes, unless that was much.
    fn reuse(&mut self, mut bytes: Vec<u8>) {
        if self.next.commit.bytes.capacity() == 0 && bytes.capacity() <= BATCH_BYTES * 2 {
            bytes.clear();
            self.next.commit.bytes = bytes;
        }
    }

    /// Refuses all that is on its way.
    fn failed(&mut self, batch: Batch, error: &io::Error, directory: &Path) {
        let next = std::mem::take(&mut self.next);
        let endings = batch.endings.iter().chain(&next.endings).cloned();
        // What came last is behind, and replaces what came before when it is read.
        self.owed.splice(..0, endings);
        for (seat, count) in batch.counts.iter().enumerate() {
            let waiting = next.counts.get(seat).copied().unwrap_or(0);
            self.refuse(seat, u64::from(*count) + u64::from(waiting));
        }
        self.shared.metrics.failures.add(1);
        self.shared.metrics.working.set(0);
        self.shared.is_working.set(false);
        self.shared.note_full(error);
        let now = Instant::now();
        if self.trouble.said_at.is_none_or(|said| now.duration_since(said) >= SAID) {
            self.trouble.said_at = Some(now);
            let mend = mend(error);
            tracing::error!(%error, directory = %directory.display(), mend, "cannot write to the journal; durable topics refuse what is published");
        }
        self.trouble.retry_at = Some(now + self.trouble.pause);
        self.trouble.pause = (self.trouble.pause * 2).min(RETRY.1);
        self.stray(batch.commit.header.number);
    }

    /// Begins anew behind what is safe, after a segment has failed.
    fn stray(&mut self, number: u64) {
        if number != self.safe.0 {
            self.shared.strays.borrow_mut().push(number);
        }
        self.roll(number);
    }

    /// Tells a shard that nothing of its generation is written any more.
    fn refuse(&mut self, seat: usize, messages: u64) {
        let seat = &mut self.seats[seat];
        self.shared.metrics.refused.add(messages);
        seat.end.verdicts.push(Verdict::Failed { generation: seat.generation });
        seat.end.verdicts.flush();
        seat.generation = seat.generation.wrapping_add(1);
    }

    /// Looks whether writing works again.
    async fn try_again<D: Disk>(&mut self, pen: &mut Pen<D>, directory: &Path) {
        let (number, shared) = (self.header.number, Rc::clone(&self.shared));
        let Ok(_room) = shared.room.try_lock() else {
            self.trouble.retry_at = Some(Instant::now() + RETRY.0);
            return;
        };
        match pen.try_again(self.header).await {
            Ok(()) => {
                self.trouble.retry_at = None;
                self.shared.is_full.set(false);
                self.shared.is_working.set(true);
                self.shared.metrics.working.set(1);
                self.next = Batch::default();
                self.shared.census.borrow_mut().begin(&self.header);
                self.safe = (number, HEADER_BYTES as u64);
                for seat in &mut self.seats {
                    seat.end.verdicts.push(Verdict::Working);
                    seat.end.verdicts.flush();
                }
                tracing::info!(directory = %directory.display(), "the journal is written again; durable topics take what is published");
            }
            Err(error) => {
                self.shared.metrics.failures.add(1);
                self.shared.note_full(&error);
                tracing::debug!(%error, "the journal cannot be written yet");
                self.trouble.retry_at = Some(Instant::now() + self.trouble.pause);
                self.trouble.pause = (self.trouble.pause * 2).min(RETRY.1);
                self.stray(number);
            }
        }
    }
}

/// However the task ends, nobody is to wait for ever.
impl Drop for Desk {
    fn drop(&mut self) {
        self.shared.is_working.set(false);
        self.shared.orders.borrow_mut().clear();
        self.shared.metrics.working.set(0);
        for seat in 0..self.seats.len() {
            self.refuse(seat, 0);
        }
    }
}

/// What to do about an error.
fn mend(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there, or lower journal.bytes_max",
        io::ErrorKind::FileTooLarge => {
            "raise the limit of file sizes (ulimit -f, LimitFSIZE=), or lower journal.segment_bytes"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "let this user write there",
        _ => "look at the disk and at the kernel's log",
    }
}
