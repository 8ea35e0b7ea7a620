//! A subscriber that comes back on another node, with the place that it has seen.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time;

use super::machines::NODES;
use super::reader::{Item, Place, Reader, Way};
use super::scene::{AWAY, Orders, Saying, Scene};

pub struct Subscriber {
    scene: Arc<Scene>,
    number: usize,
    topic: usize,
    way: Way,
    /// Where it goes next.
    node: usize,
    place: Option<Place>,
    ear: Ear,
}

/// What it has heard of each publisher.
#[derive(Default)]
struct Ear {
    /// The last number, and in which stretch.
    last: HashMap<u32, (u32, u32)>,
    /// What lies between two resets.
    stretch: u32,
    /// Who is not among so many publishers has begun within the stretch; known with the first thing that comes.
    born: Option<u32>,
    /// This connection has said nothing yet.
    is_new: bool,
}

/// Why a connection is over.
enum Over {
    All,
    Ended,
    Moved,
}

impl Ear {
    /// What comes from now on need not follow what came before.
    fn begin_stretch(&mut self, born: Option<u32>) {
        self.stretch += 1;
        self.born = born;
        if std::mem::take(&mut self.is_new) {
            // On another node the same messages may come again, behind a reset.
            self.last.clear();
        }
    }

    /// A plain topic's message follows the one before of its publisher.
    fn hear(&mut self, saying: Saying, born: u32) -> Result<(), String> {
        let born = *self.born.get_or_insert(born);
        let follows = match self.last.insert(saying.who, (saying.number, self.stretch)) {
            Some((last, stretch)) if stretch == self.stretch => saying.number == last + 1,
            Some((last, _)) => saying.number > last,
            None => saying.number == 1 || saying.who < born,
        };
        if follows { Ok(()) } else { Err(format!("{saying:?} of {born} came without a reset before it")) }
    }
}

impl Subscriber {
    pub fn new(scene: Arc<Scene>, number: usize) -> Self {
        let (topic, way) = (scene.topic_of(number), Way::ALL[number / 6 % Way::ALL.len()]);
        Self { scene, number, topic, way, node: number % NODES, place: None, ear: Ear::default() }
    }

    pub async fn run(mut self) {
        let mut orders = self.scene.orders.subscribe();
        loop {
            let (stream, reader) = self.connect().await;
            let over = self.listen(stream, reader, &mut orders).await;
            self.standing().at.store(AWAY, Relaxed);
            match over {
                Ok(Over::All) => return,
                Ok(Over::Ended | Over::Moved) => self.node = (self.node + 1) % NODES,
                Err(why) => {
                    let Self { number, way, node, ref place, .. } = self;
                    return self
                        .scene
                        .fault(format!("subscriber {number}, {way:?} on node {node} at {place:?}: {why}"));
                }
            }
        }
    }

    fn standing(&self) -> &super::scene::Standing {
        &self.scene.subscribers[self.number]
    }

    /// Connects to the next node that takes it.
    async fn connect(&mut self) -> (TcpStream, Reader) {
        loop {
            if let Ok(mut stream) = self.scene.doors[self.node].connect().await {
                let request = self.way.request(self.scene.topics[self.topic].name, self.place);
                if stream.write_all(request.as_bytes()).await.is_ok() {
                    return (stream, Reader::new(self.way));
                }
            }
            self.node = (self.node + 1) % NODES;
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn listen(
        &mut self,
        mut stream: TcpStream,
        mut reader: Reader,
        orders: &mut watch::Receiver<Orders>,
    ) -> Result<Over, String> {
        let (mut buf, before) = ([0; 4096], *orders.borrow_and_update());
        self.ear.is_new = true;
        if self.place.is_none() {
            self.ear.begin_stretch(None);
        }
        loop {
            tokio::select! {
                changed = orders.changed() => {
                    let now = *orders.borrow_and_update();
                    if now.is_over || changed.is_err() {
                        return Ok(Over::All);
                    }
                    if now.moves != before.moves && now.means(self.number) {
                        return Ok(Over::Moved);
                    }
                }
                read = stream.read(&mut buf) => match read {
                    Ok(bytes) if bytes > 0 => reader.feed(&buf[..bytes]),
                    _ => return Ok(Over::Ended),
                },
            }
            while let Some(item) = reader.next() {
                match item {
                    Item::Head(200 | 101) => self.arrive(),
                    Item::Head(503) => {
                        time::sleep(Duration::from_millis(50)).await;
                        return Ok(Over::Ended);
                    }
                    Item::Head(status) => return Err(format!("answered with {status}")),
                    Item::Start(place) => self.place = self.place.or(Some(place)),
                    Item::Message(place, text) => self.hear(place, &text)?,
                    Item::Reset(place) => self.reset(place)?,
                    Item::End => return Ok(Over::Ended),
                }
            }
        }
    }

    fn arrive(&self) {
        if self.place.is_some() {
            self.standing().moves.fetch_add(1, Relaxed);
        }
        self.standing().at.store(self.node, Relaxed);
    }

    fn reset(&mut self, place: Place) -> Result<(), String> {
        if self.scene.topics[self.topic].is_durable {
            return Err(format!("a reset to {place:?}, and all is kept"));
        }
        if self.place.is_none() {
            return Err(format!("a reset to {place:?} of somebody who was nowhere"));
        }
        self.standing().resets.fetch_add(1, Relaxed);
        self.place = Some(place);
        self.ear.begin_stretch(Some(self.scene.born()));
        Ok(())
    }

    /// The next message: no gap, no repetition.
    fn hear(&mut self, place: Place, text: &str) -> Result<(), String> {
        let saying = Saying::parse(text).ok_or_else(|| format!("somebody says {text:?}"))?;
        // A topic without a stream stands at 0:0, and its first message makes one.
        let follows = |(epoch, offset)| place.1 == offset + 1 && (place.0 == epoch || (epoch, offset) == (0, 0));
        if !self.place.is_none_or(follows) {
            return Err(format!("{saying:?} at {place:?}"));
        }
        self.place = Some(place);
        self.ear.is_new = false;
        self.scene.stands(self.topic, place, saying)?;
        if !self.scene.topics[self.topic].is_durable {
            self.ear.hear(saying, self.scene.born())?;
        }
        let publisher = self.scene.publisher_of(saying.who).ok_or_else(|| format!("nobody is {saying:?}"))?;
        self.standing().last[publisher].store(saying.bits(), Relaxed);
        Ok(())
    }
}

#[test]
fn an_ear_tells_what_is_lost_or_doubled() {
    let saying = |who, number| Saying { who, number };
    let listening = || {
        let mut ear = Ear { is_new: true, ..Ear::default() };
        ear.begin_stretch(None);
        // Who was there before it is heard from anywhere on, who came later from 1 on.
        assert!([saying(0, 7), saying(0, 8), saying(5, 1)].into_iter().all(|one| ear.hear(one, 5).is_ok()));
        ear
    };
    for wrong in [saying(0, 10), saying(0, 8), saying(0, 7), saying(5, 3), saying(5, 1), saying(6, 2)] {
        assert!(listening().hear(wrong, 7).is_err(), "{wrong:?}");
    }
    // Behind a reset something may be missing, but nothing comes again.
    let reset = || {
        let mut ear = listening();
        ear.begin_stretch(Some(7));
        ear
    };
    for (right, wrong) in [(saying(0, 10), saying(0, 12)), (saying(6, 2), saying(6, 2)), (saying(7, 1), saying(7, 3))] {
        let mut ear = reset();
        assert!(ear.hear(right, 8).is_ok() && ear.hear(wrong, 8).is_err(), "{right:?}, {wrong:?}");
    }
    assert!(reset().hear(saying(0, 8), 8).is_err() && reset().hear(saying(7, 2), 8).is_err());
}
