//! What a fuzzer runs against a whole shard: any bytes behind HTTP/2's preface, cut anywhere.

use std::sync::Arc;
use std::time::Duration;

use super::{Client, Config, ManualClock, Net, SimBackend};
use crate::app::site::DemoSite;
use crate::app::standard_routes;
use crate::codec::http2::frame::PREFACE;
use crate::config::Limits;
use crate::id::{ListenerId, ShardId};
use crate::metrics::Metrics;
use crate::shard::{Control, Entrance, EntranceKind, Live, Mail, Seed, Shard, Turn};

/// A shard with one listener.
struct Bench {
    clock: ManualClock,
    control: Arc<Control>,
    metrics: Metrics,
    shard: Shard<SimBackend>,
    client: Option<Client>,
}

impl Bench {
    /// Limits of some few connections.
    fn limits() -> Limits {
        Limits { connections_max: 4, queue_bytes_max: 4096, message_bytes_max: 1024, ..Limits::default() }
    }

    fn new() -> Option<Self> {
        let net = Net::new(1, Config { downstream_bytes: 2048, ..Config::default() });
        let control = Arc::new(Control::new(Live::new(Self::limits())));
        let metrics = Metrics::new(1);
        let web = EntranceKind::Http { site: Arc::new(DemoSite), routes: true };
        let mut backend = net.backend();
        backend.open(ListenerId(0));
        let seed = Seed {
            id: ShardId(0),
            mail: Mail::mesh(1, control.live().limits.mailbox_capacity).into_iter().next()?,
            router: standard_routes(),
            entrances: [Entrance { url: String::new(), kind: web, proxied: false }].into(),
            control: Arc::clone(&control),
            metrics: metrics.clone(),
        };
        let shard = Shard::new(backend, seed);
        Some(Self { clock: ManualClock::new(), control, metrics, shard, client: net.connect(ListenerId(0)) })
    }

    /// Turns, in which time passes, and whether the shard is done; after each its books are right.
    fn turn(&mut self, times: u32, millis: u64) -> bool {
        (0..times).any(|_| {
            self.clock.advance(Duration::from_millis(millis));
            let turn = self.shard.turn(&self.clock);
            if let Err(fault) = self.shard.audit() {
                panic!("the books are wrong: {fault}");
            }
            matches!(turn, Ok(Turn::Done))
        })
    }
}

/// A connection that says `data` behind the preface: the first byte has the size of the pieces that come in one turn, and
/// whether it reads what it is told. Then the shard drains. Returns how many streams there were.
///
/// # Panics
/// When the shard's books are wrong, or something is left of the connection.
pub fn fuzz_http2(data: &[u8]) -> u64 {
    let Some((mut bench, (first, data))) = Bench::new().zip(data.split_first()) else { return 0 };
    let (piece, reads) = (usize::from(first >> 1) + 1, first & 1 == 0);
    let bytes = [PREFACE, data].concat();
    let mut rest = &bytes[..];
    // A connection that is not read takes no more.
    for _ in 0..bytes.len() {
        let Some(client) = &mut bench.client else { break };
        let taken = client.write(&rest[..piece.min(rest.len())]);
        rest = &rest[taken..];
        if reads {
            client.read();
        }
        bench.turn(1, 1);
        if taken == 0 {
            break;
        }
    }
    bench.turn(4, 500);
    if first & 2 == 0 {
        bench.client = None;
    }
    bench.control.drain(Duration::from_millis(500));
    assert!(bench.turn(4000, 50), "a drain ends");
    let audit = bench.shard.audit().unwrap_or_else(|fault| panic!("the books are wrong: {fault}"));
    let left = (audit.connections, audit.streams, audit.unfinished_bytes, audit.timers);
    assert_eq!(left, (0, 0, 0, 0), "nothing is left");
    bench.metrics.total(|shard| shard.http2_streams_opened_total.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::http2::frame::{self, flag, kind};
    use crate::codec::http2::request::{self, Request};
    use crate::codec::http2::{ErrorCode, StreamId};
    use crate::codec::websocket::fuzz::random::Random;

    fn request(number: u32, method: &str, path: &str, fields: &[(&str, &str)], out: &mut Vec<u8>) {
        let request = Request { method, scheme: "http", authority: "sim", path };
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        request::write_head(StreamId(number), request, fields, method == "GET", out);
    }

    /// A connection that does a little of all.
    fn visit() -> Vec<u8> {
        let mut out = vec![0x1e];
        frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &[0, 4, 0, 0, 0, 40], &mut out);
        frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], &mut out);
        request(1, "GET", "/topics/t", &[("accept", "text/event-stream")], &mut out);
        request(3, "POST", "/topics/t", &[("content-type", "text/plain")], &mut out);
        frame::write(kind::DATA, flag::END_STREAM, StreamId(3), b"hello", &mut out);
        request(5, "POST", "/holdline.v1.Edge/Echo", &[("content-type", "application/grpc")], &mut out);
        frame::write(kind::DATA, 0, StreamId(5), b"\0\0\0\0\x04\x0a\x02hi", &mut out);
        frame::write_window_update(StreamId(5), 100, &mut out);
        request(7, "POST", "/holdline.v1.Edge/Connect", &[("content-type", "application/grpc")], &mut out);
        frame::write(kind::DATA, flag::END_STREAM, StreamId(7), b"\0\0\0\0\x05\x12\x03\x0a\x01t", &mut out);
        request(9, "GET", "/topics/t?wait=1s", &[], &mut out);
        frame::write_reset(StreamId(1), ErrorCode::Cancel, &mut out);
        frame::write_ping(*b"whatever", false, &mut out);
        request(11, "GET", "/topics/t?stream=1", &[], &mut out);
        out
    }

    #[test]
    fn shards_hold_on_random_and_mutated_visits() {
        let mut random = Random(0x5eed);
        let visit = visit();
        assert_eq!(fuzz_http2(&visit), 6);
        let mut streams = 0;
        for _ in 0..300 {
            let mut data = visit.clone();
            random.mutate(&mut data);
            streams += fuzz_http2(&data);
            fuzz_http2(&random.bytes(200));
        }
        assert!(streams > 600, "{streams} streams were opened, which is few");
    }
}
