//! Large transfers through small buffers: back-pressure in both directions.

use holdline::io::{Backend, Ending};

use super::harness::{Client, Harness, Setup};
use super::world::{World, noise};

const MUCH: usize = 1 << 20;

fn narrow<H: Harness>() -> World<H> {
    World::new(Setup { small_buffers: true, ..Setup::default() })
}

pub fn much_arrives_whole<H: Harness>() {
    let mut world = narrow::<H>();
    let (id, mut client) = world.pair();
    let bytes = noise(MUCH, 1);
    world.write_all(&mut client, &bytes);
    world.received(id, &bytes);
    client.shutdown_write();
    world.until("its end", |world| world.known(id).peer_closed);
}

pub fn much_is_sent_whole<H: Harness>() {
    let mut world = narrow::<H>();
    let (id, mut client) = world.pair();
    let bytes = noise(MUCH, 2);
    let (mut sent, mut shorts, mut blocked) = (0, 0, false);
    let mut read = Vec::new();
    world.until("read", |world| {
        blocked = blocked && world.known(id).wanted_writable;
        if !blocked && sent < bytes.len() {
            let taken = world.send(id, &bytes[sent..]).unwrap();
            sent += taken;
            if sent < bytes.len() {
                world.want_writable(id);
                shorts += 1;
                blocked = true;
            }
        }
        // A slow reader's odd bites.
        client.read(&mut read, 7777);
        read.len() == bytes.len()
    });
    assert!(read == bytes, "other bytes were read than sent");
    assert!(shorts > 5, "only {shorts} short sends: the buffers were not small");
}

pub fn much_goes_both_ways<H: Harness>() {
    let mut world = narrow::<H>();
    world.echo = true;
    let bytes = noise(MUCH / 4, 3);
    let expected: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(1)).collect();
    let mut clients: Vec<_> = (0..4).map(|_| (world.pair().1, 0, Vec::new())).collect();
    world.until("echoed", |_| {
        for (client, written, read) in &mut clients {
            *written += client.write(&bytes[*written..]);
            client.read(read, 5000);
        }
        clients.iter().all(|(.., read)| read.len() == bytes.len())
    });
    assert!(clients.iter().all(|(.., read)| *read == expected), "other bytes came back than went out");
}

pub fn who_is_paused_holds_the_peer_back<H: Harness>() {
    let mut world = narrow::<H>();
    let (id, mut client) = world.pair();
    let bytes = noise(MUCH * 8, 4);
    world.write_all(&mut client, &bytes[..10]);
    world.received(id, &bytes[..10]);
    world.backend().pause(id);
    // Nothing goes through any more when 25 turns in a row took nothing.
    let (mut written, mut stuck) = (10, 0);
    world.until("stuck", |_| {
        let taken = client.write(&bytes[written..]);
        written += taken;
        stuck = if taken == 0 { stuck + 1 } else { 0 };
        stuck == 25
    });
    assert!(written < bytes.len(), "nobody held the peer back");
    let known = world.known(id).received.len();
    assert!(known <= 10 + 64 * 1024, "{known} bytes were received during the pause");
    world.backend().resume(id);
    world.received(id, &bytes[..written]);
    // Twice is as good as once.
    world.backend().resume(id);
    world.backend().pause(id);
    world.backend().pause(id);
    world.backend().resume(id);
    world.write_all(&mut client, b"after");
    world.until("the rest", |world| world.known(id).received.ends_with(b"after"));
}

pub fn room_is_told_once_and_only_when_wanted<H: Harness>() {
    let mut world = narrow::<H>();
    let (id, mut client) = world.pair();
    // There is room.
    world.wait_for_room(id);
    world.wait_for_room(id);
    if H::FAULTS {
        // There, room is told where there is none, and sends are short where there is.
        return;
    }
    let bytes = noise(MUCH * 8, 5);
    for _ in 0..3 {
        let mut sent = 0;
        // The kernels on the way take some more after the first send that takes nothing; then nobody reads.
        let told = loop {
            while let taken @ 1.. = world.send(id, &bytes[sent..]).unwrap() {
                sent += taken;
            }
            let told = world.known(id).writable;
            world.want_writable(id);
            world.idle_turns();
            if world.known(id).writable == told {
                break told;
            }
        };
        assert!(sent < bytes.len());
        let mut read = Vec::new();
        world.until("everything read", |_| {
            client.read(&mut read, usize::MAX);
            read.len() == sent
        });
        world.until("room", |world| world.known(id).writable > told);
        world.idle_turns();
        assert_eq!(world.known(id).writable, told + 1);
    }
}

pub fn closing_with_a_short_send_ends_all<H: Harness>() {
    let mut world = narrow::<H>();
    let bytes = noise(MUCH * 4, 6);
    for ending in [Ending::Graceful, Ending::Reset] {
        for wants_room in [false, true] {
            let (id, client) = world.pair();
            let taken = world.send(id, &bytes).unwrap();
            assert!(taken < bytes.len());
            if wants_room {
                world.want_writable(id);
                world.turn();
            }
            let told = world.log.len();
            world.close(id, ending);
            // Room comes now, or an error, and neither is told.
            client.close();
            world.until("closed", |world| world.open.is_empty());
            world.idle_turns();
            assert_eq!(world.log.len(), told + 1, "{:?}", &world.log[told..]);
        }
    }
}
