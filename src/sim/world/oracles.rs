//! What must be true of what peers were told, whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use super::peer::{End, Peer, Stage};
use super::plan::{Crime, Manner, Plan, Role};
use super::wire::Id;
use crate::app::SlowConsumer;

/// Whether a peer is to get every message of its topic, as long as it is there.
fn is_lossless(peer: &Peer, plan: &Plan) -> bool {
    match peer.sketch.role {
        Role::Member(_, _, policy) => policy == SlowConsumer::Close || plan.roomy,
        _ => true,
    }
}

fn hears_itself(peer: &Peer) -> bool {
    !matches!(peer.sketch.role, Role::Member(_, false, _))
}

/// One order for all: no message twice, each publisher's in its order and without gaps, and all peers agree on who came
/// before whom; those who get everything agree on who came next.
pub(super) fn one_order(peers: &[Peer], plan: &Plan) -> Result<(), String> {
    let mut topics: BTreeMap<String, Vec<&Peer>> = BTreeMap::new();
    for peer in peers {
        if let Some(topic) = peer.sketch.topic() {
            topics.entry(topic).or_default().push(peer);
        }
    }
    for (topic, members) in topics {
        let (mut next, mut previous, mut edges) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for member in members {
            let lossless = is_lossless(member, plan);
            let told = |fault: String| format!("{topic}, peer {}: {fault}", member.number);
            alone(member, lossless).map_err(told)?;
            for pair in member.seen.windows(2) {
                edges.insert((pair[0], pair[1]));
                if lossless && hears_itself(member) {
                    let (one, two) =
                        (*next.entry(pair[0]).or_insert(pair[1]), *previous.entry(pair[1]).or_insert(pair[0]));
                    if one != pair[1] || two != pair[0] {
                        return Err(told(format!("{pair:?}, but others saw {one:?} after and {two:?} before")));
                    }
                }
            }
        }
        acyclic(&edges).map_err(|fault| format!("{topic}: {fault}"))?;
    }
    Ok(())
}

/// What can be said of one peer's messages without the others'.
fn alone(member: &Peer, lossless: bool) -> Result<(), String> {
    let mut last: BTreeMap<u32, u32> = BTreeMap::new();
    for id in &member.seen {
        if id.publisher == member.number && !hears_itself(member) {
            return Err(format!("{id:?} came back to its publisher, who did not want it"));
        }
        let fits = match last.insert(id.publisher, id.sequence) {
            None => true,
            Some(before) if lossless && id.sequence != Id::LEFT => before.checked_add(1) == Some(id.sequence),
            Some(before) => before < id.sequence,
        };
        if !fits {
            return Err(format!("{id:?} is not the next of its publisher's in {:?}", member.seen));
        }
    }
    Ok(())
}

/// Kahn's algorithm: an order that all pairs agree with.
fn acyclic(edges: &BTreeSet<(Id, Id)>) -> Result<(), String> {
    let mut incoming: BTreeMap<Id, usize> = BTreeMap::new();
    for &(one, two) in edges {
        incoming.entry(one).or_default();
        *incoming.entry(two).or_default() += 1;
    }
    let mut free: Vec<Id> = incoming.iter().filter(|(_, count)| **count == 0).map(|(id, _)| *id).collect();
    let mut placed = 0;
    while let Some(id) = free.pop() {
        placed += 1;
        let first = (id, Id { publisher: 0, sequence: 0 });
        for &(_, two) in edges.range(first..).take_while(|(one, _)| *one == id) {
            let count = incoming.entry(two).or_default();
            *count -= 1;
            if *count == 0 {
                free.push(two);
            }
        }
    }
    if placed == incoming.len() { Ok(()) } else { Err("peers do not agree on the order".into()) }
}

/// All that well peers published since a well peer joined has come to it. For quiet moments.
pub(super) fn all_came(peers: &[Peer], plan: &Plan) -> Result<(), String> {
    for peer in peers.iter().filter(|peer| peer.is_well()) {
        if !peer.is_even() {
            return Err(format!("it is owed something: {}", peer.gist()));
        }
        let (Some(topic), Some(synced), true) = (peer.sketch.topic(), &peer.synced, is_lossless(peer, plan)) else {
            continue;
        };
        let seen: BTreeSet<Id> = peer.seen.iter().copied().collect();
        for other in peers.iter().filter(|other| other.is_well() && other.sketch.topic().as_ref() == Some(&topic)) {
            if other.number == peer.number && !hears_itself(peer) {
                continue;
            }
            let first = synced.get(other.number as usize).map_or(1, |sent| sent + 1);
            for sequence in first..=other.sent {
                let id = Id { publisher: other.number, sequence };
                if !seen.contains(&id) {
                    return Err(format!("{topic}: {id:?} never came to peer {}: {:?}", peer.number, peer.seen));
                }
            }
        }
    }
    Ok(())
}

/// Nobody was closed who did nothing wrong, and all others as they should.
pub(super) fn just_ends(peers: &[Peer], plan: &Plan, draining: bool) -> Result<(), String> {
    peers.iter().try_for_each(|peer| {
        just_end(peer, plan, draining).map_err(|fault| format!("peer {} ({:?}): {fault}", peer.number, peer.sketch))
    })
}

fn just_end(peer: &Peer, plan: &Plan, draining: bool) -> Result<(), String> {
    // Where the network, the clock or the crowd may have ended it, nothing can be said.
    let fate = plan.net.faults.resets > 0 || plan.jumpy || plan.crowded || draining;
    if fate || !matches!(peer.sketch.manner, Manner::Healthy | Manner::Slow | Manner::Mute) {
        return Ok(());
    }
    let slow = peer.code == Some(4001) || peer.code.is_none() && peer.status.is_none_or(|status| status == 101);
    // Where the process has next to no room, anybody may be sent away for it.
    let tight = plan.limits.queue_bytes_total_max < 1 << 20;
    match (peer.sketch.role, peer.end) {
        (_, Some(End::Server | End::Reset)) if tight && matches!(peer.code, Some(1013 | 4001)) => Ok(()),
        (_, Some(End::Server | End::Reset)) if tight && peer.code.is_none() => Ok(()),
        (Role::Criminal(crime), end) => just_punishment(peer, crime, end),
        // The time to close runs while the last pages are being read.
        (Role::Pages, Some(End::Reset)) if plan.net.downstream_bytes < 1024 => Ok(()),
        (Role::Pages, Some(End::Server)) if peer.pages == peer.sent => Ok(()),
        (Role::Pages, end) => Err(format!("{} of {} pages, {end:?}, {:?}", peer.pages, peer.sent, peer.status)),
        (_, None) => Ok(()),
        (_, Some(End::Server)) if peer.sketch.manner == Manner::Mute && matches!(peer.code, None | Some(4000)) => {
            Ok(())
        }
        // Of a call that does not answer the connection goes.
        (_, Some(End::Server | End::Reset)) if peer.sketch.manner == Manner::Mute && peer.is_call() => Ok(()),
        (_, Some(End::Server | End::Reset)) if !plan.roomy && slow => Ok(()),
        (_, Some(end)) => Err(format!("ended without reason: {end:?}, {:?}, {:?}", peer.code, peer.status)),
    }
}

fn just_punishment(peer: &Peer, crime: Crime, end: Option<End>) -> Result<(), String> {
    if matches!(crime, Crime::PingFlood | Crime::Unfinished | Crime::Noise) {
        return Ok(()); // takes its time, or may be anything
    }
    let is = (end, peer.code, peer.status);
    if crime == Crime::EarlyData && is == (Some(End::Server), Some(1002), Some(101)) {
        return Ok(()); // it came so late that it was not early
    }
    let right = match (crime.code(), crime.status()) {
        (Some(code), _) => is == (Some(End::Server), Some(code), Some(101)),
        (None, Some(status)) => is == (Some(End::Server), None, Some(status)),
        (None, None) => end == Some(End::Server),
    };
    if right { Ok(()) } else { Err(format!("punished with {is:?}")) }
}

/// Those who give no sign of life, or do not read, have been sent away.
pub(super) fn dead_are_gone(peers: &[Peer]) -> Result<(), String> {
    let dead = |peer: &&Peer| {
        matches!(peer.sketch.manner, Manner::Mute | Manner::Blind)
            || matches!(peer.sketch.role, Role::Criminal(Crime::PingFlood | Crime::Unfinished))
    };
    let there =
        |peer: &&Peer| peer.stage != Stage::Ahead && peer.client.as_ref().is_some_and(|client| !client.is_left());
    match peers.iter().filter(dead).find(there) {
        Some(peer) => Err(format!("it is dead and still held: {}", peer.gist())),
        None => Ok(()),
    }
}
