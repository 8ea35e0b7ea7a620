//! Many come and go: names, places and descriptors.

use holdline::io::{Backend, Ending};

use super::harness::{Client, Harness, Peer, Setup};
use super::world::{Said, World, noise};

pub fn an_old_name_never_comes_back<H: Harness>() {
    let mut world = World::<H>::new(Setup::default());
    let bytes = noise(3000, 1);
    let (mut old, mut client) = world.pair();
    for round in 0..200 {
        // The old one leaves with everything pending: bytes that nobody read, room that was asked for, a reset.
        client.write(&bytes);
        world.want_writable(old);
        match round % 4 {
            0 => client.reset(),
            1 => client.close(),
            2 => client.shutdown_write(),
            _ => world.backend().pause(old),
        }
        let ending = if round % 3 == 0 { Ending::Reset } else { Ending::Graceful };
        world.close_and_wait(old, ending);
        // The world panics when it hears of the old one again.
        let (new, mut next) = world.pair();
        assert_eq!(new.index(), old.index());
        assert_ne!(new, old);
        world.write_all(&mut next, b"mine");
        world.received(new, b"mine");
        // Nor does the old name reach the new one.
        world.backend().close(old, Ending::Reset);
        world.backend().pause(old);
        assert!(world.send(old, b"not yours").is_err());
        world.send_all(new, b"yours");
        world.reads(&mut next, b"yours");
        (old, client) = (new, next);
    }
}

pub fn starved_accepts_go_on_when_fed<H: Harness>() {
    let mut world = World::<H>::new(Setup { alone: true, ..Setup::default() });
    world.backend().pause_accept(true);
    world.idle_turns();
    let mut clients: Vec<_> = (0..5).map(|_| world.harness.try_connect().unwrap()).collect();
    if !world.harness.starve() {
        return;
    }
    world.backend().pause_accept(false);
    world.until("failed", |world| world.log.contains(&Said::AcceptFailed) || world.open.len() == 5);
    world.idle_turns();
    let failures = world.log.iter().filter(|said| **said == Said::AcceptFailed).count();
    assert!(failures <= 30, "{failures} failures: a busy loop");
    world.harness.feed();
    world.until("accepted", |world| world.open.len() == 5);
    world.echo = true;
    for client in &mut clients {
        world.write_all(client, &[7]);
        world.reads(client, &[8]);
    }
}

pub fn a_full_table_refuses_and_recovers<H: Harness>() {
    const PLACES: usize = 8;
    let mut world = World::<H>::new(Setup { connections_max: 8, ..Setup::default() });
    let mut clients: Vec<_> = (0..PLACES).map(|_| world.pair().1).collect();
    let mut late: Vec<_> = (0..PLACES).map(|_| world.harness.try_connect().unwrap()).collect();
    let told = |world: &World<H>| {
        let bad_news = |said: &&Said| matches!(said, Said::Refused | Said::AcceptFailed);
        world.log.iter().filter(bad_news).count()
    };
    world.until("refused", |world| told(world) > 0);
    assert_eq!(world.open.len(), PLACES);
    // Those who are in do not notice.
    world.echo = true;
    for client in &mut clients {
        world.write_all(client, &[1, 2, 3]);
        world.reads(client, &[2, 3, 4]);
    }
    clients.clear();
    world.close_all(Ending::Graceful);
    // A refused one has been reset; one that waited is served now.
    for client in &mut late {
        let mut read = Vec::new();
        client.write(&[1]);
        world.until("refused or served", |_| client.read(&mut read, 1) == 1 || client.peer() == Peer::Reset);
    }
    late.clear();
    let gone: Vec<_> = world.open.keys().copied().collect();
    for id in gone {
        world.until("gone", |world| world.known(id).peer_closed || world.known(id).failed);
        world.close_and_wait(id, Ending::Graceful);
    }
    let (_, mut client) = world.pair();
    world.write_all(&mut client, &[1]);
    world.reads(&mut client, &[2]);
}

pub fn thousands_come_and_go<H: Harness>() {
    const ROUNDS: usize = 40;
    const EACH: usize = 100;
    let mut world = World::<H>::new(Setup { alone: true, ..Setup::default() });
    let (id, client) = world.pair();
    world.close_and_wait(id, Ending::Graceful);
    client.close();
    let before = world.harness.holdings();
    for round in 0..ROUNDS {
        let start = world.log.len();
        let clients: Vec<_> = (0..EACH).map(|_| world.harness.try_connect().unwrap()).collect();
        if round % 2 == 0 {
            world.until("all accepted", |world| accepted(&world.log[start..]) == EACH);
        }
        let mut staying = Vec::new();
        for (nth, mut client) in clients.into_iter().enumerate() {
            client.write(&[0; 100]);
            match nth % 5 {
                0 => client.close(),
                1 => client.reset(),
                2 => {
                    client.shutdown_write();
                    staying.push(client);
                }
                // Half-open: says nothing more, and is there until the server ends it.
                _ => staying.push(client),
            }
        }
        if round % 3 == 0 {
            // Everyone whose end the server can see.
            world.until("ends", |world| {
                let ends = world.open.values().filter(|known| known.peer_closed || known.failed).count();
                accepted(&world.log[start..]) == EACH && ends == EACH * 3 / 5
            });
        }
        world.until("all accepted", |world| accepted(&world.log[start..]) == EACH);
        world.close_all(if round % 4 < 2 { Ending::Graceful } else { Ending::Reset });
    }
    world.idle_turns();
    assert_eq!(world.closed, 1 + ROUNDS * EACH);
    assert_eq!(world.harness.holdings(), before, "something leaked");
}

fn accepted(log: &[Said]) -> usize {
    log.iter().filter(|said| matches!(said, Said::Accepted(_))).count()
}
