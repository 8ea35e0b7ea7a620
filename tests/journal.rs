//! Durable topics of a real server that is killed: all that was acknowledged is there afterwards, in order, once.
//!
//! `HOLDLINE_JOURNAL_ROUNDS=200` kills it as often.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "journal/disks.rs"]
mod disks;
#[path = "common/program.rs"]
mod program;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use program::{PATIENCE, Program, Scratch, holdline, until};

/// A directory that is gone with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether this machine can have a journal; says loudly where it cannot.
fn has_uring() -> bool {
    let has = holdline::io::uring::probe().is_ok();
    if !has {
        eprintln!("NOT CHECKED: there is no io_uring here, which the journal needs");
    }
    has
}

fn settings(directory: &Path, more: &str) -> Scratch {
    bounded_settings(directory, "64MiB", more)
}

fn bounded_settings(directory: &Path, bytes_max: &str, more: &str) -> Scratch {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let text = format!(
        "[journal]\ndir = {:?}\nsegment_bytes = \"1MiB\"\nbytes_max = {bytes_max:?}\n[history]\nmessages_max = 1000000\n\
         bytes_max = \"64MiB\"\nage_max = \"1h\"\n[topics.\"durable/**\"]\ndurable = true\n{more}",
        directory.display()
    );
    Scratch::with(&format!("journal-{number}.toml"), &text)
}

fn serve(settings: &Scratch) -> Command {
    let mut command = holdline(&["serve", "--config", settings.path(), "--listen", "http://127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0", "--shards", "2", "--drain", "1s"]).stderr(Stdio::null());
    command
}

/// A connection for one request after the other.
struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(address: &str) -> Option<Self> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.set_nodelay(true).ok()?;
        Some(Self(BufReader::new(stream)))
    }

    /// The status and the body of an answer; `None` when the server has gone.
    fn ask(&mut self, head: &str, body: &str) -> Option<(u16, String)> {
        let length = body.len();
        let request = format!("{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}");
        self.0.get_mut().write_all(request.as_bytes()).ok()?;
        let (mut status, mut length, mut line) = (None, 0, String::new());
        loop {
            line.clear();
            self.0.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
            let lower = line.trim_end().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if status.is_none() {
                status = lower.split(' ').nth(1)?.parse().ok();
            }
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).ok()?;
        Some((status?, String::from_utf8(body).ok()?))
    }

    fn publish(&mut self, topic: &str, text: &str) -> Option<(u16, String)> {
        self.ask(&format!("POST /topics/{topic}"), text)
    }

    /// The place of a publication that has one.
    fn published(&mut self, topic: &str, text: &str) -> Option<(u64, u64)> {
        let (status, body) = self.publish(topic, text)?;
        assert_eq!(status, 200, "{body}");
        Some((number(&body, "epoch"), number(&body, "offset")))
    }

    /// A topic's history: places and texts.
    fn history(&mut self, topic: &str) -> Vec<(u64, u64, String)> {
        let (status, body) = self.ask(&format!("GET /topics/{topic}/history?limit=1000000"), "").unwrap();
        assert_eq!(status, 200, "{body}");
        let messages: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        let message = |message: &serde_json::Value| {
            let field = |name: &str| message[name].as_u64().unwrap();
            (field("epoch"), field("offset"), message["text"].as_str().unwrap().to_owned())
        };
        messages.iter().map(message).collect()
    }

    fn metric(&mut self, name: &str) -> u64 {
        let (_, body) = self.ask("GET /metrics", "").unwrap();
        let line =
            body.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{name} is not in {body}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn number(json: &str, name: &str) -> u64 {
    let value: serde_json::Value = serde_json::from_str(json).unwrap();
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {json}"))
}

/// What publishers were told: by topic, the texts by their places.
type Told = BTreeMap<String, BTreeMap<(u64, u64), String>>;

/// Publishes from several connections until the server is killed, after so long; says what was acknowledged.
fn load(program: &mut Program, round: u64, life: Duration) -> Told {
    const PUBLISHERS: usize = 6;
    let (address, told) = (program.address(0).to_owned(), Mutex::new(Told::new()));
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (address, told) = (&address, &told);
            scope.spawn(move || {
                let Some(mut client) = Client::connect(address) else { return };
                let topic = format!("durable/{}", publisher % 3);
                for message in 0.. {
                    let text = format!("{round} {publisher} {message} {}", "x".repeat(message % 200));
                    let Some(place) = client.published(&topic, &text) else { return };
                    let before = told.lock().unwrap().entry(topic.clone()).or_default().insert(place, text);
                    assert_eq!(before, None, "two have one place: {place:?}");
                }
            });
        }
        thread::sleep(life);
        program.child.kill().unwrap();
    });
    told.into_inner().unwrap()
}

/// What was told is there, at its place; places follow each other, and no text is there twice.
fn check(client: &mut Client, told: &Told, round: u64) {
    for (topic, messages) in told {
        let history = client.history(topic);
        let by_place: BTreeMap<_, _> = history.iter().map(|(epoch, offset, text)| ((*epoch, *offset), text)).collect();
        for (place, text) in messages {
            assert_eq!(by_place.get(place), Some(&text), "round {round}: {topic} at {place:?}");
        }
        assert!(history.windows(2).all(|two| two[0].1 + 1 == two[1].1 && two[0].0 == two[1].0), "round {round}: a gap");
        let mut texts: Vec<_> = history.iter().map(|(_, _, text)| text).collect();
        texts.sort_unstable();
        assert!(texts.windows(2).all(|two| two[0] != two[1]), "round {round}: twice");
    }
}

#[test]
fn a_server_that_is_killed_has_kept_all_that_it_acknowledged() {
    if !has_uring() {
        return;
    }
    let rounds = std::env::var("HOLDLINE_JOURNAL_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(4);
    let directory = Directory::new("killed");
    let settings = settings(&directory.0, "");
    let (mut told, mut count, began) = (Told::new(), 0, Instant::now());
    for round in 0..rounds {
        let mut program = Program::start(serve(&settings));
        let mut client = Client::connect(program.address(0)).unwrap();
        check(&mut client, &told, round);
        // What is not durable is not there, and costs no wait.
        assert_eq!(client.history("plain"), []);
        client.published("plain", "hello").unwrap();
        // A random moment: of the clock's.
        let random =
            u64::from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_micros());
        let more = load(&mut program, round, Duration::from_millis(50 + random % 250));
        program.child.wait().unwrap();
        for (topic, messages) in more {
            count += messages.len();
            // Histories of thousands of messages would be all that is checked after many rounds.
            told.insert(topic, messages);
        }
    }
    let program = Program::start(serve(&settings));
    check(&mut Client::connect(program.address(0)).unwrap(), &told, rounds);
    println!("{rounds} rounds, {count} messages acknowledged and found, {:?}", began.elapsed());
    assert!(count > 0);
    program.signal("-TERM");
    program.ends_well();
}

#[test]
fn what_was_drained_is_there_and_offsets_go_on() {
    if !has_uring() {
        return;
    }
    let directory = Directory::new("drained");
    let settings = settings(&directory.0, "");
    let mut first = None;
    for life in 0..3 {
        let program = Program::start(serve(&settings));
        let mut client = Client::connect(program.address(0)).unwrap();
        let (epoch, offset) = client.published("durable/a", &format!("life {life}")).unwrap();
        assert_eq!((*first.get_or_insert(epoch), offset), (epoch, life + 1));
        assert_eq!(client.history("durable/a").len() as u64, life + 1);
        let mut admin = Client::connect(program.address(1)).unwrap();
        assert_eq!(admin.metric("holdline_journal_working"), 1);
        assert_eq!(admin.metric("holdline_journal_messages_total"), 1);
        drop((client, admin));
        program.signal("-TERM");
        program.ends_well();
    }
}

/// More than half of what the journal may have is needed, each file has some of it, and what is not needed goes on and on.
#[test]
fn a_loud_topic_does_not_cost_a_quiet_one_what_was_acknowledged() {
    if !has_uring() {
        return;
    }
    let directory = Directory::new("loud");
    let loud = "[topics.\"loud\"]\ndurable = true\nhistory.messages_max = 10\n";
    let settings = bounded_settings(&directory.0, "4MiB", loud);
    let mut program = Program::start(serve(&settings));
    let mut client = Client::connect(program.address(0)).unwrap();
    let (needed, other) = ("n".repeat(50_000), "l".repeat(40_000));
    let mut told = Vec::new();
    for _ in 0..50 {
        told.push(client.published("durable/quiet", &needed).unwrap());
        client.published("loud", &other).unwrap();
    }
    for _ in 0..100 {
        client.published("loud", &other).unwrap();
    }
    let admin = RefCell::new(Client::connect(program.address(1)).unwrap());
    // The newest one stays as it is.
    until("the bound is kept to", || admin.borrow_mut().metric("holdline_journal_bytes") <= 5 << 20);
    assert_eq!(admin.borrow_mut().metric("holdline_journal_segments_lost_total"), 0);
    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let program = Program::start(serve(&settings));
    let history = Client::connect(program.address(0)).unwrap().history("durable/quiet");
    let places: Vec<_> = history.iter().map(|(epoch, offset, _)| (*epoch, *offset)).collect();
    assert_eq!(places, told);
}

#[test]
fn a_journal_that_cannot_be_is_told_in_one_line() {
    if !has_uring() {
        return;
    }
    let said = |settings: &Scratch, more: &[&str]| {
        let mut command = serve(settings);
        let output = command.args(more).stderr(Stdio::piped()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap().lines().last().unwrap_or_default().to_owned()
    };
    let line = said(&settings("/dev/null/journal".as_ref(), ""), &[]);
    assert!(line.contains("Not a directory") && line.contains("journal.dir"), "{line}");

    let directory = Directory::new("told");
    let settings = settings(&directory.0, "");
    let program = Program::start(serve(&settings));
    let line = said(&settings, &[]);
    assert!(line.contains("another process has this directory"), "{line}");
    let mut client = Client::connect(program.address(0)).unwrap();
    for text in ["one", "two", "three"] {
        client.published("durable/a", text).unwrap();
    }
    drop(client);
    program.signal("-TERM");
    program.ends_well();

    let file = directory.0.join("0000000000000001.journal");
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(3).position(|three| three == b"two").unwrap();
    bytes[at] = b'T';
    fs::write(&file, bytes).unwrap();
    let line = said(&settings, &[]);
    assert!(
        line.contains("the journal is corrupt: what is at position ") && line.contains("--journal-repair"),
        "{line}"
    );
    assert!(line.contains("0000000000000001.journal"), "{line}");
    let mut command = serve(&settings);
    command.arg("--journal-repair");
    let program = Program::start(command);
    let mut client = Client::connect(program.address(0)).unwrap();
    let texts: Vec<_> = client.history("durable/a").into_iter().map(|(_, offset, text)| (offset, text)).collect();
    assert_eq!(texts, [(3, "three".to_owned())], "no past with a hole");
    assert!(directory.0.join("0000000000000001.journal.damaged").exists());
}

/// Publishes from several connections while `work` is done, and comes back to whoever serves there; says what was
/// acknowledged. `work` can wait until some more of each topic was.
fn load_during(address: &str, work: impl FnOnce(&dyn Fn())) -> Told {
    let (told, over) = (Mutex::new(Told::new()), AtomicBool::new(false));
    thread::scope(|scope| {
        for publisher in 0..4 {
            let (told, over) = (&told, &over);
            scope.spawn(move || {
                let topic = format!("durable/{}", publisher % 2);
                let mut client = None;
                for message in 0.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let text = format!("{publisher} {message}");
                    let Some(there) = client.as_mut() else {
                        client = Client::connect(address);
                        continue;
                    };
                    match there.publish(&topic, &text) {
                        Some((200, body)) => {
                            let place = (number(&body, "epoch"), number(&body, "offset"));
                            let before = told.lock().unwrap().entry(topic.clone()).or_default().insert(place, text);
                            assert_eq!(before, None, "two have one place: {place:?}");
                        }
                        Some((503, _)) => thread::sleep(Duration::from_millis(10)),
                        Some((status, body)) => panic!("{status} {body}"),
                        None => client = None,
                    }
                }
            });
        }
        let least = || {
            let told = told.lock().unwrap();
            (0..2).map(|number| told.get(&format!("durable/{number}")).map_or(0, BTreeMap::len)).min().unwrap()
        };
        let flows = || {
            let from = least();
            until("some more is acknowledged", || least() >= from + 20);
        };
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&flows)));
        over.store(true, Ordering::Relaxed);
        done.unwrap();
    });
    told.into_inner().unwrap()
}

/// The journal goes over to the next process with the topics, under load: one order, and all that either of them has
/// acknowledged is on the disk.
#[test]
fn a_journal_goes_over_to_the_next_process() {
    if !has_uring() {
        return;
    }
    let (directory, socket) = (Directory::new("over"), Scratch::new("journal-upgrade"));
    let settings = settings(&directory.0, "");
    let upgrade = |settings: &Scratch, address: &str| {
        let mut command = holdline(&["serve", "--config", settings.path(), "--listen", &format!("http://{address}")]);
        command.args([
            "--admin",
            "off",
            "--shards",
            "2",
            "--drain",
            "1s",
            "--upgrade-socket",
            socket.path(),
            "--upgrade",
        ]);
        command
    };
    let mut command = upgrade(&settings, "127.0.0.1:0");
    command.stderr(Stdio::null());
    let mut program = Program::start(command);
    let address = program.address(0).to_owned();
    let told = load_during(&address, |flows| {
        for _ in 0..3 {
            flows();
            let mut command = upgrade(&settings, &address);
            command.stderr(Stdio::null());
            std::mem::replace(&mut program, Program::start(command)).ends_well();
        }
        flows();
    });
    let epochs = |messages: &BTreeMap<(u64, u64), String>| messages.keys().map(|key| key.0).collect::<BTreeSet<_>>();
    assert!(told.values().all(|messages| epochs(messages).len() == 1), "one past across all of them");
    check(&mut Client::connect(&address).unwrap(), &told, 0);

    // A next one that could not read the journal says so while the one before still serves.
    let file = fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|extension| extension == "journal")).min().unwrap();
    let good = fs::read(&file).unwrap();
    let mut bad = good.clone();
    let at = bad.windows(3).position(|three| three == b"0 1").unwrap();
    bad[at] = b'X';
    fs::write(&file, bad).unwrap();
    let output = upgrade(&settings, &address).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap().lines().last().unwrap_or_default().to_owned();
    assert!(!output.status.success() && line.contains("the journal is corrupt"), "{line}");
    fs::write(&file, good).unwrap();
    Client::connect(&address).unwrap().published("durable/0", "it still serves").unwrap();

    program.child.kill().unwrap();
    program.child.wait().unwrap();
    let program = Program::start(serve(&settings));
    check(&mut Client::connect(program.address(0)).unwrap(), &told, 1);
}
