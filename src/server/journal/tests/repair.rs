//! Repairs: what can be read goes on, and nobody is kept from hearing of what is lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::open::Owned;
use super::super::{Journal, Opening, unix_ms};
use super::faults::{Scene, run};
use super::scene::{BOUNDS, Directory, Fake, open};
use crate::config::TopicRules;
use crate::journal::census::{Census, Step};

/// Topics that each have three messages before all others.
const QUIET: usize = 30;
/// The epoch of all topics.
const BEFORE: u64 = 5;

/// What a topic has: its epoch, its newest offset, and its messages with their times.
type Had = BTreeMap<String, (u64, u64, Vec<(u64, u64)>)>;

/// Many files, with quiet topics in the first ones, a place, and loud topics in all.
fn written() -> Directory {
    let (directory, disk) = (Directory::new(), Fake::default());
    fs::create_dir(&directory.0).unwrap();
    run(async {
        let mut scene = Scene::start(disk.clone(), Census::default(), None);
        for topic in 0..QUIET {
            scene.publish(&format!("quiet/{topic}"), 3).await;
            scene.publish("loud/1", 1).await;
        }
        scene.publish("ended", 1).await;
        scene.publisher.end_past("ended", BEFORE + 1);
        for _ in 0..100 {
            scene.publish("loud/1", 1).await;
            scene.publish("loud/2", 1).await;
        }
        scene.end().await;
    });
    disk.leave(&directory);
    directory
}

fn had(journal: &Journal) -> Had {
    let topic = |legacy: &crate::hub::topics::Legacy| {
        let left = legacy.messages.iter().map(|left| {
            assert_eq!(left.message.payload(), format!("{} {}", legacy.topic, left.message.offset.0).as_bytes());
            (left.message.offset.0, left.message.time_ms)
        });
        (legacy.topic.to_string(), (legacy.cursor.epoch.0, legacy.cursor.offset.0, left.collect()))
    };
    journal.topics.iter().map(topic).collect()
}

fn repaired(path: &Path) -> Journal {
    open(path, Opening { repair: true, now_ms: unix_ms(), ..Opening::default() }).unwrap()
}

/// The file of a directory that has this text.
fn file_of(path: &Path, text: &str) -> (PathBuf, usize) {
    let files = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "journal")).collect();
    segments.sort();
    let place = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).rposition(|part| part == text.as_bytes()).map(|at| (path, at))
    };
    segments.into_iter().find_map(place).unwrap()
}

/// Changes a byte of this message.
fn spoil(path: &Path, text: &str) -> PathBuf {
    let (file, at) = file_of(path, text);
    let mut bytes = fs::read(&file).unwrap();
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
    file
}

/// All files with what is in them, but for the lock.
fn files(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name != "lock").map(|name| (name.clone(), fs::read(path.join(name)).unwrap())).collect()
}

fn copy(path: &Path) -> Directory {
    let directory = Directory::new();
    copy_to(path, &directory.0);
    directory
}

/// With links: a repair changes no file, and those that are two names of one stay that.
fn copy_to(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    files(from).into_keys().for_each(|name| fs::hard_link(from.join(&name), to.join(&name)).unwrap());
}

/// Topics that begin with this are as they were, from a place on; all others have what could be read, under a new epoch.
fn is_honest(found: &Had, before: &Had, whole: &str, lost: &[&str]) {
    assert_eq!(found.len(), before.len());
    for (name, (epoch, offset, messages)) in found {
        let (its, last, known) = &before[name];
        assert!(messages.iter().all(|message| known.contains(message)), "{name}: {messages:?} of {known:?}");
        if name.starts_with(whole) {
            assert_eq!((epoch, offset, messages.last()), (its, last, known.last()), "{name}");
            continue;
        }
        assert!(*epoch > BEFORE + 1, "{name} goes on as if nothing were lost");
        let is_left = |(offset, _): &&(u64, u64)| !lost.contains(&format!("{name} {offset}").as_str());
        let left = known.iter().filter(is_left).count();
        assert!(messages.len() == left || name.starts_with("loud"), "{name}: {messages:?} of {known:?}");
    }
}

#[test]
fn a_topic_whose_end_is_lost_begins_a_new_epoch() {
    let directory = written();
    let before = had(&directory.open().unwrap());
    spoil(&directory.0, "quiet/1 3");
    let journal = repaired(&directory.0);
    let found = had(&journal);
    // Before the hole: nobody knows what was in it.
    for name in ["quiet/0", "quiet/1"] {
        assert!(found[name].0 > BEFORE + 1 && found[name].0 <= journal.epoch.0, "{name}: {:?}", found[name]);
    }
    assert_eq!(found["quiet/0"].2, before["quiet/0"].2, "its messages and their times stay");
    assert_eq!((found["quiet/1"].1, &found["quiet/1"].2[..]), (2, &before["quiet/1"].2[..2]));
    // Behind it.
    for name in ["quiet/2", "quiet/29", "loud/1", "loud/2", "ended"] {
        assert_eq!((found[name].0, found[name].1), (before[name].0, before[name].1), "{name}");
    }
    drop(journal);
    let journal = directory.open().unwrap();
    assert_eq!(had(&journal), found, "it holds for the next start");
    assert!(journal.epoch.0 >= found["quiet/1"].0);
}

#[test]
fn a_missing_file_may_have_had_the_end_of_any_topic_before_it() {
    let directory = written();
    let before = had(&directory.open().unwrap());
    fs::remove_file(file_of(&directory.0, "loud/2 20").0).unwrap();
    let found = had(&repaired(&directory.0));
    is_honest(&found, &before, "loud", &[]);
    assert_eq!(found["ended"].1, 0);
    assert_eq!(had(&directory.open().unwrap()), found);
}

#[test]
fn a_hole_in_the_last_file_is_behind_all_that_is_before_it() {
    let directory = written();
    let before = had(&directory.open().unwrap());
    spoil(&directory.0, "loud/2 99");
    let found = had(&repaired(&directory.0));
    is_honest(&found, &before, "loud", &[]);
    assert_eq!(had(&directory.open().unwrap()), found);
}

/// What a header has said of the file before it is not known any more, but all records can be read.
#[test]
fn a_header_that_is_lost_costs_no_record_and_hides_nothing() {
    let count = files(&written().0).len();
    assert!(count > 5);
    for (place, damage) in (0..count).flat_map(|place| [0, 20, 45].map(|at| (place, at))) {
        let directory = written();
        let before = had(&directory.open().unwrap());
        let name = files(&directory.0).into_keys().nth(place).unwrap();
        let mut bytes = fs::read(directory.0.join(&name)).unwrap();
        bytes[damage] ^= 1;
        fs::write(directory.0.join(&name), bytes).unwrap();
        assert!(directory.open().is_err());
        let found = had(&repaired(&directory.0));
        assert_eq!(found.len(), before.len(), "{name}");
        for (topic, (epoch, offset, messages)) in &before {
            let its = &found[topic];
            assert_eq!((&its.1, &its.2), (offset, messages), "{topic}, {name} at {damage}");
            assert!(its.0 == *epoch || its.0 > BEFORE + 1, "{topic}: {}", its.0);
        }
        assert_eq!(found["loud/2"].0, BEFORE, "what is behind it goes on");
        assert!(place < 2 || found["quiet/0"].0 > BEFORE + 1, "what is before it does not");
        assert_eq!(had(&directory.open().unwrap()), found);
    }
}

/// Whenever it is killed: no start goes on as if nothing were lost, and another repair comes to the same.
#[test]
fn a_repair_that_is_killed_hides_nothing() {
    let whole = "loud";
    check_steps(&["loud/2 99"], false, whole);
    check_steps(&["quiet/29 3", "loud/2 99"], false, whole);
    check_steps(&["quiet/3 1", "loud/1 40"], true, whole);
    // Its last commit may have been told.
    check_steps(&["quiet/29 3", "loud/2 99"], true, "nothing is whole");
}

/// A repair where these messages are spoiled and the last file may have a torn end.
fn check_steps(spoiled: &[&str], is_torn: bool, whole: &str) {
    let directory = written();
    let before = &had(&directory.open().unwrap());
    spoiled.iter().for_each(|text| drop(spoil(&directory.0, text)));
    if is_torn {
        let last = file_of(&directory.0, "loud/2 100").0;
        fs::write(&last, [&fs::read(&last).unwrap()[..], b"torn"].concat()).unwrap();
    }
    let steps = steps(&directory);
    let (first, last) = (files(&steps[0].0), files(&directory.0));
    let wrong = last.keys().filter(|name| name.ends_with(".damaged")).count();
    let renewals = last.len() - wrong - first.len();
    // What is put aside is so in a step of its own.
    assert!(renewals > 1 && steps.len() == 1 + renewals + 2 * wrong, "{} steps, {renewals}, {wrong}", steps.len());
    for (number, step) in steps.iter().enumerate() {
        let is_done = number + 1 == steps.len();
        match copy(&step.0).open() {
            Err(said) => assert!(!is_done && said.starts_with("the journal is corrupt: "), "{said}"),
            Ok(_) => assert!(is_done, "it goes on after step {number}"),
        }
        let found = had(&repaired(&step.0));
        is_honest(&found, before, whole, spoiled);
        assert_eq!(had(&step.open().unwrap()), found, "after step {number}");
        let aside = files(&step.0).keys().filter(|name| name.contains(".damaged")).count();
        assert_eq!(aside, wrong, "nothing is put aside twice");
    }
}

/// Repairs a directory, and says how it was before that and after each step.
fn steps(directory: &Directory) -> Vec<Directory> {
    fn step(path: &Path, number: usize) -> PathBuf {
        format!("{}.{number}", path.display()).into()
    }
    fn keep(path: &Path) {
        let number = (0..).find(|&number| !step(path, number).exists()).unwrap();
        copy_to(path, &step(path, number));
    }
    keep(&directory.0);
    let mut owned = Owned::take(&directory.0, Duration::ZERO).unwrap();
    owned.on_step = Some(keep);
    owned.read(&TopicRules::default(), unix_ms(), true).unwrap();
    (0..).map(|number| step(&directory.0, number)).take_while(|path| path.exists()).map(Directory).collect()
}

#[test]
fn a_second_repair_keeps_what_the_first_one_put_aside() {
    let directory = written();
    let mut kept = Vec::new();
    for text in ["quiet/1 3", "quiet/1 1"] {
        let file = spoil(&directory.0, text);
        kept.push(fs::read(&file).unwrap());
        drop(repaired(&directory.0));
    }
    let files = files(&directory.0);
    let aside = |name: &str| files.get(name).cloned();
    assert_eq!(aside("0000000000000001.journal.damaged"), Some(kept.remove(0)));
    assert_eq!(aside("0000000000000001.journal.damaged.2"), Some(kept.remove(0)));
}

#[test]
fn copies_that_are_put_aside_have_an_end() {
    let directory = written();
    let file = spoil(&directory.0, "quiet/1 3");
    let name = format!("{}.damaged", file.display());
    fs::write(&name, b"").unwrap();
    (2..100).for_each(|copy| fs::write(format!("{name}.{copy}"), b"").unwrap());
    let said = open(&directory.0, Opening { repair: true, ..Opening::default() }).unwrap_err();
    assert!(said.starts_with("cannot repair the journal: ") && said.contains(&*file.display().to_string()), "{said}");
    assert!(directory.open().unwrap_err().starts_with("the journal is corrupt: "), "nothing is hidden meanwhile");
    fs::remove_file(format!("{name}.50")).unwrap();
    assert!(had(&repaired(&directory.0))["quiet/1"].0 > BEFORE);
}

#[test]
fn who_only_looks_changes_nothing() {
    let directory = written();
    spoil(&directory.0, "quiet/1 3");
    fs::write(directory.0.join("0000000000000099.journal.new"), b"begun").unwrap();
    let before = files(&directory.0);
    assert!(Journal::look(&directory.0, &TopicRules::default(), unix_ms()).is_err());
    assert_eq!(files(&directory.0), before);
}

#[test]
fn messages_before_a_hole_that_are_needed_stay() {
    let (directory, disk) = (Directory::new(), Fake::default());
    fs::create_dir(&directory.0).unwrap();
    run(async {
        let mut scene = Scene::start(disk.clone(), Census::default(), None);
        scene.publish("needed", 2).await;
        for _ in 0..40 {
            scene.publish("other", 1).await;
        }
        scene.publish("needed", 1).await;
        scene.publisher.end_past("other", BEFORE + 1);
        scene.end().await;
    });
    disk.leave(&directory);
    spoil(&directory.0, "other 7");
    let journal = repaired(&directory.0);
    let needed = &had(&journal)["needed"];
    assert_eq!((needed.0, needed.2.len()), (BEFORE, 3));
    let mut census = journal.census;
    census.numbers().into_iter().for_each(|number| census.weigh(number));
    assert_ne!(census.next_step(&BOUNDS, unix_ms()), Some(Step::Remove(1)), "it has two of them");
}
