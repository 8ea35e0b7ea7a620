//! Many connections at once.

use super::*;
use crate::io::Dial;

#[test]
fn thousands_come_and_go_and_leave_nothing() {
    let mut shard = Shard::echoing(small(64, 16));
    for round in 0..100 {
        let mut streams: Vec<_> = (0..40).map(|_| shard.connect()).collect();
        shard.until(|shard| shard.open.len() == 40);
        if round % 3 == 0 {
            streams.iter_mut().for_each(|stream| stream.write_all(b"hello").unwrap());
        }
        if round % 2 == 0 {
            streams.clear();
            shard.turn();
        }
        let ids: Vec<_> = shard.open.iter().copied().collect();
        for id in ids {
            let ending = if id.index() % 2 == 0 { Ending::Graceful } else { Ending::Reset };
            shard.uring.close(id, ending);
        }
        shard.until(|shard| shard.open.is_empty());
        assert_eq!(shard.slots_used(), 0);
    }
    assert!(shard.all_buffers_back());
}

/// Connections of all kinds at once: what peers write arrives whole and in order, whatever the engine does meanwhile.
#[test]
fn a_crowd_does_everything_at_once() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) % below
    };
    let mut shard = Shard::echoing(small(64, 8));
    for _ in 0..4 {
        let mut peers: Vec<(TcpStream, ConnId, Vec<u8>)> = Vec::new();
        for _ in 0..40 {
            let (stream, id) = shard.pair();
            stream.set_nonblocking(true).unwrap();
            peers.push((stream, id, Vec::new()));
        }
        shard.received.clear();
        for _ in 0..3000 {
            let (stream, id, wrote) = &mut peers[usize::try_from(random(40)).unwrap()];
            let len = match random(10) {
                0 => 40_000,
                1..4 => 3000,
                _ => 20,
            };
            let bytes: Vec<u8> = (0..random(len) + 1).map(|_| (random(256) & 0xff) as u8).collect();
            match random(12) {
                0 => shard.uring.pause(*id),
                1..4 => shard.uring.resume(*id),
                4 => shard.uring.quieten(*id),
                5 => shard.uring.want_writable(*id),
                6 => shard.turn(),
                _ => {
                    let count = stream.write(&bytes).unwrap_or(0);
                    wrote.extend(&bytes[..count]);
                    let _ = stream.read(&mut [0; 65536]);
                }
            }
        }
        peers.iter().for_each(|(_, id, _)| shard.uring.resume(*id));
        shard.until(|shard| {
            peers.iter().all(|(_, id, wrote)| shard.received.get(id).map_or(0, Vec::len) == wrote.len())
        });
        assert!(peers.iter().all(|(_, id, wrote)| shard.received.get(id).map_or(wrote.is_empty(), |got| got == wrote)));
        for (index, (_, id, _)) in peers.iter().enumerate() {
            let ending = if index % 2 == 0 { Ending::Graceful } else { Ending::Reset };
            shard.uring.pause(*id);
            shard.uring.close(*id, ending);
        }
        shard.until(|shard| shard.open.is_empty());
        assert!(shard.slots_used() == 0 && shard.all_buffers_back());
    }
}

/// Storms as long as the listener's queue, over tables that fill up on the way.
#[test]
fn a_storm_over_tables_that_fill_loses_nobody() {
    const STORM: u32 = 3600;
    const STORMS: u32 = 4;
    let total = (STORM * STORMS) as usize;
    let mut shard = Shard::new(small(total, 6000));
    let SocketAddr::V4(to) = shard.address else { panic!("IPv4") };
    let lane = 0xfd00 | (std::process::id() & 0xff) as u16;
    let mut caller = Uring::new(Config { sources: Sources::Loopback { lane }, ..small(total, 8000) }).unwrap();
    let hello: Arc<[u8]> = (*b"").into();
    for storm in 0..STORMS {
        (0..STORM).for_each(|index| caller.dial(ConnId::new(storm * STORM + index, 0), to, &hello));
        let mut standing = 0;
        while standing < STORM {
            caller.wait(Some(Duration::from_secs(10))).unwrap();
            while let Some(completion) = caller.next() {
                assert!(matches!(completion, Completion::Writable(_)), "{completion:?}");
                standing += 1;
            }
        }
        let here = ((storm + 1) * STORM) as usize;
        shard.until(|shard| shard.open.len() == here);
    }
    assert_eq!(shard.accept_failures, []);
    caller.wait(Some(Duration::from_millis(50))).unwrap();
    assert!(caller.next().is_none(), "nobody was closed");
}
