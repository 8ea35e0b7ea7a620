//! Spans as the JSON of OTLP 1 (opentelemetry-proto, `trace/v1`): numbers of 64 bits are strings, identifiers hexadecimal.

use serde_json::{Value, json};

use super::Span;

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_PRODUCER`.
const INTERNAL: u8 = 1;
const PRODUCER: u8 = 4;

/// What is posted.
pub(super) fn request(spans: &[Span]) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let resource = [text("service.name", "holdline"), text("service.version", version)];
    let spans: Vec<Value> = spans.iter().map(span).collect();
    let scope = json!({"scope": {"name": "holdline", "version": version}, "spans": spans});
    json!({"resourceSpans": [{"resource": {"attributes": resource}, "scopeSpans": [scope]}]}).to_string()
}

fn span(span: &Span) -> Value {
    let kind = if span.name == "publish" { PRODUCER } else { INTERNAL };
    json!({
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "parentSpanId": span.parent_id,
        "flags": 1,
        "name": format!("{} {}", span.name, span.topic),
        "kind": kind,
        "startTimeUnixNano": span.begin_ns.to_string(),
        "endTimeUnixNano": span.end_ns.to_string(),
        "attributes": [
            text("messaging.system", "holdline"),
            text("messaging.operation.name", &span.name),
            text("messaging.destination.name", &span.topic),
            number("holdline.offset", span.offset),
            number("holdline.subscribers", span.reached),
            number("holdline.shard", span.shard),
        ],
    })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}
