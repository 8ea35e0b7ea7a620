//! Every bound in one place.

use std::time::Duration;

use super::networks::Networks;

named! {
    /// What happens to a connection that sends more in a second than it may.
    OverRate {
        /// It is not read until its time has come, so that the peer's own sends wait.
        #[default]
        Wait = "wait",
        /// It is closed with 1008.
        Close = "close",
    }
}

/// Bounds on what a peer can make the server spend. Each has a counter that says how often it struck.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the whole process.
    pub connections_max: usize,
    /// Connections that the process takes in within a second. Zero: no bound.
    pub accept_rate: u32,
    /// Connections of one client address: an IPv4 address, or the 64 bits of an IPv6 address that name a network. Zero: no
    /// bound, like all those per address.
    pub connections_per_address_max: usize,
    /// Connections that are taken in from one address within a second.
    pub accept_rate_per_address: u32,
    /// Connections of the process that have sent no whole request or first frame yet. Zero: no bound.
    pub handshakes_max: usize,
    /// The same of one address.
    pub handshakes_per_address_max: usize,
    /// Requests that are answered to one address within a second.
    pub request_rate_per_address: u32,
    /// Connections of one address that are refused within a second before it is not answered any more for a while.
    pub refusal_rate_per_address: u32,
    /// Addresses to which none of those per address apply.
    pub exempt: Networks,
    /// Messages that one connection may send in a second. Zero: no bound.
    pub message_rate: u32,
    /// Bytes that one connection may send in a second, once it is open. Zero: no bound.
    pub message_bytes_rate: usize,
    /// What happens to a connection that sends more than those two.
    pub message_rate_policy: OverRate,
    /// Bytes of memory that must be left to the process; with less it takes no more connections in. Zero: never mind.
    pub memory_free_bytes_min: usize,
    /// Time from accept to a complete request head or handshake. Not restarted by a byte.
    pub handshake_timeout: Duration,
    /// Bytes of a request head.
    pub head_bytes_max: usize,
    /// Bytes of a request's target, its path and query.
    pub target_bytes_max: usize,
    /// Fields of a request head.
    pub head_fields_max: usize,
    /// Bytes of a request's body, where it is more than one message. A declared length is checked before the body is
    /// read.
    pub body_bytes_max: usize,
    /// Time without a byte of a request's body.
    pub body_timeout: Duration,
    /// Bytes a second of a request's body, on average, once it has taken [`Limits::BODY_GRACE`]. Zero: no bound.
    pub body_rate_min: usize,
    /// Requests that are answered on one connection.
    pub keep_alive_requests_max: u32,
    /// Time from an answer to the next request.
    pub keep_alive_timeout: Duration,
    /// Bytes of one message, after inflation. A declared length is checked before anything is allocated.
    pub message_bytes_max: usize,
    /// Fragments of one message.
    pub fragments_max: u32,
    /// Empty fragments in a row.
    pub empty_fragments_max: u32,
    /// Control replies (pongs) that may wait in the outgoing queue before the peer is no longer read.
    pub control_replies_max: u32,
    /// Bytes in the outgoing queue of one connection, with what it takes to keep its messages apart.
    pub queue_bytes_max: usize,
    /// Bytes in all outgoing queues of the process, counted likewise, and of all unfinished incoming messages.
    pub queue_bytes_total_max: usize,
    /// Time without progress of a queue that is not empty.
    pub queue_stall_timeout: Duration,
    /// Time from our close frame to the end of the connection.
    pub close_timeout: Duration,
    /// Subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Bytes of a topic's name.
    pub topic_bytes_max: usize,
    /// Topics of the whole process.
    pub topics_max: usize,
    /// Queue groups of one topic.
    pub groups_max: usize,
    /// Time that a long poll may wait.
    pub poll_wait_max: Duration,
    /// What is kept of topics' pasts.
    pub history: History,
    /// Silence after which a peer is asked for a sign of life. Zero: never.
    pub heartbeat_interval: Duration,
    /// Time to answer.
    pub heartbeat_timeout: Duration,
    /// Time without a message (heartbeats do not count) after which a connection is closed. Zero: never. What is only read over
    /// HTTP has none.
    pub idle_timeout: Duration,
    /// Items in one shard's mailbox.
    pub mailbox_capacity: usize,
    /// What one connection of HTTP/2 may do.
    pub http2: Http2Limits,
}

impl Limits {
    /// Time that a request's body has before its rate is looked at.
    pub const BODY_GRACE: Duration = Duration::from_secs(5);
}

/// Bounds on one connection of HTTP/2. All frames of all its streams count together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams that are open at once.
    pub streams_max: u32,
    /// Bytes of one stream's body that nobody has consumed yet, below 2^31.
    pub stream_window: usize,
    /// Bytes of all bodies that are on their way, below 2^31. What has come is bounded by the streams' windows alone, so
    /// that a stream that nobody reads stalls no other.
    pub connection_window: usize,
    /// Time to the peer's SETTINGS, and then to its acknowledgement of ours.
    pub settings_timeout: Duration,
    /// Resets of streams at once, by the peer or because of it.
    pub resets_burst: u32,
    /// Resets that may follow in each second.
    pub resets_rate: u32,
    /// Frames without a payload at once.
    pub frames_burst: u32,
    /// Such frames that may follow in each second.
    pub frames_rate: u32,
    /// Empty DATA frames in a row.
    pub empty_data_max: u32,
    /// What small DATA frames that nobody has consumed yet may lack in all to 256 bytes each.
    pub data_overhead_max: u32,
    /// CONTINUATION frames of one block of fields.
    pub continuations_max: u32,
}

impl Default for Http2Limits {
    fn default() -> Self {
        Self {
            streams_max: 100,
            stream_window: 65_535,
            connection_window: 1024 * 1024,
            settings_timeout: Duration::from_secs(5),
            resets_burst: 200,
            resets_rate: 20,
            frames_burst: 10_000,
            frames_rate: 1000,
            empty_data_max: 100,
            data_overhead_max: 25_600,
            continuations_max: 8,
        }
    }
}

/// How much of a topic's past is kept. A zero turns history off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Messages of one topic.
    pub messages_max: usize,
    /// Bytes of one topic's messages, with what it takes to keep them apart.
    pub bytes_max: usize,
    /// Age of a message. A topic without messages and subscribers is forgotten after the same time.
    pub age_max: Duration,
    /// Bytes of all topics' messages in the process.
    pub bytes_total_max: usize,
}

impl Default for History {
    fn default() -> Self {
        Self {
            messages_max: 256,
            bytes_max: 1024 * 1024,
            age_max: Duration::from_secs(5 * 60),
            bytes_total_max: 256 * 1024 * 1024,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            accept_rate: 0,
            connections_per_address_max: 1000,
            accept_rate_per_address: 200,
            handshakes_max: 0,
            handshakes_per_address_max: 200,
            request_rate_per_address: 0,
            refusal_rate_per_address: 100,
            exempt: Networks::local(),
            message_rate: 0,
            message_bytes_rate: 0,
            message_rate_policy: OverRate::default(),
            memory_free_bytes_min: 64 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            head_bytes_max: 16 * 1024,
            target_bytes_max: 8 * 1024,
            head_fields_max: 100,
            body_bytes_max: 4 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            body_rate_min: 1024,
            keep_alive_requests_max: 1000,
            keep_alive_timeout: Duration::from_secs(75),
            message_bytes_max: 1024 * 1024,
            fragments_max: 65_536,
            empty_fragments_max: 16,
            control_replies_max: 16,
            queue_bytes_max: 256 * 1024,
            queue_bytes_total_max: 1024 * 1024 * 1024,
            queue_stall_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(5),
            subscriptions_max: 128,
            topic_bytes_max: 255,
            topics_max: 1_000_000,
            groups_max: 100,
            poll_wait_max: Duration::from_secs(120),
            history: History::default(),
            heartbeat_interval: Duration::from_secs(30),
            heartbeat_timeout: Duration::from_secs(10),
            idle_timeout: Duration::ZERO,
            mailbox_capacity: 8192,
            http2: Http2Limits::default(),
        }
    }
}
