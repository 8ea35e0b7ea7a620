//! What is answered: JSON.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Realm;
use crate::codec::json::{write_error, write_number, write_string};
use crate::config::{Difference, effective};
use crate::id::ShardId;
use crate::message::{Cursor, Epoch, Topic};
use crate::rule::Limit;
use crate::server::reload::ReloadError;
use crate::shard::orders::Item;

/// An error.
pub(super) fn error(code: &str, message: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_error(code, message, &mut out);
    out
}

/// A page of these, and where the next one begins.
pub(super) fn page(name: &str, items: &[Item], next: Option<(ShardId, u32)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(items.iter().map(|item| item.json.len() + 1).sum::<usize>() + 64);
    out.push(b'{');
    write_string(name, &mut out);
    out.extend_from_slice(b":[");
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&item.json);
    }
    out.extend_from_slice(b"],\"next\":");
    match next {
        Some((shard, place)) => write_string(&format!("{}:{place}", shard.0), &mut out),
        None => out.extend_from_slice(b"null"),
    }
    out.extend_from_slice(b"}\n");
    out
}

/// How many connections were closed, whether those are all, and for which topic.
pub(super) fn closed(connections: u64, is_done: bool, ended: Option<&(Topic, Epoch)>) -> Vec<u8> {
    let mut out = b"{\"closed\":".to_vec();
    write_number(connections, &mut out);
    out.extend_from_slice(if is_done { b",\"done\":true" } else { b",\"done\":false" });
    if let Some((topic, epoch)) = ended {
        out.extend_from_slice(b",\"topic\":");
        write_string(topic.as_str(), &mut out);
        out.extend_from_slice(b",\"epoch\":");
        write_number(epoch.0, &mut out);
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Where a message has its place, and who there was to hear it: as for other publishers.
pub(super) fn published(topic: &Topic, cursor: Cursor, subscribers: u64) -> Vec<u8> {
    line(&json!({
        "topic": topic.as_str(),
        "epoch": cursor.epoch.0,
        "offset": cursor.offset.0,
        "subscribers": subscribers,
    }))
}

/// Where the server is in its life.
pub(super) fn phase(realm: &Realm) -> Vec<u8> {
    let connections = realm.metrics.total(|shard| shard.connections.get());
    line(&json!({
        "phase": realm.phase.get().label(),
        "connections": connections,
        "over_seconds": seconds(realm.control.drain_period()),
    }))
}

/// All limits as they are now, and how often each has struck.
pub(super) fn limits(realm: &Realm) -> Vec<u8> {
    let mut limits = settings(realm);
    limits.retain(|key, _| ["limits.", "history.", "heartbeat."].iter().any(|table| key.starts_with(table)));
    let struck = Limit::ALL
        .iter()
        .map(|&limit| (limit.label().to_owned(), Value::from(realm.metrics.total(|shard| shard.struck(limit)))));
    line(&json!({ "limits": limits, "struck": struck.collect::<Map<_, _>>() }))
}

/// The configuration as it is now, without what is secret.
pub(super) fn config(realm: &Realm) -> Vec<u8> {
    line(&json!({ "config": settings(realm) }))
}

/// What a reload came to.
pub(super) fn reloaded(result: &Result<Difference, ReloadError>) -> (u16, Vec<u8>) {
    match result {
        Ok(Difference { changed, at_start }) => (200, line(&json!({ "changed": changed, "at_start": at_start }))),
        Err(error) => {
            let message = format!("nothing has changed: {error}");
            let error = json!({ "code": "bad_configuration", "message": message, "problems": error.lines() });
            (422, line(&json!({ "error": error })))
        }
    }
}

fn settings(realm: &Realm) -> Map<String, Value> {
    effective(&realm.reloader.running()).collect()
}

fn seconds(period: Duration) -> f64 {
    period.as_secs_f64()
}

fn line(value: &Value) -> Vec<u8> {
    let mut out = value.to_string().into_bytes();
    out.push(b'\n');
    out
}
