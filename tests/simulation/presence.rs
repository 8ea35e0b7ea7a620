//! A shard whose topics have members on another node too, which the test plays.

use std::time::Duration;

use holdline::cluster::port::{Follow, Inbound, NodeId, Outbound, ThreadEnd};
use holdline::cluster::presence::{Entry, Version, Whisper};
use holdline::config::{self, Limits};
use holdline::hub::presence::MemberId;
use holdline::shard::Live;
use holdline::sim::{self, Net};

use super::scene::{Scene, WEB, upgrade};

const OTHER: NodeId = NodeId(2);

struct Node {
    scene: Scene,
    end: ThreadEnd,
    follows: Vec<(String, Follow)>,
}

impl Node {
    fn new() -> Self {
        let limits = Limits { connections_max: 100, ..Limits::default() };
        let config = config::Config { presence: config::Presence::Members, limits, ..config::Config::default() };
        let mut scene = Scene::with(1, Live::of(&config), Net::new(1, sim::Config::default()));
        let end = scene.join_cluster(NodeId(1)).remove(0);
        let mut node = Self { scene, end, follows: Vec::new() };
        node.tell(Inbound::Connected { payload_max: 1 << 20 });
        node
    }

    fn tell(&mut self, what: Inbound) {
        self.end.inbound.push(what);
        self.end.inbound.flush();
        self.scene.rest();
    }

    fn whisper(&mut self, topic: &str, whisper: &Whisper) {
        let follow = self.follows.iter().find(|(name, _)| name == topic).unwrap().1;
        self.tell(Inbound::Whispered(follow, OTHER, whisper.encode()));
    }

    /// A tick passes. What is whispered in it; what is followed is heard.
    fn tick(&mut self) -> Vec<Whisper> {
        self.scene.clock.advance(Duration::from_millis(100));
        self.scene.rest();
        let mut whispers = Vec::new();
        while let Some(outbound) = self.end.outbound.try_recv() {
            match outbound {
                Outbound::Follow { follow, topic, .. } => {
                    self.follows.push((topic.as_str().to_owned(), follow));
                    self.tell(Inbound::Following(follow));
                }
                Outbound::Whisper(_, bytes) => whispers.push(Whisper::decode(&bytes).unwrap()),
                other => panic!("{other:?}"),
            }
        }
        whispers
    }
}

/// One member of the other node, as its first change.
fn comes(id: &str) -> Whisper {
    let entry = Entry { name: None, since_ms: 7, connections: 1 };
    let version = Version { life: 1, number: 1 };
    Whisper::Changes { version, count: 1, changes: vec![(MemberId::other(id), Some(entry))] }
}

#[test]
fn members_of_another_node_come_with_its_whispers_and_go_with_it() {
    let mut node = Node::new();
    let mut watcher = node.scene.connect(0, WEB, &upgrade("/topics/t?presence=1&member=eve"));
    let mut told = |node: &mut Node| {
        let whispers = node.tick();
        (whispers, String::from_utf8_lossy(&watcher.read()).into_owned())
    };
    let mut said = Vec::new();
    for _ in 0..4 {
        said.extend(told(&mut node).0);
    }
    assert!(said.contains(&Whisper::Call), "who begins to listen asks: {said:?}");
    let eve = MemberId::other("eve");
    let is_eve = |whisper: &Whisper| matches!(whisper, Whisper::Changes { changes, .. } if changes[0].0 == eve);
    assert!(said.iter().any(is_eve), "{said:?}");

    node.tell(Inbound::Came(OTHER));
    node.whisper("t", &comes("ann"));
    let events = told(&mut node).1;
    assert!(
        events.contains("\"joined\":[{\"id\":\"ann\",\"name\":\"ann\",\"since\":7}],\"left\":[],\"count\":2"),
        "{events}"
    );
    // What cannot be read changes nothing, and what is asked is answered.
    node.tell(Inbound::Whispered(node.follows[0].1, OTHER, [1, 9].into()));
    node.whisper("t", &Whisper::Ask(NodeId(1)));
    let (answers, events) = told(&mut node);
    assert!(matches!(&answers[..], [Whisper::List { members, .. }] if members[0].0 == eve), "{answers:?}");
    assert_eq!(events, "");
    node.tell(Inbound::Gone(OTHER));
    let events = told(&mut node).1;
    assert!(events.contains("\"joined\":[],\"left\":[{\"id\":\"ann\",\"name\":\"ann\"}],\"count\":1"), "{events}");
    node.scene.audit();
}

#[test]
fn a_question_about_a_topic_that_nobody_holds_waits_for_the_others() {
    let mut node = Node::new();
    let ask = "GET /topics/t/presence HTTP/1.1\r\nHost: sim\r\n\r\n";
    let mut asker = node.scene.connect(0, WEB, ask);
    node.tick();
    node.tick();
    node.whisper("t", &comes("ann"));
    assert_eq!(asker.read(), b"", "others may be about to say more");
    (0..10).for_each(|_| drop(node.tick()));
    let answer = String::from_utf8_lossy(&asker.read()).into_owned();
    assert!(answer.contains("\"count\":1,\"members\":[{\"id\":\"ann\""), "{answer}");
    // It is known now, and while there is no connection nobody is waited for.
    let mut again = node.scene.connect(0, WEB, ask);
    node.scene.rest();
    assert!(String::from_utf8_lossy(&again.read()).contains("\"count\":1"));
    node.tell(Inbound::Away);
    let mut alone = node.scene.connect(0, WEB, &ask.replace("/t/", "/u/"));
    node.scene.rest();
    assert!(String::from_utf8_lossy(&alone.read()).contains("\"count\":0"));
}
