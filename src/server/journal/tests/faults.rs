//! Disks that fail and crash: what was acknowledged stays. `HOLDLINE_JOURNAL_WORLDS=1000` plays more of it.

use std::future::Future;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use super::super::desk::Desk;
use super::super::keeper::Keeper;
use super::super::pen::Pen;
use super::super::shared::{Order, Shared};
use super::scene::{Account, BOUNDS, Directory, Fake, Publisher, topics};
use crate::journal::census::{Bounds, Census, Stand};
use crate::message::{Cursor, Epoch, Offset, Topic};
use crate::metrics::JournalMetrics;
use crate::server::control::Ending;
use crate::sim::Random;

/// A journal on a fake disk, in one runtime with whoever drives it.
pub(super) struct Scene {
    pub(super) disk: Fake,
    pub(super) publisher: Publisher,
    pub(super) metrics: Arc<JournalMetrics>,
    pub(super) shared: Rc<Shared>,
    pub(super) ending: Ending,
    task: tokio::task::JoinHandle<()>,
}

impl Scene {
    pub(super) fn start(disk: Fake, census: Census, publisher: Option<Publisher>) -> Self {
        Self::bounded(disk, census, publisher, BOUNDS)
    }

    pub(super) fn bounded(disk: Fake, census: Census, publisher: Option<Publisher>, bounds: Bounds) -> Self {
        let (mut fresh, end, doorbell) = Publisher::new();
        if let Some(before) = publisher {
            fresh.topics = before.topics;
            fresh.topics.values_mut().for_each(|account| account.reserved = account.committed);
        }
        let (metrics, ending) = (Arc::<JournalMetrics>::default(), Ending::default());
        let desk = Desk::new(vec![end], doorbell, Arc::clone(&metrics), census, bounds);
        let (shared, pen, told) = (desk.shared(), Pen::new(disk.clone()), ending.clone());
        let task = tokio::task::spawn_local(async move { desk.run(pen, told, Path::new("/fake")).await });
        Self { disk, publisher: fresh, metrics, shared, ending, task }
    }

    /// Takes turns until this is so.
    pub(super) async fn until(&mut self, what: &str, mut so: impl FnMut(&Publisher) -> bool) {
        for _ in 0..100_000 {
            self.publisher.turn();
            if so(&self.publisher) {
                return;
            }
            // Retries wait for their time.
            if self.publisher.is_on { tokio::task::yield_now().await } else { tokio::time::sleep(PAUSE).await }
        }
        panic!("it never came to this: {what}");
    }

    pub(super) async fn publish(&mut self, name: &str, count: usize) {
        (0..count).for_each(|_| self.publisher.publish(name));
        self.until("all are safe", |publisher| publisher.waiting() == 0).await;
    }

    /// Ends well.
    pub(super) async fn end(mut self) -> Publisher {
        self.ending.tell();
        for _ in 0..1_000 {
            self.publisher.turn();
            tokio::task::yield_now().await;
        }
        self.task.await.unwrap();
        self.publisher
    }

    pub(super) fn keeper(&self) -> Keeper<Fake> {
        Keeper::new(self.disk.clone(), Rc::clone(&self.shared), self.ending.clone())
    }

    /// As if the process had been killed.
    fn kill(self) -> Publisher {
        self.task.abort();
        self.publisher
    }
}

const PAUSE: std::time::Duration = std::time::Duration::from_millis(1);

pub(super) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let local = tokio::task::LocalSet::new();
    runtime.block_on(local.run_until(future))
}

#[test]
fn many_publications_share_a_commit() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        scene.publish("a", 100).await;
        assert_eq!(scene.disk.log(), ["create", "write", "sync", "names", "write", "sync"]);
        scene.publish("a", 3).await;
        assert_eq!(scene.disk.log(), ["create", "write", "sync", "names", "write", "sync"], "the segment was full");
        scene.publish("a", 1).await;
        assert_eq!(scene.disk.log(), ["write", "sync"]);
        assert_eq!((scene.metrics.messages.get(), scene.metrics.segments.get()), (104, 2));
        let directory = Directory::new();
        std::fs::create_dir(&directory.0).unwrap();
        let disk = scene.disk.clone();
        let publisher = scene.end().await;
        disk.leave(&directory);
        let found = topics(&directory.open().unwrap());
        assert_eq!(found["a"], (104, (1..=104).collect()));
        assert_eq!(publisher.topics["a"].committed, 104);
    });
}

#[test]
fn what_fails_is_refused_and_goes_on_in_another_segment() {
    for (operation, after) in [("write", 0), ("sync", 0), ("create", 0), ("names", 0), ("write", 1), ("sync", 1)] {
        run(async {
            let mut scene = Scene::start(Fake::default(), Census::default(), None);
            scene.disk.fail(operation, after, std::io::ErrorKind::StorageFull);
            scene.publish("a", 3).await;
            assert_eq!((scene.publisher.refused, scene.publisher.is_on), (3, false), "{operation}");
            assert_eq!((scene.metrics.working.get(), scene.metrics.refused.get()), (0, 3));
            scene.publisher.publish("a");
            assert_eq!(scene.publisher.refused, 4);
            scene.until("it works again", |publisher| publisher.is_on).await;
            assert_eq!((scene.metrics.working.get(), scene.publisher.generation), (1, 1));
            scene.publish("a", 2).await;
            assert_eq!(scene.publisher.topics["a"].committed, 2);
            let (directory, disk) = (Directory::new(), scene.disk.clone());
            std::fs::create_dir(&directory.0).unwrap();
            drop(scene.end().await);
            disk.leave(&directory);
            assert_eq!(topics(&directory.open().unwrap())["a"], (2, vec![1, 2]), "{operation}");
        });
    }
}

#[test]
fn a_disk_that_stays_full_is_asked_again_and_again() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        scene.publish("a", 1).await;
        scene.disk.fail("sync", 0, std::io::ErrorKind::StorageFull);
        // There is room for a header, and for nothing else.
        (0..3).for_each(|_| scene.disk.fail("room", 0, std::io::ErrorKind::StorageFull));
        scene.publish("a", 1).await;
        scene.until("it works again", |publisher| publisher.is_on).await;
        assert_eq!(scene.metrics.failures.get(), 4);
        scene.publish("a", 1).await;
        assert_eq!(scene.publisher.topics["a"].committed, 2);
        drop(scene.end().await);
    });
}

/// An operator has ended a topic, or it is not durable any more: nobody is to go on with its past after a restart.
#[test]
fn a_past_that_has_ended_does_not_come_back() {
    for operation in ["none", "write", "sync"] {
        run(async {
            let mut scene = Scene::start(Fake::default(), Census::default(), None);
            scene.publish("a", 3).await;
            scene.publish("b", 1).await;
            scene.disk.fail(operation, 0, std::io::ErrorKind::StorageFull);
            scene.publisher.end_past("a", 9);
            scene.publisher.end_past("unknown", 9);
            scene.publisher.turn();
            if operation != "none" {
                scene.until("it has failed", |publisher| !publisher.is_on).await;
                scene.until("it works again", |publisher| publisher.is_on).await;
            }
            let (directory, disk) = (Directory::new(), scene.disk.clone());
            std::fs::create_dir(&directory.0).unwrap();
            drop(scene.end().await);
            disk.leave(&directory);
            let journal = directory.open().unwrap();
            let found = topics(&journal);
            assert_eq!((&found["a"], &found["b"]), (&(0, vec![]), &(1, vec![1])), "{operation}");
            let ended = journal.topics.iter().find(|legacy| legacy.topic.as_str() == "a").unwrap();
            assert_eq!(ended.cursor.to_string(), "9:0");
        });
    }
}

/// A keeper asks for it at any moment, also while the end of that past is on its way.
#[test]
fn a_place_that_is_written_again_takes_nothing_back() {
    for moment in 0..12 {
        run(async {
            let mut scene = Scene::start(Fake::default(), Census::default(), None);
            scene.publish("a", 3).await;
            scene.publisher.end_past("a", 9);
            scene.publisher.turn();
            for _ in 0..moment {
                tokio::task::yield_now().await;
            }
            let cursor = Cursor { epoch: Epoch(5), offset: Offset(3) };
            let stand = Stand { topic: Topic::parse(b"a", 255).unwrap(), cursor, time_ms: 1 };
            let (done, is_done) = tokio::sync::oneshot::channel();
            scene.shared.orders.borrow_mut().push_back(Order { stands: vec![stand], done });
            scene.shared.bell.notify_one();
            assert_eq!(is_done.await, Ok(true));
            let (directory, disk) = (Directory::new(), scene.disk.clone());
            std::fs::create_dir(&directory.0).unwrap();
            drop(scene.end().await);
            disk.leave(&directory);
            let journal = directory.open().unwrap();
            let places: Vec<_> = journal.topics.iter().map(|legacy| legacy.cursor.to_string()).collect();
            assert_eq!(places, ["9:0"], "at {moment}");
        });
    }
}

/// On a disk that stays full no other segment says where the one before it ended.
#[test]
fn what_was_refused_does_not_come_back() {
    for (operation, after) in [("sync", 0), ("write", 0)] {
        run(async {
            let mut scene = Scene::start(Fake::default(), Census::default(), None);
            scene.publish("a", 3).await;
            scene.disk.fail(operation, after, std::io::ErrorKind::StorageFull);
            (0..100_000).for_each(|_| scene.disk.fail("create", 0, std::io::ErrorKind::StorageFull));
            scene.publish("a", 4).await;
            assert_eq!(scene.publisher.refused, 4);
            let (directory, disk) = (Directory::new(), scene.disk.clone());
            std::fs::create_dir(&directory.0).unwrap();
            scene.kill();
            disk.leave(&directory);
            assert_eq!(topics(&directory.open().unwrap())["a"], (3, vec![1, 2, 3]), "{operation}");
        });
    }
}

#[test]
fn what_came_before_the_end_is_written() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        (0..50).for_each(|_| scene.publisher.publish("a"));
        scene.publisher.turn();
        assert_eq!(scene.end().await.topics["a"].committed, 50);
    });
}

/// Worlds of random publications, faults and housekeeping that end in a crash at a random moment: all that was acknowledged
/// is there, once, in order, in the next one, and nothing that was refused is in its place.
#[test]
fn crashes_take_nothing_that_was_acknowledged() {
    let rounds = std::env::var("HOLDLINE_JOURNAL_WORLDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(10);
    for seed in 0..rounds {
        world(seed);
    }
}

fn world(seed: u64) {
    let mut random = Random::new(seed);
    let directory = Directory::new();
    let mut before: Option<Publisher> = None;
    for life in 0..6 {
        let journal = directory
            .open()
            .unwrap_or_else(|error| panic!("seed {seed}, life {life}: {error}, {:?}", directory.names()));
        if let Some(publisher) = &mut before {
            check(publisher, &topics(&journal), seed, life);
        }
        let census = journal.census;
        let publisher = run(live(&mut random, &directory, census, before.take()));
        before = Some(publisher);
    }
}

/// Some time with one process, up to its end.
async fn live(random: &mut Random, directory: &Directory, census: Census, before: Option<Publisher>) -> Publisher {
    let mut scene = Scene::start(Fake::of(directory), census, before);
    if random.below(3) == 0 {
        let operation = ["write", "sync", "create", "names", "rename", "read"][random.below(6)];
        scene.disk.fail(operation, random.below(20), std::io::ErrorKind::Other);
    }
    let keeper = scene.keeper();
    let keeping = tokio::task::spawn_local(async move {
        loop {
            let _ = keeper.look().await;
            tokio::task::yield_now().await;
        }
    });
    for _ in 0..random.below(400) {
        match random.below(60) {
            0 => tokio::time::sleep(PAUSE).await,
            1..=5 => scene.publisher.forget(["a", "b", "c"][random.below(3)]),
            6..=30 => {
                let name = ["a", "b", "c", "d"][random.below(4)];
                (0..random.below(6)).for_each(|_| scene.publisher.publish(name));
            }
            _ => tokio::task::yield_now().await,
        }
        scene.publisher.turn();
    }
    keeping.abort();
    let disk = scene.disk.clone();
    if random.below(4) == 0 {
        let publisher = scene.end().await;
        disk.leave(directory);
        return publisher;
    }
    let publisher = scene.kill();
    disk.crash(random, directory);
    publisher
}

/// What was found, against what was told. The books are set to what was found: some of what nobody was told of may be there.
fn check(publisher: &mut Publisher, found: &std::collections::BTreeMap<String, (u64, Vec<u64>)>, seed: u64, life: u32) {
    for (name, account) in &mut publisher.topics {
        let at = format!("seed {seed}, life {life}, topic {name}: {account:?}, found {:?}", found.get(name));
        let (cursor, offsets) = match found.get(name) {
            Some((cursor, offsets)) => (*cursor, &offsets[..]),
            None => (0, &[][..]),
        };
        assert!(cursor >= account.committed, "{at}");
        assert!(cursor <= account.reserved.max(account.committed + 100), "{at}");
        assert!(offsets.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{at}");
        let kept = account.kept;
        if kept <= account.committed {
            assert!(offsets.first().is_some_and(|first| *first <= kept) && offsets.last() == Some(&cursor), "{at}");
        }
        *account = Account { reserved: cursor, committed: cursor, kept: account.kept };
    }
}
