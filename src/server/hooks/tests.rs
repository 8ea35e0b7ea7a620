#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{FLUSH, Hooking, HooksError};
use crate::config::{Cluster, Config, HookKind, Hooks, Loader};
use crate::hooks::port::ShardEnd;
use crate::hooks::testing::{message, occupied, vacated, vacated_aside};
use crate::hooks::{Event, What};
use crate::metrics::{HooksMetrics, Undelivered};
use crate::shard::{Control, Live};

/// Nothing that a test waits for takes so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a receiver does with its next request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    /// A status, and fields.
    Status(u16, &'static str),
    /// The same, and the connection is closed without a word about it.
    Closing(u16),
    /// A status, and the body that it promises never comes.
    HeadOnly(u16),
    /// Nothing, for as long as the test takes.
    Silence,
    /// The end of the connection.
    Hangup,
}

/// A request.
#[derive(Debug)]
struct Heard {
    head: String,
    body: Value,
    /// Of which connection.
    connection: usize,
}

impl Heard {
    fn ids(&self) -> Vec<&str> {
        self.body["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap()).collect()
    }

    fn topics(&self) -> Vec<&str> {
        self.body["events"].as_array().unwrap().iter().map(|event| event["topic"].as_str().unwrap()).collect()
    }
}

/// A receiver that answers as it is told, the last way again and again; and what it hears.
fn receiver(answers: Vec<Answer>) -> (String, mpsc::Receiver<Heard>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/in?key=7", listener.local_addr().unwrap());
    let (say, heard) = mpsc::channel();
    thread::spawn(move || {
        let (mut number, mut silent) = (0, Vec::new());
        for (connection, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            while let Some((head, body)) = request(&mut stream) {
                let answer = answers[number.min(answers.len() - 1)];
                number += 1;
                if say.send(Heard { head, body: serde_json::from_slice(&body).unwrap(), connection }).is_err() {
                    return;
                }
                match answer {
                    Answer::Status(status, fields) => reply(&mut stream, status, fields),
                    Answer::Closing(status) => {
                        reply(&mut stream, status, "");
                        break;
                    }
                    Answer::Hangup => break,
                    Answer::HeadOnly(status) => {
                        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n\r\n");
                        stream.get_mut().write_all(head.as_bytes()).unwrap();
                        silent.push(stream);
                        break;
                    }
                    Answer::Silence => {
                        silent.push(stream);
                        break;
                    }
                }
            }
        }
    });
    (url, heard)
}

fn reply(stream: &mut BufReader<TcpStream>, status: u16, fields: &str) {
    let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 2\r\n{fields}\r\nok");
    stream.get_mut().write_all(answer.as_bytes()).unwrap();
}

fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let (mut head, mut length) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let start = head.len();
        stream.read_line(&mut head).ok().filter(|&bytes| bytes > 0)?;
        if let Some(value) = head[start..].to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// A thread that tells, and a shard that it listens to.
struct Scene {
    hooking: Hooking,
    shard: ShardEnd,
    metrics: Arc<HooksMetrics>,
    control: Arc<Control>,
}

impl Scene {
    fn new(url: &str, more: &str) -> Self {
        Self::try_new(url, more).unwrap()
    }

    fn try_new(url: &str, more: &str) -> Result<Self, HooksError> {
        let control = Arc::new(Control::new(Live::of(&config(url, more))));
        let metrics = Arc::<HooksMetrics>::default();
        let (hooking, mut ends) = Hooking::start(&control, 1, Some(&metrics), &Cluster::default())?.unwrap();
        Ok(Self { hooking, shard: ends.remove(0), metrics, control })
    }

    fn tell(&mut self, events: impl IntoIterator<Item = Event>) {
        events.into_iter().for_each(|event| self.shard.tell(event));
        self.shard.flush();
    }

    fn dropped(&self, why: Undelivered) -> u64 {
        self.metrics.dropped[why as usize].get()
    }

    fn wait(&self, what: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !what(self) {
            assert!(Instant::now() < deadline, "{:?}", self.metrics);
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn config(url: &str, more: &str) -> Config {
    let mut loader = Loader::new();
    let delay = if more.contains("batch_delay") { "" } else { "batch_delay = \"20ms\"" };
    let text = format!("[hooks]\nurl = {url:?}\n{delay}\n{more}\n");
    loader.text("h.toml".as_ref(), &text);
    loader.finish().unwrap()
}

fn next(heard: &mpsc::Receiver<Heard>) -> Heard {
    heard.recv_timeout(PATIENCE).unwrap()
}

const TAKEN: Answer = Answer::Status(200, "");

#[test]
fn events_come_in_batches_in_order_and_signed() {
    let (url, heard) = receiver(vec![TAKEN]);
    let mut scene = Scene::new(&url, "batch_max = 3\nsecret_file = \"tests/keys/hook-secret\"");
    scene.tell(["a", "b", "c", "d"].map(occupied));
    let first = next(&heard);
    assert!(first.head.starts_with("POST /in?key=7 HTTP/1.1\r\n"), "{}", first.head);
    let lower = first.head.to_ascii_lowercase();
    for field in
        ["host: 127.0.0.1:", "content-type: application/json\r\n", "user-agent: holdline/", "holdline-signature: t="]
    {
        assert!(lower.contains(field), "{field} {lower}");
    }
    assert_eq!(
        (first.topics(), &first.body["batch"], &first.body["missed"]),
        (vec!["a", "b", "c"], &1.into(), &Value::Null)
    );
    let second = next(&heard);
    assert_eq!((second.topics(), &second.body["batch"], second.connection), (vec!["d"], &2.into(), 0));
    assert_eq!(first.body["node"], second.body["node"]);
    assert!(second.ids()[0].ends_with("-4"), "{:?}", second.ids());
    scene.wait(|scene| scene.metrics.delivered.get() == 4 && scene.metrics.queued.get() == 0);
    assert_eq!(scene.metrics.events[HookKind::Occupied as usize].get(), 4);
    assert_eq!(scene.metrics.batch_seconds.spread().count(), 2);
}

#[test]
fn what_is_not_taken_is_sent_again_as_it_was() {
    let later =
        [Answer::Status(500, ""), Answer::Status(429, "Retry-After: 0\r\n"), Answer::Hangup, Answer::Closing(408)];
    let (url, heard) = receiver([&later[..], &[TAKEN]].concat());
    let mut scene = Scene::new(&url, "");
    scene.tell([occupied("a")]);
    let first = next(&heard);
    for _ in later {
        let again = next(&heard);
        assert_eq!(again.body, first.body);
    }
    scene.tell([occupied("b")]);
    assert_eq!(next(&heard).topics(), ["b"]);
    scene.wait(|scene| scene.metrics.delivered.get() == 2);
    // A connection that was there and has ended is no failure.
    assert_eq!(scene.metrics.retries.get(), 3);
}

#[test]
fn a_receiver_that_hangs_has_its_time_and_then_another_connection() {
    let (url, heard) = receiver(vec![Answer::Silence, TAKEN]);
    let mut scene = Scene::new(&url, "timeout = \"100ms\"");
    scene.tell([occupied("a")]);
    let first = next(&heard);
    let second = next(&heard);
    assert_eq!((&second.body, second.connection), (&first.body, 1));
    scene.wait(|scene| scene.metrics.delivered.get() == 1);
}

#[test]
fn a_status_is_an_answer_though_its_body_never_comes() {
    let (url, heard) = receiver(vec![Answer::HeadOnly(200), TAKEN]);
    let mut scene = Scene::new(&url, "timeout = \"100ms\"");
    scene.tell([occupied("a")]);
    assert_eq!(next(&heard).topics(), ["a"]);
    scene.tell([occupied("b")]);
    let second = next(&heard);
    assert_eq!((second.topics(), second.connection), (vec!["b"], 1), "what was taken is not sent again");
    scene.wait(|scene| scene.metrics.delivered.get() == 2);
    assert_eq!(scene.metrics.retries.get(), 0);
}

#[test]
fn what_is_refused_is_missing_in_the_next_batch() {
    let (url, heard) = receiver(vec![Answer::Status(404, ""), Answer::Status(302, "Location: /x\r\n"), TAKEN]);
    let mut scene = Scene::new(&url, "");
    scene.tell([occupied("a")]);
    assert_eq!(next(&heard).topics(), ["a"]);
    let second = next(&heard);
    assert_eq!(second.body["missed"]["occupied"], 1);
    let third = next(&heard);
    assert!(third.head.starts_with("POST /in?key=7 "), "a redirect is not followed: {}", third.head);
    assert_eq!(third.body["missed"]["occupied"], 1);
    scene.wait(|scene| scene.metrics.queued.get() == 0);
    assert_eq!((scene.dropped(Undelivered::Refused), scene.metrics.delivered.get()), (1, 0));
}

#[test]
fn while_nobody_is_there_some_are_kept_and_the_others_counted() {
    // Nobody listens there any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut scene = Scene::new(&format!("http://{free}/"), "queue_bytes = \"64KiB\"");
    for number in 0..20_000 {
        scene.tell([occupied(&format!("topic/{number}"))]);
    }
    scene.wait(|scene| scene.metrics.events[HookKind::Occupied as usize].get() == 20_000);
    assert!(scene.metrics.queued_bytes.get() <= 64 * 1024);
    let lost = |scene: &Scene| scene.dropped(Undelivered::Queue) + scene.dropped(Undelivered::ShardQueue);
    let waiting = scene.metrics.queued.get();
    assert_eq!(lost(&scene) + waiting, 20_000);
    // Somebody is there again.
    let (told, missed) = take_all(&TcpListener::bind(free).unwrap(), 20_000);
    assert_eq!(told.len() as u64 + missed, 20_000);
    assert!(told.windows(2).all(|two| two[0] < two[1]), "they are in order, and each comes once");
}

/// Takes events until there are so many with those that are missing: the numbers of their topics, and how many are missing.
fn take_all(listener: &TcpListener, events: u64) -> (Vec<u64>, u64) {
    let (mut told, mut missed) = (Vec::new(), 0);
    for stream in listener.incoming() {
        let mut stream = BufReader::new(stream.unwrap());
        stream.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
        while let Some((_, body)) = request(&mut stream) {
            let body: Value = serde_json::from_slice(&body).unwrap();
            missed += body["missed"]["occupied"].as_u64().unwrap_or(0);
            let number = |event: &Value| event["topic"].as_str().unwrap()["topic/".len()..].parse::<u64>().unwrap();
            told.extend(body["events"].as_array().unwrap().iter().map(number));
            reply(&mut stream, 200, "");
            if told.len() as u64 + missed >= events {
                return (told, missed);
            }
        }
    }
    unreachable!("a listener does not end")
}

#[test]
fn topics_that_flap_are_told_as_what_they_are_in_the_end() {
    let (url, heard) = receiver(vec![TAKEN]);
    let mut scene = Scene::new(&url, "");
    scene.tell([occupied("a"), vacated("a"), occupied("a"), occupied("b"), vacated("b")]);
    let first = next(&heard);
    assert_eq!(first.topics(), ["a", "b"]);
    let second = next(&heard);
    assert_eq!((second.topics(), &second.body["events"][0]["kind"]), (vec!["b"], &"vacated".into()));
}

#[test]
fn who_hears_only_of_occupied_topics_hears_nothing_of_those_that_flap() {
    let (url, heard) = receiver(vec![TAKEN]);
    let mut scene = Scene::new(&url, "events = [\"occupied\"]");
    let [left, left_again, left_in_the_end] = [(); 3].map(|()| vacated_aside("a"));
    scene.tell([occupied("a"), left, occupied("a"), left_again, occupied("a"), occupied("b")]);
    assert_eq!(next(&heard).topics(), ["a", "b"]);
    scene.tell([left_in_the_end]);
    scene.hooking.end();
    assert_eq!(heard.try_iter().count(), 0, "that it was vacated is not wanted");
    assert_eq!((scene.metrics.events[HookKind::Vacated as usize].get(), scene.metrics.delivered.get()), (0, 2));
}

#[test]
fn what_nobody_will_hear_does_not_keep_the_server_from_its_end() {
    let (url, heard) = receiver(vec![Answer::Status(404, "")]);
    let mut scene = Scene::new(&url, "batch_delay = \"1m\"");
    scene.tell([occupied("a")]);
    scene.hooking.end();
    let told: Vec<_> = heard.try_iter().collect();
    assert_eq!(told.len(), 1, "it is not told again and again what it is missing: {told:?}");
    assert_eq!(scene.dropped(Undelivered::Refused), 1);
}

#[test]
fn at_the_end_what_waits_is_delivered() {
    let (url, heard) = receiver(vec![Answer::Status(503, "Retry-After: 3000\r\n"), TAKEN]);
    let mut scene = Scene::new(&url, "retry_max_age = \"1m\"");
    scene.tell([occupied("a")]);
    next(&heard);
    scene.tell([vacated("a")]);
    scene.hooking.end();
    assert_eq!(next(&heard).topics(), ["a"], "it is asked again now");
    assert_eq!(next(&heard).body["events"][0]["kind"], "vacated");
    assert_eq!(scene.metrics.delivered.get(), 2);
}

#[test]
fn a_receiver_that_hangs_does_not_keep_the_server_from_its_end() {
    let (url, heard) = receiver(vec![Answer::Silence]);
    let mut scene = Scene::new(&url, "timeout = \"5m\"");
    scene.tell([occupied("a")]);
    next(&heard);
    scene.tell([occupied("b")]);
    let began = Instant::now();
    scene.hooking.end();
    assert!(began.elapsed() >= FLUSH);
    assert_eq!((scene.dropped(Undelivered::Ended), scene.metrics.delivered.get()), (2, 0));
}

#[test]
fn whoever_is_in_a_hurry_waits_for_nobody() {
    let (url, heard) = receiver(vec![Answer::Silence]);
    let mut scene = Scene::new(&url, "timeout = \"5m\"");
    scene.tell([occupied("a")]);
    next(&heard);
    scene.hooking.hurry();
    scene.hooking.end();
    assert_eq!((scene.dropped(Undelivered::Ended), scene.metrics.queued.get()), (1, 0));
}

#[test]
fn a_reload_brings_other_secrets_and_kinds_of_payload() {
    let (url, heard) = receiver(vec![TAKEN]);
    let mut scene = Scene::new(&url, "events = [\"publish\"]");
    let published = || Event { time_ms: 1, what: What::Published(message("t", b"hi"), 0, None) };
    scene.tell([published()]);
    let first = next(&heard);
    assert!(!first.head.contains("ignature") && first.body["events"][0]["text"] == Value::Null);
    let other = config(&url, "events = [\"publish\"]\npayload = true\nsecret_file = \"tests/keys/hook-secret\"");
    scene.control.replace(Live::of(&other));
    scene.tell([published()]);
    let second = next(&heard);
    assert!(second.head.to_ascii_lowercase().contains("holdline-signature: t="), "{}", second.head);
    assert_eq!(second.body["events"][0]["text"], "hi");
}

#[test]
fn what_has_happened_before_a_reload_that_asks_for_less_is_told() {
    let (url, heard) = receiver(vec![TAKEN]);
    let mut scene = Scene::new(&url, "batch_delay = \"1m\"");
    scene.shard.tell(vacated("a"));
    scene.control.replace(Live::of(&config(&url, "events = [\"connect\"]\nbatch_delay = \"20ms\"")));
    scene.tell([occupied("b")]);
    assert_eq!(next(&heard).topics(), ["b"]);
    assert_eq!(next(&heard).topics(), ["a"], "it was empty for long enough");
}

#[test]
fn nobody_is_asked_later_than_events_live() {
    let (url, heard) = receiver(vec![Answer::Status(503, "Retry-After: 3000\r\n"), TAKEN]);
    let mut scene = Scene::new(&url, "retry_max_age = \"1s\"");
    scene.tell([occupied("a")]);
    assert_eq!(next(&heard).topics(), ["a"]);
    // What it was asked to wait for is longer than anything waits.
    let told = next(&heard);
    assert_eq!(told.topics(), ["a"], "once more, before it is too old for another time");
}

#[test]
fn events_that_nobody_takes_become_too_old() {
    let (url, heard) = receiver(vec![Answer::Status(503, "")]);
    let mut scene = Scene::new(&url, "retry_max_age = \"1s\"");
    scene.tell([occupied("a")]);
    scene.wait(|scene| scene.dropped(Undelivered::TooOld) == 1);
    assert!(heard.try_iter().count() >= 1);
    scene.hooking.end();
    assert_eq!(scene.metrics.queued.get(), 0);
}

#[test]
fn without_a_receiver_there_is_no_thread() {
    let control = Arc::new(Control::new(Live::default()));
    assert!(Hooking::start(&control, 1, Some(&Arc::default()), &Cluster::default()).unwrap().is_none());
    assert!(!Hooks::default().is_set());
}
