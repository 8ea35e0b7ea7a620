//! Housekeeping.

use std::rc::Rc;

use super::super::keeper::Keeper;
use super::faults::{Scene, run};
use super::scene::{BOUNDS, Directory, Fake, topics};
use crate::journal::census::{Bounds, Census};

/// A keeper looks once.
async fn look(scene: &mut Scene) {
    let keeper = Rc::new(scene.keeper());
    keeper_looks(&keeper, scene).await;
}

async fn keeper_looks(keeper: &Rc<Keeper<Fake>>, scene: &mut Scene) {
    let keeper = Rc::clone(keeper);
    let keeping = tokio::task::spawn_local(async move { keeper.look().await.map_err(|error| error.to_string()) });
    while !keeping.is_finished() {
        scene.publisher.turn();
        tokio::task::yield_now().await;
    }
    keeping.await.unwrap().unwrap();
}

/// Ends it, and reads what is there.
async fn found(scene: Scene) -> std::collections::BTreeMap<String, (u64, Vec<u64>)> {
    let (directory, disk) = (Directory::new(), scene.disk.clone());
    std::fs::create_dir(&directory.0).unwrap();
    scene.end().await;
    disk.leave(&directory);
    topics(&directory.open().unwrap())
}

#[test]
fn what_is_not_needed_goes_and_places_stay() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        // A topic that nobody publishes to any more, and one that goes on.
        scene.publish("quiet", 3).await;
        scene.publisher.forget("quiet");
        for _ in 0..200 {
            scene.publish("a", 1).await;
        }
        let before = scene.metrics.segments.get();
        for _ in 0..20 {
            look(&mut scene).await;
        }
        let after = scene.metrics.segments.get();
        assert!(before > 4 && after <= 2, "{before} segments, then {after}");
        assert!(scene.metrics.bytes.get() < 4_000);
        let found = found(scene).await;
        assert_eq!(found["quiet"], (3, vec![]));
        assert!(found["a"].0 == 200 && found["a"].1.ends_with(&[196, 197, 198, 199, 200]), "{found:?}");
    });
}

#[test]
fn a_topic_that_is_rarely_published_to_does_not_hold_all_the_others() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        for _ in 0..40 {
            scene.publish("rare", 1).await;
            scene.publish("a", 20).await;
            look(&mut scene).await;
        }
        assert!(scene.metrics.written.get() > 40_000);
        assert!(scene.metrics.bytes.get() < 10_000, "{} bytes", scene.metrics.bytes.get());
        let found = found(scene).await;
        assert!(found["rare"].0 == 40 && found["rare"].1.ends_with(&[36, 37, 38, 39, 40]), "{found:?}");
        assert!(found["a"].1.ends_with(&[796, 797, 798, 799, 800]), "{found:?}");
    });
}

#[test]
fn a_loud_topic_does_not_cost_a_quiet_one_its_messages() {
    run(async {
        let bounds = Bounds { bytes_max: 8_000, ..BOUNDS };
        let mut scene = Scene::bounded(Fake::default(), Census::default(), None, bounds);
        scene.publish("quiet", 3).await;
        // All of it between two looks.
        for _ in 0..50 {
            scene.publish("loud", 20).await;
        }
        assert!(scene.metrics.bytes.get() > 3 * bounds.bytes_max);
        look(&mut scene).await;
        assert!(scene.metrics.bytes.get() <= bounds.bytes_max, "{} bytes", scene.metrics.bytes.get());
        assert_eq!(scene.metrics.lost.get(), 0);
        let found = found(scene).await;
        assert_eq!(found["quiet"], (3, vec![1, 2, 3]));
        assert!(found["loud"].1.ends_with(&[996, 997, 998, 999, 1000]), "{found:?}");
    });
}

#[test]
fn what_is_needed_and_too_much_goes_and_is_counted() {
    run(async {
        let bounds = Bounds { bytes_max: 8_000, ..BOUNDS };
        let mut scene = Scene::bounded(Fake::default(), Census::default(), None, bounds);
        for topic in 0..60 {
            scene.publish(&format!("topic/{topic}"), 5).await;
        }
        let before = scene.metrics.segments.get();
        look(&mut scene).await;
        let (after, lost) = (scene.metrics.segments.get(), scene.metrics.lost.get());
        assert!(scene.metrics.bytes.get() <= bounds.bytes_max + bounds.segment_bytes, "{}", scene.metrics.bytes.get());
        assert!(lost > 0 && scene.metrics.removed.get() == 0 && before > after, "{before}, {after}, {lost}");
        let found = found(scene).await;
        assert_eq!((&found["topic/0"], &found["topic/59"]), (&(5, vec![]), &(5, vec![1, 2, 3, 4, 5])));
    });
}

#[test]
fn a_file_that_was_changed_stays_and_stops_nothing_else() {
    run(async {
        let bounds = Bounds { bytes_max: 12_000, ..BOUNDS };
        let mut scene = Scene::bounded(Fake::default(), Census::default(), None, bounds);
        scene.publish("quiet", 3).await;
        scene.publish("loud", 100).await;
        scene.publish("loud", 100).await;
        let first = scene.disk.files()[0].clone();
        scene.disk.spoil(&first, 300);
        let keeper = Rc::new(scene.keeper());
        for _ in 0..30 {
            for _ in 0..5 {
                scene.publish("loud", 20).await;
            }
            keeper_looks(&keeper, &mut scene).await;
            let bytes = scene.metrics.bytes.get();
            assert!(bytes <= bounds.bytes_max + bounds.segment_bytes, "{bytes} bytes");
        }
        assert_eq!((scene.metrics.corrupt.get(), scene.metrics.lost.get()), (1, 0));
        assert!(scene.disk.files().contains(&first), "it is needed");
        // What is in it goes when nobody needs that.
        scene.publisher.forget("quiet");
        scene.publish("loud", 100).await;
        keeper_looks(&keeper, &mut scene).await;
        assert!(!scene.disk.files().contains(&first));
        assert_eq!(scene.metrics.corrupt.get(), 0);
        let found = found(scene).await;
        assert_eq!(found["quiet"], (3, vec![]));
        assert!(found["loud"].0 == 3300 && found["loud"].1.ends_with(&[3296, 3297, 3298, 3299, 3300]), "{found:?}");
    });
}

#[test]
fn a_join_that_finds_no_room_leaves_nothing_and_stops_nothing() {
    for (operation, after) in
        [("create", 0), ("write", 0), ("write", 1), ("sync", 0), ("rename", 0), ("names", 0), ("remove", 0)]
    {
        run(async {
            let mut scene = Scene::start(Fake::default(), Census::default(), None);
            scene.publish("quiet", 3).await;
            for _ in 0..20 {
                scene.publish("loud", 50).await;
            }
            let before = scene.metrics.segments.get();
            scene.disk.fail(operation, after, std::io::ErrorKind::StorageFull);
            look(&mut scene).await;
            assert!(!scene.disk.files().iter().any(|name| name.ends_with(".new")), "{operation}");
            scene.publish("loud", 50).await;
            for _ in 0..30 {
                look(&mut scene).await;
            }
            assert!(scene.metrics.segments.get() < before, "{operation}: {} of {before}", scene.metrics.segments.get());
            let found = found(scene).await;
            assert_eq!(found["quiet"], (3, vec![1, 2, 3]), "{operation}");
            assert!(found["loud"].1.ends_with(&[1046, 1047, 1048, 1049, 1050]), "{operation}: {found:?}");
        });
    }
}

#[test]
fn a_disk_that_the_journal_has_filled_becomes_free_by_itself() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        let keeper = Rc::new(scene.keeper());
        keeper.reserve.keep(&scene.disk).await.unwrap();
        scene.disk.limit(30_000);
        // Each file has something that is needed, and most of it is not.
        let mut kept = Vec::new();
        while scene.publisher.is_on {
            let name = format!("kept/{}", kept.len());
            scene.publish(&name, 1).await;
            kept.push(name);
            scene.publish("loud", 30).await;
        }
        kept.pop();
        assert!(scene.shared.is_full.get() && kept.len() > 8 && scene.metrics.segments.get() > 8);
        for round in 0..3 {
            for _ in 0..10 {
                keeper_looks(&keeper, &mut scene).await;
            }
            scene.until("it works again", |publisher| publisher.is_on).await;
            assert!(!scene.shared.is_full.get() && scene.metrics.bytes.get() < 15_000, "{}", scene.metrics.bytes.get());
            assert!(scene.disk.files().contains(&"reserve".to_owned()), "for the next time");
            while round < 2 && scene.publisher.is_on {
                scene.publish("loud", 30).await;
            }
        }
        assert_eq!((scene.metrics.lost.get(), scene.metrics.corrupt.get()), (0, 0));
        let loud = scene.publisher.topics["loud"].committed;
        let found = found(scene).await;
        for name in kept {
            assert_eq!(found[&name], (1, vec![1]), "{name}");
        }
        assert!(found["loud"].0 == loud && found["loud"].1.last() == Some(&loud), "{found:?}");
    });
}

#[test]
fn a_disk_that_is_full_of_what_is_needed_stays_full_and_loses_nothing() {
    run(async {
        let mut scene = Scene::start(Fake::default(), Census::default(), None);
        let keeper = Rc::new(scene.keeper());
        keeper.reserve.keep(&scene.disk).await.unwrap();
        scene.disk.limit(20_000);
        let mut topics = 0;
        while scene.publisher.is_on {
            scene.publish(&format!("kept/{topics}"), 5).await;
            topics += 1;
        }
        let (files, bytes) = (scene.disk.files(), scene.metrics.bytes.get());
        for _ in 0..10 {
            keeper_looks(&keeper, &mut scene).await;
        }
        assert!(!scene.publisher.is_on && scene.metrics.bytes.get() > bytes / 10 * 9);
        assert!(scene.disk.files().len() + 1 >= files.len() && scene.metrics.lost.get() == 0);
        // Somebody makes room.
        scene.disk.limit(0);
        scene.until("it works again", |publisher| publisher.is_on).await;
        scene.publish("kept/0", 1).await;
        let found = found(scene).await;
        assert!(found["kept/0"].1.ends_with(&[2, 3, 4, 5, 6]), "{found:?}");
        assert!((1..topics - 1).all(|topic| found[&format!("kept/{topic}")].1.len() == 5), "{found:?}");
    });
}

/// It waits for places to be written again while nobody is there any more who would.
#[test]
fn a_keeper_ends_when_the_desk_does() {
    let mut cut_short = 0;
    for moment in 0..40 {
        run(async {
            let mut scene = Scene::start(Fake::default(), Census::default(), None);
            for topic in 0..60 {
                let name = format!("quiet/{topic}");
                scene.publish(&name, 1).await;
                scene.publisher.forget(&name);
            }
            scene.publish("a", 100).await;
            let keeper = scene.keeper();
            let keeping = tokio::task::spawn_local(async move { keeper.look().await.is_ok() });
            for _ in 0..moment {
                tokio::task::yield_now().await;
            }
            drop(scene.end().await);
            let ended = tokio::time::timeout(std::time::Duration::from_secs(10), keeping).await;
            let is_done = ended.unwrap_or_else(|_| panic!("it waits for ever when told at {moment}"));
            cut_short += usize::from(!is_done.unwrap());
        });
    }
    assert!(cut_short > 5, "{cut_short}");
}
