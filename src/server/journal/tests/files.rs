//! Directories as they may be found.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::super::Opening;
use super::faults::{Scene, run};
use super::scene::{Directory, Fake, open, topics};
use crate::journal::census::Census;

/// A directory with so many messages of one topic, each in a commit of its own.
fn written(messages: usize) -> Directory {
    let (directory, disk) = (Directory::new(), Fake::default());
    fs::create_dir(&directory.0).unwrap();
    run(async {
        let mut scene = Scene::start(disk.clone(), Census::default(), None);
        for _ in 0..messages {
            scene.publish("a", 1).await;
        }
        scene.end().await;
    });
    disk.leave(&directory);
    directory
}

fn repaired(directory: &Directory) -> Vec<u64> {
    let how = Opening { repair: true, now_ms: super::super::unix_ms(), ..Opening::default() };
    topics(&open(&directory.0, how).unwrap())["a"].1.clone()
}

fn first(directory: &Directory) -> std::path::PathBuf {
    directory.0.join("0000000000000001.journal")
}

#[test]
fn a_directory_is_made_and_had_by_one_process() {
    let directory = Directory::new();
    let nested = directory.0.join("a/b");
    let journal = open(&nested, Opening::default()).unwrap();
    assert_eq!(fs::metadata(&nested).unwrap().permissions().mode() & 0o777, 0o700);
    let said = open(&nested, Opening::default()).unwrap_err();
    assert_eq!(
        said,
        format!(
            "cannot keep a journal: another process has this directory, {}: end that one, or give each its own journal.dir",
            nested.display()
        )
    );
    let waits = std::thread::spawn({
        let nested = nested.clone();
        move || open(&nested, Opening { wait: Duration::from_secs(60), ..Opening::default() }).is_ok()
    });
    std::thread::sleep(Duration::from_millis(30));
    drop(journal);
    assert!(waits.join().unwrap(), "it waits for the one before");
}

#[test]
fn a_directory_that_cannot_be_is_told() {
    let said = open("/dev/null/journal".as_ref(), Opening::default()).unwrap_err();
    assert!(said.starts_with("cannot keep a journal: Not a directory") && said.contains("/dev/null/journal"), "{said}");
    assert!(said.contains("journal.dir"), "{said}");
}

#[test]
fn foreign_files_are_left_alone_and_unfinished_ones_removed() {
    let directory = written(3);
    for name in ["notes.txt", "7.journal", "0000000000000009.journal.new", "0000000000000001.journal.damaged"] {
        fs::write(directory.0.join(name), b"whatever").unwrap();
    }
    assert_eq!(topics(&directory.open().unwrap())["a"].0, 3);
    assert_eq!(
        directory.names(),
        ["0000000000000001.journal", "0000000000000001.journal.damaged", "7.journal", "notes.txt"]
    );
}

#[test]
fn a_segment_that_was_never_begun_is_no_harm() {
    for bytes in [&b""[..], b"HOLDLINE\x01", &[0; 64]] {
        let directory = written(3);
        fs::write(directory.0.join("0000000000000002.journal"), bytes).unwrap();
        assert_eq!(topics(&directory.open().unwrap())["a"], (3, vec![1, 2, 3]));
        assert_eq!(directory.names(), ["0000000000000001.journal"]);
    }
}

#[test]
fn a_torn_end_is_cut() {
    let directory = written(3);
    let bytes = fs::read(first(&directory)).unwrap();
    fs::write(first(&directory), &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(topics(&directory.open().unwrap())["a"], (2, vec![1, 2]));
    // And it stays cut when there is more behind it.
    run(async {
        let census = directory.open().unwrap().census;
        let mut scene = Scene::start(Fake::of(&directory), census, None);
        scene.publisher.topics.entry("a".to_owned()).or_default().reserved = 2;
        scene.publisher.topics.entry("a".to_owned()).or_default().committed = 2;
        scene.publish("a", 1).await;
        let disk = scene.disk.clone();
        scene.end().await;
        disk.leave(&directory);
    });
    assert_eq!(topics(&directory.open().unwrap())["a"], (3, vec![1, 2, 3]));
}

#[test]
fn corruption_is_refused_with_its_place_and_repaired_when_that_is_said() {
    let directory = written(60);
    assert!(directory.names().len() > 1, "{:?}", directory.names());
    let mut bytes = fs::read(first(&directory)).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(first(&directory), &bytes).unwrap();
    let said = directory.open().unwrap_err();
    assert!(said.starts_with("the journal is corrupt: what is at position "), "{said}");
    assert!(said.contains("0000000000000001.journal: ") && said.ends_with("--journal-repair"), "{said}");
    let left = repaired(&directory);
    assert!(left.len() > 30 && left.len() < 60 && left.last() == Some(&60), "behind the hole: {left:?}");
    assert_eq!(fs::read(directory.0.join("0000000000000001.journal.damaged")).unwrap(), bytes, "it is kept aside");
    assert_eq!(topics(&directory.open().unwrap())["a"].1, left, "once is enough");
}

#[test]
fn truncated_and_missing_files_are_refused_and_repaired_when_that_is_said() {
    let directory = written(60);
    let bytes = fs::read(first(&directory)).unwrap();
    for change in ["truncated", "empty", "headless", "missing"] {
        let directory = written(90);
        match change {
            "truncated" => fs::write(first(&directory), &bytes[..bytes.len() / 2]).unwrap(),
            "empty" => fs::write(first(&directory), b"").unwrap(),
            "headless" => {
                let mut bytes = bytes.clone();
                bytes[..64].fill(7);
                fs::write(first(&directory), &bytes).unwrap();
            }
            _ => fs::remove_file(directory.0.join("0000000000000002.journal")).unwrap(),
        }
        let said = directory.open().unwrap_err();
        assert!(said.starts_with("the journal is corrupt: ") && said.contains(".journal: "), "{change}: {said}");
        let left = repaired(&directory);
        assert!(left.last() == Some(&90), "{change}: {left:?}");
        assert_eq!(topics(&directory.open().unwrap())["a"].1, left, "{change}");
    }
}
