//! Housekeeping.

use super::faults::{Scene, run};
use super::scene::{Directory, Fake, topics};
use crate::journal::census::Census;

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
        let keeper = scene.keeper();
        for _ in 0..20 {
            let keeping = tokio::task::spawn_local({
                let keeper = scene.keeper();
                async move { keeper.look().await.map_err(|error| error.to_string()) }
            });
            while !keeping.is_finished() {
                scene.publisher.turn();
                tokio::task::yield_now().await;
            }
            keeping.await.unwrap().unwrap();
        }
        drop(keeper);
        let after = scene.metrics.segments.get();
        assert!(before > 4 && after <= 2, "{before} segments, then {after}");
        assert!(scene.metrics.bytes.get() < 4_000);
        let (directory, disk) = (Directory::new(), scene.disk.clone());
        std::fs::create_dir(&directory.0).unwrap();
        scene.end().await;
        disk.leave(&directory);
        let found = topics(&directory.open().unwrap());
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
            let keeping = tokio::task::spawn_local({
                let keeper = scene.keeper();
                async move { keeper.look().await.map_err(|error| error.to_string()) }
            });
            while !keeping.is_finished() {
                scene.publisher.turn();
                tokio::task::yield_now().await;
            }
            keeping.await.unwrap().unwrap();
        }
        assert!(scene.metrics.written.get() > 40_000);
        assert!(scene.metrics.bytes.get() < 10_000, "{} bytes", scene.metrics.bytes.get());
        let (directory, disk) = (Directory::new(), scene.disk.clone());
        std::fs::create_dir(&directory.0).unwrap();
        scene.end().await;
        disk.leave(&directory);
        let found = topics(&directory.open().unwrap());
        assert!(found["rare"].0 == 40 && found["rare"].1.ends_with(&[36, 37, 38, 39, 40]), "{found:?}");
        assert!(found["a"].1.ends_with(&[796, 797, 798, 799, 800]), "{found:?}");
    });
}
