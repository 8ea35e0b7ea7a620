//! Publishers: by requests whose answers say where the message stands, or through a WebSocket, which says nothing.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time;

use super::machines::NODES;
use super::scene::{AWAY, PUBLISHERS, Saying, Scene};
use super::wire::{FIN, TEXT, handshake, masked};

/// Between two tries of what was refused.
const AGAIN: Duration = Duration::from_millis(50);

pub struct Publisher {
    scene: Arc<Scene>,
    number: usize,
    topic: usize,
    is_websocket: bool,
    /// What it says next.
    next: Saying,
}

enum Said {
    Yes,
    /// Not now.
    Refused,
}

impl Publisher {
    pub fn new(scene: Arc<Scene>, number: usize) -> Self {
        let topic = scene.topic_of(number);
        // What a stream takes is known by its answers.
        let is_websocket = number % PUBLISHERS >= 2 && !scene.topics[topic].is_durable;
        let next = Saying { who: scene.become_another(number), number: 1 };
        Self { scene, number, topic, is_websocket, next }
    }

    pub async fn run(mut self) {
        let mut orders = self.scene.orders.subscribe();
        while orders.wait_for(|orders| orders.flows || orders.is_over).await.is_ok_and(|orders| !orders.is_over) {
            let began = orders.borrow_and_update().anew;
            let Some(mut stream) = self.connect().await else { continue };
            while orders.borrow().anew == began && !orders.borrow().is_over {
                match self.say(&mut stream).await {
                    Ok(Said::Yes) => time::sleep(self.scene.pause).await,
                    Ok(Said::Refused) => time::sleep(AGAIN).await,
                    Err(_) => break,
                }
            }
            self.scene.publishers[self.number].at.store(AWAY, Relaxed);
            if !self.scene.topics[self.topic].is_durable {
                self.next = Saying { who: self.scene.become_another(self.number), number: 1 };
            }
        }
    }

    /// To its own node, or to the next that there is.
    async fn connect(&self) -> Option<BufReader<TcpStream>> {
        for node in (self.number / PUBLISHERS..).take(NODES).map(|node| node % NODES) {
            if let Ok(stream) = self.open(node).await {
                self.scene.publishers[self.number].at.store(node, Relaxed);
                return Some(stream);
            }
        }
        time::sleep(AGAIN).await;
        None
    }

    async fn open(&self, node: usize) -> io::Result<BufReader<TcpStream>> {
        let mut stream = BufReader::new(self.scene.doors[node].connect().await?);
        if self.is_websocket {
            let path = format!("/topics/{}?echo=0", self.scene.topics[self.topic].name);
            stream.write_all(handshake(&path, "").as_bytes()).await?;
            if head(&mut stream).await?.0 != 101 {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        Ok(stream)
    }

    async fn say(&mut self, stream: &mut BufReader<TcpStream>) -> io::Result<Said> {
        let saying = self.next;
        if self.is_websocket {
            throw_away(stream.get_ref())?;
            stream.write_all(&masked(FIN | TEXT, saying.text().as_bytes())).await?;
        } else {
            let (status, answer) = self.post(stream, &saying.text()).await?;
            match status {
                200 => self.note(&answer, saying),
                503 if self.scene.topics[self.topic].is_durable => return Ok(Said::Refused),
                _ => self.scene.fault(format!("publisher {}: {status}, {answer}", self.number)),
            }
        }
        self.scene.publishers[self.number].last[0].store(saying.bits(), Relaxed);
        self.next.number += 1;
        Ok(Said::Yes)
    }

    fn note(&self, answer: &Value, saying: Saying) {
        let place = (answer["epoch"].as_u64().unwrap(), answer["offset"].as_u64().unwrap());
        if let Err(why) = self.scene.stands(self.topic, place, saying) {
            self.scene.fault(format!("publisher {}: {why}", self.number));
        }
    }

    async fn post(&self, stream: &mut BufReader<TcpStream>, text: &str) -> io::Result<(u16, Value)> {
        let (topic, length) = (self.scene.topics[self.topic].name, text.len());
        // Where it has to be told again it is the same message.
        let key = text.replace(' ', "-");
        let fields = format!("Host: localhost\r\nContent-Type: text/plain\r\nIdempotency-Key: {key}");
        let request = format!("POST /topics/{topic} HTTP/1.1\r\n{fields}\r\nContent-Length: {length}\r\n\r\n{text}");
        stream.write_all(request.as_bytes()).await?;
        let (status, length) = head(stream).await?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        Ok((status, serde_json::from_slice(&body)?))
    }
}

/// What others say comes too.
fn throw_away(stream: &TcpStream) -> io::Result<()> {
    loop {
        match stream.try_read(&mut [0; 4096]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// The status of an answer, and the length of what follows.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, usize)> {
    let (mut status, mut length, mut line) = (0, 0, String::new());
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let lower = line.trim_end().to_ascii_lowercase();
        if lower.is_empty() {
            return Ok((status, length));
        }
        if status == 0 {
            status = lower.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        }
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}
