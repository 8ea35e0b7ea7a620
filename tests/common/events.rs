//! A small server of server-sent events, with faults: each stream and each WebSocket on a thread of its own. What comes
//! through a WebSocket goes out on all streams.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "a test that cannot get what it needs has failed"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use holdline::codec::websocket::frame::{ClientHeader, Opcode, Parsed};
use holdline::codec::websocket::handshake::accept_key;
use holdline::codec::websocket::mask::unmask;

/// Time between two heartbeats.
const HEARTBEAT: Duration = Duration::from_millis(100);

/// What the server does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// The body comes in chunks.
    pub is_chunked: bool,
    /// What a request for a stream is answered instead of 200.
    pub refusal: Option<&'static str>,
    /// WebSockets are not served.
    pub is_one_way: bool,
    /// The publication of this number, from 1, does not go out on the first stream.
    pub skips: Option<u64>,
    /// The publication of this number goes out twice on the first stream.
    pub doubles: Option<u64>,
    /// The WebSocket is ended when this publication has gone out.
    pub drops_publisher: Option<u64>,
}

pub struct Events {
    pub address: SocketAddrV4,
    room: Arc<Room>,
    threads: Vec<JoinHandle<()>>,
}

/// What all connections share.
struct Room {
    behaviour: Behaviour,
    is_over: AtomicBool,
    /// The last offset, and who hears the next.
    streams: Mutex<(u64, Vec<TcpStream>)>,
    streams_opened: AtomicU64,
    publishers_opened: AtomicU64,
}

impl Events {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string().parse().unwrap();
        let room = Arc::new(Room {
            behaviour,
            is_over: AtomicBool::new(false),
            streams: Mutex::default(),
            streams_opened: AtomicU64::new(0),
            publishers_opened: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&room);
        let beating = Arc::clone(&room);
        let threads = vec![
            thread::spawn(move || accept(&listener, &accepting)),
            thread::spawn(move || {
                while !beating.is_over.load(Ordering::Relaxed) {
                    thread::sleep(HEARTBEAT);
                    beating.tell_all(":\n\n", 0);
                }
            }),
        ];
        Self { address, room, threads }
    }

    /// Streams and publishers that have been opened so far.
    pub fn opened(&self) -> [u64; 2] {
        [&self.room.streams_opened, &self.room.publishers_opened].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.room.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn accept(listener: &TcpListener, room: &Arc<Room>) {
    for stream in listener.incoming() {
        if room.is_over.load(Ordering::Relaxed) {
            return;
        }
        let (stream, room) = (stream.unwrap(), Arc::clone(room));
        // Peers that reset are none of the server's faults.
        thread::Builder::new().stack_size(128 << 10).spawn(move || drop(serve(stream, &room))).unwrap();
    }
}

fn serve(mut stream: TcpStream, room: &Room) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).map_err(|_| ErrorKind::InvalidData)?;
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match field("Sec-WebSocket-Key:") {
        Some(key) if !room.behaviour.is_one_way => {
            assert!(head.starts_with("GET /topics/t?echo=0 HTTP/1.1\r\n"), "{head}");
            room.publish(stream, key)
        }
        Some(_) => stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
        None => {
            assert!(head.starts_with("GET /topics/t HTTP/1.1\r\n"), "{head}");
            assert_eq!(field("Accept:"), Some("text/event-stream"));
            room.stream(stream)
        }
    }
}

impl Room {
    fn stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        if let Some(refusal) = self.behaviour.refusal {
            return write!(stream, "HTTP/1.1 {refusal}\r\nContent-Length: 0\r\n\r\n");
        }
        let coding = if self.behaviour.is_chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
        {
            let mut streams = self.streams.lock().unwrap();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{coding}\r\n")?;
            stream.write_all(self.wrap(&format!("retry: 1000\nid: 1:{}\n\n", streams.0)).as_bytes())?;
            streams.1.push(stream.try_clone()?);
        }
        self.streams_opened.fetch_add(1, Ordering::Relaxed);
        let peer = stream.peer_addr()?;
        // A client says nothing more but its end.
        let ended = stream.read(&mut [0; 16]);
        self.streams.lock().unwrap().1.retain(|other| other.peer_addr().ok() != Some(peer));
        if self.behaviour.is_chunked && matches!(ended, Ok(0)) {
            stream.write_all(b"0\r\n\r\n")?;
        }
        stream.shutdown(Shutdown::Both)
    }

    fn publish(&self, mut stream: TcpStream, key: &str) -> std::io::Result<()> {
        let accept = String::from_utf8(accept_key(key.as_bytes()).to_vec()).unwrap();
        write!(stream, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n")?;
        write!(stream, "Sec-WebSocket-Accept: {accept}\r\n\r\n")?;
        self.publishers_opened.fetch_add(1, Ordering::Relaxed);
        let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
        loop {
            let count = stream.read(&mut piece)?;
            if count == 0 {
                return Ok(());
            }
            bytes.extend_from_slice(&piece[..count]);
            while let Ok(Parsed::Header(header)) = ClientHeader::parse(&bytes) {
                let end = header.header_bytes + usize::try_from(header.payload_bytes).unwrap();
                if bytes.len() < end {
                    break;
                }
                let mut payload: Vec<u8> = bytes.drain(..end).skip(header.header_bytes).collect();
                unmask(&mut payload, header.key, 0);
                if header.opcode == Opcode::Close {
                    return stream.write_all(&[0x88, 2, 3, 0xe8]);
                }
                let number = self.publication(&String::from_utf8(payload).unwrap());
                if self.behaviour.drops_publisher == Some(number) {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a message to all: its number.
    fn publication(&self, text: &str) -> u64 {
        let number = self.streams.lock().unwrap().0 + 1;
        self.tell_all(&format!("id: 1:{number}\ndata: {text}\n\n"), number);
        number
    }

    /// Sends this to all; a number is that of a publication.
    fn tell_all(&self, text: &str, number: u64) {
        let Behaviour { skips, doubles, .. } = self.behaviour;
        let text = self.wrap(text);
        let mut streams = self.streams.lock().unwrap();
        streams.0 = streams.0.max(number);
        for (at, stream) in streams.1.iter_mut().enumerate() {
            let times = match (at, Some(number)) {
                (0, number) if number == skips => 0,
                (0, number) if number == doubles => 2,
                _ => 1,
            };
            // Who is gone is taken out by its own thread.
            (0..times).for_each(|_| drop(stream.write_all(text.as_bytes())));
        }
    }

    fn wrap(&self, text: &str) -> String {
        if self.behaviour.is_chunked { format!("{:x}\r\n{text}\r\n", text.len()) } else { text.to_owned() }
    }
}
