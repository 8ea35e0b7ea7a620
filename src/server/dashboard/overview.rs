//! `/api/overview`: what the page draws, as JSON. Counters are as they stand; whoever reads it twice has rates.

use serde_json::{Map, Value, json};

use super::super::admin::Surroundings;
use super::super::scrape::BUILD;
use crate::close::CloseReason;
use crate::host::Process;
use crate::metrics::{Glance, Metrics, Protocol, Purpose, ShardMetrics, SlowConsumer, Spread, TopTopic};
use crate::rule::Limit;

/// Topics and connections that are told.
const SHOWN: usize = 10;

/// All of it.
pub(in crate::server) fn overview(metrics: &Metrics, around: &Surroundings<'_>) -> String {
    let process = Process::now();
    let glances: Vec<Glance> = metrics.shards.iter().map(|shard| shard.pane.look()).collect();
    let totals = metrics.shards.iter().map(|shard| numbers(shard));
    let shards: Vec<Value> = totals.collect();
    json!({
        "phase": around.phase.label(),
        "degraded": around.degraded(),
        "uptime_seconds": around.uptime.as_secs_f64(),
        "build": BUILD.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect::<Map<_, _>>(),
        "backend": around.backend(),
        "process": {
            "resident_bytes": process.resident_bytes,
            "cpu_seconds": process.cpu_seconds,
            "open_files": process.open_files,
            "open_files_max": process.open_files_max,
        },
        "shards": shards,
        "histograms": {
            "turn": histogram(&metrics.spread(|shard| &shard.turn_seconds)),
            "fanout": histogram(&metrics.spread(|shard| &shard.fanout_seconds)),
            "delivery": histogram(&metrics.spread(|shard| &shard.publish_to_last_delivery_seconds)),
            "handshake": histogram(&metrics.spread(|shard| &shard.handshake_seconds)),
            "queue": histogram(&metrics.spread(|shard| &shard.queue_depth_bytes)),
        },
        "protocols": Protocol::ALL.iter().map(|&protocol| protocol_of(metrics, protocol)).collect::<Vec<_>>(),
        "limits": nonzero(Limit::ALL, |limit| (limit.label(), metrics.total(|shard| shard.struck(*limit)))),
        "closed": nonzero(&CloseReason::ALL, |reason| (reason.label(), metrics.total(|shard| shard.closed(*reason)))),
        "memory": nonzero(Purpose::ALL, |purpose| (purpose.label(), metrics.total(|shard| shard.memory(*purpose)))),
        "topics": {
            "busy": topics(&glances, |glance| &glance.busy, |one, other| other.publications.total_cmp(&one.publications)),
            "crowded": topics(&glances, |glance| &glance.crowded, |one, other| other.subscribers.cmp(&one.subscribers)),
        },
        "slow": slow(&glances),
        "slow_ended": slow_ended(&glances),
    })
    .to_string()
}

/// What the page shows of each shard, and of all together.
fn numbers(shard: &ShardMetrics) -> Value {
    let all = [
        ("connections", &shard.connections),
        ("accepted", &shard.accepted_total),
        ("refused", &shard.refused_total),
        ("subscriptions", &shard.subscriptions),
        ("topics", &shard.topics),
        ("received", &shard.messages_received_total),
        ("publications", &shard.publications_total),
        ("deliveries", &shard.deliveries_total),
        ("dropped", &shard.deliveries_dropped_total),
        ("bytes_in", &shard.bytes_received_total),
        ("bytes_out", &shard.bytes_sent_total),
        ("queued_bytes", &shard.queued_bytes),
        ("queued_connections", &shard.queued_connections),
        ("turns", &shard.turns_total),
    ];
    let mut object: Map<String, Value> =
        all.into_iter().map(|(name, counter)| (name.to_owned(), counter.get().into())).collect();
    object.insert("turn_nanos_max".to_owned(), shard.turn_max_seconds.get().into());
    object.insert("turn_nanos".to_owned(), shard.turn_seconds.spread().sum.into());
    Value::Object(object)
}

/// Bounds in what is exported, counts of the buckets between them and above the last.
#[allow(clippy::cast_precision_loss, reason = "what is exported is a float")]
fn histogram(spread: &Spread) -> Value {
    let bounds: Vec<f64> = spread.scale.bounds.iter().map(|bound| *bound as f64 / spread.scale.divisor).collect();
    json!({ "bounds": bounds, "counts": spread.counts() })
}

fn protocol_of(metrics: &Metrics, protocol: Protocol) -> Value {
    json!({
        "name": protocol.label(),
        "connections": metrics.total(|shard| shard.speakers(protocol).0),
        "opened": metrics.total(|shard| shard.speakers(protocol).1),
        "received": metrics.total(|shard| shard.messages(protocol).0),
        "sent": metrics.total(|shard| shard.messages(protocol).1),
    })
}

/// Counts that are not zero, by name.
fn nonzero<T>(all: &[T], count: impl Fn(&T) -> (&'static str, u64)) -> Value {
    let counts = all.iter().map(count).filter(|(_, count)| *count > 0);
    Value::Object(counts.map(|(name, count)| (name.to_owned(), count.into())).collect())
}

fn topics(
    glances: &[Glance],
    of: impl Fn(&Glance) -> &Vec<TopTopic>,
    order: impl Fn(&TopTopic, &TopTopic) -> std::cmp::Ordering,
) -> Value {
    let mut all: Vec<&TopTopic> = glances.iter().flat_map(of).collect();
    all.sort_by(|one, other| order(one, other));
    let told = all.into_iter().take(SHOWN).map(
        |topic| json!({ "name": &*topic.name, "publications": topic.publications, "subscribers": topic.subscribers }),
    );
    Value::Array(told.collect())
}

fn slow(glances: &[Glance]) -> Value {
    let mut all: Vec<_> = glances.iter().flat_map(|glance| &glance.slow).collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.queued_bytes));
    Value::Array(all.into_iter().take(SHOWN).map(consumer).collect())
}

/// Who was ended for being slow of late, the last first.
fn slow_ended(glances: &[Glance]) -> Value {
    let mut all: Vec<_> = glances.iter().flat_map(|glance| &glance.lost).collect();
    all.sort_by_key(|one| one.age);
    let told = all.into_iter().take(SHOWN).map(|one| {
        let mut told = consumer(&one.consumer);
        told["ended_seconds"] = one.age.as_secs_f64().into();
        told
    });
    Value::Array(told.collect())
}

fn consumer(one: &SlowConsumer) -> Value {
    json!({
        "id": one.id,
        "protocol": one.protocol,
        "address": one.address,
        "user": one.user,
        "queued_bytes": one.queued_bytes,
    })
}
