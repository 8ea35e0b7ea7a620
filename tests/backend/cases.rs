//! One rule of the port per case.

use std::sync::Arc;
use std::time::{Duration, Instant};

use holdline::id::ListenerId;
use holdline::io::{Backend, Backlog, Ending, Out};

use super::harness::{Client, Harness, Peer, Setup};
use super::world::{Said, World, noise};

pub fn echoes_in_place<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    world.echo = true;
    let mut clients: Vec<H::Client> = (0..20).map(|_| world.pair().1).collect();
    for round in 0..50_u8 {
        for client in &mut clients {
            world.write_all(client, &[round; 64]);
        }
        for client in &mut clients {
            world.reads(client, &[round + 1; 64]);
        }
    }
}

pub fn a_connection_comes_with_its_address<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (ids, clients): (Vec<_>, Vec<_>) = (0..50).map(|_| world.pair()).unzip();
    for (id, client) in ids.iter().zip(&clients) {
        let told = world.known(*id).peer;
        assert!(told.is_some());
        assert!(client.address().is_none_or(|address| Some(address) == told), "{told:?}");
    }
}

pub fn a_turn_sends_to_many<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (ids, mut clients): (Vec<_>, Vec<_>) = (0..100).map(|_| world.pair()).unzip();
    for (tag, id) in (0..).zip(&ids) {
        let tag_bytes = u32::to_le_bytes(tag);
        world.backend().send(*id, Out::Bytes(&tag_bytes), tag);
    }
    world.backend().flush();
    let mut sent = vec![4; ids.len()];
    while let Some(short) = world.backend().next_short() {
        sent[short.tag as usize] = short.sent.unwrap();
    }
    assert!(H::FAULTS || sent.iter().all(|sent| *sent == 4), "an empty socket has room");
    for (tag, client) in (0_u32..).zip(&mut clients) {
        world.send_all(ids[tag as usize], &tag.to_le_bytes()[sent[tag as usize]..]);
        world.reads(client, &tag.to_le_bytes());
    }
}

pub fn shared_bytes_are_sent_from_start_to_end<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut client) = world.pair();
    let shared: Arc<[u8]> = (*b"header-payload-rest").into();
    let sent = world.send_out(id, Out::Shared(&shared, 7, 14), 7).unwrap();
    world.send_all(id, &b"payload"[sent..]);
    world.reads(&mut client, b"payload");
    world.close_and_wait(id, Ending::Graceful);
    assert_eq!(Arc::strong_count(&shared), 1, "the backend let go of what it sent");
}

pub fn a_peers_reset_is_a_failure<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    for written in [0, 1, 5000] {
        let (id, mut client) = world.pair();
        client.write(&noise(written, 3));
        client.reset();
        world.until("failed", |world| world.known(id).failed);
        world.idle_turns();
        world.close_and_wait(id, Ending::Graceful);
    }
}

pub fn a_reset_reaches_who_was_paused<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, client) = world.pair();
    world.backend().pause(id);
    world.turn();
    client.reset();
    world.idle_turns();
    world.backend().resume(id);
    world.until("failed", |world| world.known(id).failed);
    world.close_and_wait(id, Ending::Reset);
}

pub fn a_peers_half_close_leaves_sending<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut client) = world.pair();
    world.write_all(&mut client, b"last words");
    client.shutdown_write();
    world.until("its end", |world| world.known(id).peer_closed);
    assert_eq!(world.known(id).received, b"last words");
    world.idle_turns();
    world.send_all(id, b"answer");
    world.reads(&mut client, b"answer");
    assert_eq!(client.peer(), Peer::Open);
    world.close_and_wait(id, Ending::Graceful);
    assert!(world.reads_until(&mut client, Peer::Finished).is_empty());
}

pub fn our_half_close_leaves_receiving<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut client) = world.pair();
    world.send_all(id, b"that is all");
    world.backend().shutdown(id);
    assert_eq!(world.reads_until(&mut client, Peer::Finished), b"that is all");
    world.write_all(&mut client, b"not from here");
    world.received(id, b"not from here");
    client.close();
    world.until("its end", |world| world.known(id).peer_closed || world.known(id).failed);
    world.close_and_wait(id, Ending::Graceful);
}

/// Whatever both sides have to agree on first: it is done, then comes the end.
pub fn a_half_close_at_once_leaves_receiving<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let mut client = world.try_connect();
    let id = world.accepted();
    world.backend().shutdown(id);
    world.write_all(&mut client, b"not from here");
    world.received(id, b"not from here");
    assert_eq!(world.reads_until(&mut client, Peer::Finished), b"");
    client.close();
    world.until("its end", |world| world.known(id).peer_closed || world.known(id).failed);
    world.close_and_wait(id, Ending::Graceful);
}

pub fn a_graceful_close_delivers_what_was_taken<H: Harness>() {
    let mut world = World::<H>::new(Setup { small_buffers: true, ..Setup::default() });
    let bytes = noise(1 << 20, 4);
    for unread in [&b""[..], b"which the server never reads"] {
        let (id, mut client) = world.pair();
        world.backend().pause(id);
        world.write_all(&mut client, unread);
        world.turn();
        let taken = world.send(id, &bytes).unwrap();
        assert!(taken < bytes.len());
        world.close(id, Ending::Graceful);
        let read = world.reads_until(&mut client, Peer::Finished);
        assert!(read == bytes[..taken], "{} read, {taken} taken", read.len());
        world.until("closed", |world| world.open.is_empty());
    }
}

pub fn a_reset_shows_as_one<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut client) = world.pair();
    world.close_and_wait(id, Ending::Reset);
    world.reads_until(&mut client, Peer::Reset);
}

pub fn a_refused_connection_is_reset<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    world.connections_max = 0;
    let mut client = world.harness.try_connect().unwrap();
    world.until("refused", |world| world.log.contains(&Said::Refused));
    world.reads_until(&mut client, Peer::Reset);
}

pub fn sending_to_who_is_gone_fails_and_no_more<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, client) = world.pair();
    client.reset();
    world.until("an error", |world| world.send(id, b"hello?").is_err());
    // Every other request is just as harmless.
    world.want_writable(id);
    world.backend().pause(id);
    world.backend().resume(id);
    world.backend().shutdown(id);
    world.backend().quieten(id);
    world.idle_turns();
    world.close_and_wait(id, Ending::Graceful);
    assert!(world.send(id, b"hello?").is_err(), "a name without a connection takes nothing");
    world.backend().want_writable(id);
    world.backend().resume(id);
    world.backend().close(id, Ending::Reset);
    world.idle_turns();
    assert_eq!(world.closed, 1);
}

pub fn a_flood_leaves_others_their_turn<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (flood, mut flooder) = world.pair();
    let (quiet, mut client) = world.pair();
    let bytes = noise(1 << 20, 5);
    for round in 0..20_u8 {
        let heard = world.known(quiet).received.len();
        flooder.write(&bytes);
        world.write_all(&mut client, &[round]);
        let mut turns = 0;
        world.until("heard", |world| {
            flooder.write(&bytes);
            turns += 1;
            world.known(quiet).received.len() > heard
        });
        assert!(turns < 50, "{turns} turns");
    }
    assert!(!world.known(flood).received.is_empty());
}

pub fn a_quietened_connection_wakes_again<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    world.echo = true;
    let (id, mut client) = world.pair();
    for round in 0..20_u8 {
        world.backend().quieten(id);
        if round % 2 == 0 {
            world.turn();
        }
        world.write_all(&mut client, &[round; 100]);
        if round % 3 == 0 {
            world.backend().quieten(id);
        }
        world.reads(&mut client, &[round + 1; 100]);
    }
}

pub fn a_waker_wakes_the_current_and_the_next_wait<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let waker = world.backend().waker();
    let start = Instant::now();
    waker.wake();
    waker.wake();
    world.turn_within(Duration::from_secs(60));
    for _ in 0..10 {
        let waker = Arc::clone(&waker);
        let thread = std::thread::spawn(move || waker.wake());
        world.turn_within(Duration::from_secs(60));
        thread.join().unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(30));
}

pub fn waiting_ends_with_its_timeout_or_with_work<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut client) = world.pair();
    let start = Instant::now();
    world.turn_within(Duration::ZERO);
    world.turn_within(Duration::from_millis(30));
    // Leftovers: a `Closed` that was not fetched, and bytes that came meanwhile.
    client.write(b"bytes");
    world.close(id, Ending::Graceful);
    world.backend().wait(Some(Duration::from_secs(60))).unwrap();
    world.until("closed", |world| world.open.is_empty());
    assert!(start.elapsed() < Duration::from_secs(30));
}

pub fn a_paused_listener_takes_nobody<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut old) = world.pair();
    world.backend().pause_accept(true);
    world.idle_turns();
    let mut new = world.harness.try_connect().unwrap();
    world.idle_turns();
    assert_eq!(world.open.len(), 1);
    world.write_all(&mut old, b"still here");
    world.received(id, b"still here");
    world.backend().pause_accept(false);
    let id = world.accepted();
    world.write_all(&mut new, b"here too");
    world.received(id, b"here too");
}

pub fn a_closing_listener_takes_who_waits<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (old, mut client) = world.pair();
    world.backend().pause_accept(true);
    let mut waiting: Vec<_> = (0..20).map(|_| world.harness.try_connect().unwrap()).collect();
    world.idle_turns();
    assert_eq!(world.open.len(), 1);
    world.backend().pause_accept(false);
    world.backend().stop_listening(ListenerId(0), Backlog::Take);
    world.until("all are taken", |world| world.open.len() == 21);
    world.until("the listener has closed", |world| !world.backend().is_listening());
    let ids: Vec<_> = world.open.keys().copied().filter(|id| *id != old).collect();
    if let Some(mut late) = world.harness.try_connect() {
        world.reads_until(&mut late, Peer::Reset);
    }
    for client in &mut waiting {
        world.write_all(client, b"there");
    }
    for id in ids {
        world.received(id, b"there");
    }
    world.write_all(&mut client, b"still here");
    world.received(old, b"still here");
}

pub fn a_closed_listener_leaves_connections<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let (id, mut client) = world.pair();
    world.backend().stop_listening(ListenerId(0), Backlog::Leave);
    world.idle_turns();
    assert!(!world.backend().is_listening());
    if let Some(mut late) = world.harness.try_connect() {
        world.reads_until(&mut late, Peer::Reset);
    }
    world.write_all(&mut client, b"still here");
    world.received(id, b"still here");
    world.send_all(id, b"so am I");
    world.reads(&mut client, b"so am I");
    assert_eq!(world.open.len(), 1);
}
