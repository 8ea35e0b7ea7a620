//! What one shard counts. The lists of names here are the lists of what is exported.

use super::text::Kind;
use super::{Counter, Histogram, Pane, Protocol, Purpose, Scale};
use crate::close::CloseReason;
use crate::rule::{AuthRefusal, Limit, Rule, TlsFailure};

/// A counter for each value of an enum.
#[derive(Debug)]
struct Tally<const N: usize>([Counter; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Counter::default()))
    }
}

/// What a number of a shard is, and how it is exported.
#[derive(Clone, Copy)]
pub(super) enum Number {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// The same in nanoseconds; exported in seconds.
    Seconds,
}

/// A name, what it means, what it is, and where it is.
pub(super) type Field<K, T> = (&'static str, &'static str, K, fn(&ShardMetrics) -> &T);

macro_rules! shard_metrics {
    (
        numbers { $($(#[doc = $help:literal])+ $name:ident: $kind:ident,)* }
        histograms { $($(#[doc = $meaning:literal])+ $spread:ident: $scale:ident,)* }
    ) => {
        /// What one shard counts.
        #[derive(Debug)]
        pub struct ShardMetrics {
            $($(#[doc = $help])+ pub $name: Counter,)*
            $($(#[doc = $meaning])+ pub $spread: Histogram,)*
            /// What operators look at.
            pub pane: Pane,
            /// Connections ended, by reason.
            closed: Tally<{ CloseReason::ALL.len() }>,
            /// Rules broken, by rule.
            violations: Tally<{ Rule::ALL.len() }>,
            /// Tokens and wishes refused, by cause.
            refused: Tally<{ AuthRefusal::ALL.len() }>,
            /// Limits that struck, by limit.
            struck: Tally<{ Limit::ALL.len() }>,
            /// TLS handshakes that failed, by cause.
            tls_failures: Tally<{ TlsFailure::ALL.len() }>,
            /// Connections and streams now, by protocol.
            spoken: Tally<{ Protocol::ALL.len() }>,
            /// Connections and streams so far, by protocol.
            opened: Tally<{ Protocol::ALL.len() }>,
            /// Messages from clients, by protocol.
            received: Tally<{ Protocol::ALL.len() }>,
            /// Messages to clients, by protocol.
            sent: Tally<{ Protocol::ALL.len() }>,
            /// Bytes of memory, by purpose.
            memory: Tally<{ Purpose::ALL.len() }>,
        }

        impl ShardMetrics {
            pub(super) const NUMBERS: &[Field<Number, Counter>] = &[
                $((stringify!($name), concat!($($help),+), Number::$kind, |metrics| &metrics.$name),)*
            ];
            pub(super) const HISTOGRAMS: &[Field<&Scale, Histogram>] = &[
                $((stringify!($spread), concat!($($meaning),+), &Scale::$scale, |metrics| &metrics.$spread),)*
            ];
        }

        impl Default for ShardMetrics {
            fn default() -> Self {
                Self {
                    $($name: Counter::default(),)*
                    $($spread: Histogram::new(&Scale::$scale),)*
                    pane: Pane::default(),
                    closed: Tally::default(),
                    violations: Tally::default(),
                    refused: Tally::default(),
                    struck: Tally::default(),
                    tls_failures: Tally::default(),
                    spoken: Tally::default(),
                    opened: Tally::default(),
                    received: Tally::default(),
                    sent: Tally::default(),
                    memory: Tally::default(),
                }
            }
        }
    };
}

shard_metrics! {
    numbers {
        /// Connections held now.
        connections: Gauge,
        /// Connections of TLS listeners held now.
        tls_connections: Gauge,
        /// TLS handshakes done.
        tls_handshakes_total: Counter,
        /// Those of them that spoke TLS 1.2; all others spoke TLS 1.3.
        tls12_handshakes_total: Counter,
        /// Those of them that went on from an earlier connection.
        tls_resumptions_total: Counter,
        /// Connections that ended by a fault in TLS after their handshake: an alert, or what does not open.
        tls_faults_total: Counter,
        /// Connections whose peers ended the transport without TLS's good-bye.
        tls_truncations_total: Counter,
        /// Bytes that TLS handshakes keep while they are under way, about.
        tls_handshake_bytes: Gauge,
        /// Sealed bytes that the kernel has not taken yet.
        tls_pending_bytes: Gauge,
        /// Connections accepted.
        accepted_total: Counter,
        /// Connections turned away, because of a limit or a drain.
        refused_total: Counter,
        /// Failed attempts to accept, for want of descriptors or memory.
        accept_failures_total: Counter,
        /// Handshakes completed.
        handshakes_total: Counter,
        /// HTTP requests answered with an error.
        http_errors_total: Counter,
        /// HTTP requests answered.
        http_requests_total: Counter,
        /// Messages received from clients.
        messages_received_total: Counter,
        /// Bytes received from clients.
        bytes_received_total: Counter,
        /// Bytes handed to the kernel or a queue for clients.
        bytes_sent_total: Counter,
        /// Messages that got an offset here.
        publications_total: Counter,
        /// Publications refused because the process that follows has the topics.
        moved_total: Counter,
        /// Publications to durable topics that were refused because the disk could not be written.
        durable_failed_total: Counter,
        /// Publications to durable topics that were refused because as many waited for the disk as may.
        durable_busy_total: Counter,
        /// Publications to durable topics that wait for the disk now.
        durable_waiting: Gauge,
        /// What they keep in memory, in bytes.
        durable_waiting_bytes: Gauge,
        /// Publications to durable topics of a cluster that were refused because their stream could not be reached.
        cluster_away_total: Counter,
        /// Publications to durable topics of a cluster that were refused because as many waited for it as may.
        cluster_busy_total: Counter,
        /// Publications to durable topics of a cluster that were refused because their stream took no more.
        cluster_full_total: Counter,
        /// Publications to topics of a cluster that were refused because they were larger than NATS takes.
        cluster_payload_total: Counter,
        /// Publications that wait for their place in a stream of the cluster now.
        cluster_waiting: Gauge,
        /// Topics owned here that are heard of other nodes now.
        cluster_followed: Gauge,
        /// Messages of other nodes, and of streams, that were placed here.
        cluster_heard_total: Counter,
        /// Messages that were given to the cluster.
        cluster_said_total: Counter,
        /// Messages that other nodes were not given, which they are told: no connection, or no room.
        cluster_unsaid_total: Counter,
        /// Messages of other nodes, as their numbers say, that never came here.
        cluster_missed_total: Counter,
        /// Pasts of topics that ended because something of them was missed: their subscribers were told.
        cluster_resets_total: Counter,
        /// Questions about durable topics of a cluster that were refused because their streams did not answer.
        cluster_unanswered_total: Counter,
        /// Messages handed to subscribers.
        deliveries_total: Counter,
        /// Messages that could not be delivered because the subscriber was too slow.
        deliveries_dropped_total: Counter,
        /// Streams of server-sent events held now.
        event_streams: Gauge,
        /// Endless responses of JSON lines held now.
        line_streams: Gauge,
        /// Long polls that wait now.
        polls: Gauge,
        /// gRPC calls held now.
        grpc_calls: Gauge,
        /// Connections of HTTP/2 held now.
        http2_connections: Gauge,
        /// Streams of HTTP/2 held now.
        http2_streams: Gauge,
        /// Streams of HTTP/2 that were opened.
        http2_streams_opened_total: Counter,
        /// Publications that repeated the idempotency key of a kept message.
        duplicates_total: Counter,
        /// Messages of topics' pasts handed to subscribers who came later, or came again.
        replayed_total: Counter,
        /// Subscribers who asked for a past that was not there any more.
        resets_total: Counter,
        /// Connections whose permission a reload has ended, and which have to show something new or go.
        auth_lapsed_total: Counter,
        /// Messages that topics of this shard keep of their past now.
        history_messages: Gauge,
        /// Bytes of them.
        history_bytes: Gauge,
        /// Messages of the past that became too old.
        history_expired_total: Counter,
        /// Messages of the past that went because all topics together kept too much.
        history_evicted_total: Counter,
        /// Topics that were forgotten: nobody had used them for so long.
        topics_forgotten_total: Counter,
        /// Topics owned by this shard, with subscribers or a past.
        topics_owned: Gauge,
        /// Subscriptions held now.
        subscriptions: Gauge,
        /// Members on the lists of topics that this shard owns.
        presence_members: Gauge,
        /// Events about who is in a topic that were handed to subscribers.
        presence_events_total: Counter,
        /// What other nodes were told of who is in topics.
        presence_whispers_total: Counter,
        /// What other nodes said of that which could not be read: they run another version.
        presence_whispers_bad_total: Counter,
        /// Spans of recorded traces that were not told, because publishers began too many.
        spans_suppressed_total: Counter,
        /// Topics with subscribers on this shard.
        topics: Gauge,
        /// Heartbeats sent.
        heartbeats_sent_total: Counter,
        /// Bytes in outgoing queues now.
        queued_bytes: Gauge,
        /// Bytes of unfinished incoming messages now, looked at ten times a second.
        unfinished_bytes: Gauge,
        /// Connections with a queue now.
        queued_connections: Gauge,
        /// Sends that the kernel did not take whole.
        short_sends_total: Counter,
        /// Times a connection was no longer read because its own replies were not read.
        reading_paused_total: Counter,
        /// Times a publisher was paused because a mailbox was full.
        publisher_paused_total: Counter,
        /// Handlers that panicked.
        handler_panics_total: Counter,
        /// Log lines left out because a peer caused too many.
        log_lines_suppressed_total: Counter,
        /// Turns of the event loop.
        turns_total: Counter,
        /// Longest turn so far.
        turn_max_seconds: Seconds,
    }
    histograms {
        /// How long the turns of the event loop took.
        turn_seconds: TURN,
        /// From the beginning of a topic's fan-out to the end of the turn in which its last subscriber on the shard was
        /// served.
        fanout_seconds: LATENCY,
        /// From the turn in which a publication came in to the end of the turn in which its last subscriber on a shard
        /// was served.
        publish_to_last_delivery_seconds: LATENCY,
        /// From accepting a connection to its being open: its request or first frame has come and a handler has taken it.
        handshake_seconds: HANDSHAKE,
        /// How long the steps of TLS handshakes took, each a few of a handshake's messages.
        tls_handshake_step_seconds: TURN,
        /// Bytes in a connection's outgoing queue, whenever a message was added to it.
        queue_depth_bytes: BYTES,
    }
}

impl ShardMetrics {
    /// Counts a turn that took so many nanoseconds.
    pub fn count_turn(&self, nanos: u64) {
        self.turns_total.add(1);
        self.turn_max_seconds.raise(nanos);
        self.turn_seconds.observe(nanos);
    }

    /// Turns that took longer than so many nanoseconds, which are the bound of a bucket: 100 µs, 250 µs and so on, see
    /// [`Scale::TURN`].
    #[must_use]
    pub fn turns_longer_than(&self, nanos: u64) -> u64 {
        self.turn_seconds.spread().above(nanos)
    }

    /// Counts an ended connection.
    pub fn count_closed(&self, reason: CloseReason) {
        self.closed.0[reason as usize].add(1);
    }

    /// Connections ended for this reason.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed.0[reason as usize].get()
    }

    /// Counts a broken rule, and the limit that was broken with it.
    pub fn count_violation(&self, rule: Rule) {
        self.violations.0[rule as usize].add(1);
        rule.limit().into_iter().for_each(|limit| self.strike(limit));
    }

    /// How often this rule was broken.
    #[must_use]
    pub fn violations(&self, rule: Rule) -> u64 {
        self.violations.0[rule as usize].get()
    }

    /// Counts a TLS handshake that failed.
    pub fn count_tls_failure(&self, cause: TlsFailure) {
        self.tls_failures.0[cause as usize].add(1);
    }

    /// TLS handshakes that failed for this cause.
    #[must_use]
    pub fn tls_failures(&self, cause: TlsFailure) -> u64 {
        self.tls_failures.0[cause as usize].get()
    }

    /// Counts something that was refused for want of permission.
    pub fn count_refused(&self, cause: AuthRefusal) {
        self.refused.0[cause as usize].add(1);
    }

    /// How often that was so.
    #[must_use]
    pub fn refused(&self, cause: AuthRefusal) -> u64 {
        self.refused.0[cause as usize].get()
    }

    /// Counts a limit that struck.
    pub fn strike(&self, limit: Limit) {
        self.struck.0[limit as usize].add(1);
    }

    /// How often this limit struck.
    #[must_use]
    pub fn struck(&self, limit: Limit) -> u64 {
        self.struck.0[limit as usize].get()
    }

    /// Counts that a connection or stream speaks another protocol than before: `None` before it is there, and when it is
    /// there no more.
    pub fn speaks(&self, before: Option<Protocol>, now: Option<Protocol>) {
        if before == now {
            return;
        }
        before.into_iter().for_each(|protocol| self.spoken.0[protocol as usize].sub(1));
        now.into_iter().for_each(|protocol| {
            self.spoken.0[protocol as usize].add(1);
            self.opened.0[protocol as usize].add(1);
        });
    }

    /// Connections and streams that speak this protocol now, and so far.
    #[must_use]
    pub fn speakers(&self, protocol: Protocol) -> (u64, u64) {
        (self.spoken.0[protocol as usize].get(), self.opened.0[protocol as usize].get())
    }

    /// Counts messages that came from a client.
    pub fn count_received(&self, protocol: Protocol, messages: u64) {
        self.messages_received_total.add(messages);
        self.received.0[protocol as usize].add(messages);
    }

    /// Counts messages that were handed to clients.
    pub fn count_sent(&self, protocol: Protocol, messages: u64) {
        self.sent.0[protocol as usize].add(messages);
    }

    /// Messages from clients who speak this protocol, and to them.
    #[must_use]
    pub fn messages(&self, protocol: Protocol) -> (u64, u64) {
        (self.received.0[protocol as usize].get(), self.sent.0[protocol as usize].get())
    }

    /// Notes what is spent on this.
    pub fn set_memory(&self, purpose: Purpose, bytes: usize) {
        self.memory.0[purpose as usize].set(bytes as u64);
    }

    /// Bytes spent on this, as of the last look.
    #[must_use]
    pub fn memory(&self, purpose: Purpose) -> u64 {
        self.memory.0[purpose as usize].get()
    }
}

impl Number {
    pub(super) const fn exported(self) -> Kind {
        match self {
            Self::Counter => Kind::Counter,
            Self::Gauge | Self::Seconds => Kind::Gauge,
        }
    }
}

/// Seconds of so many nanoseconds.
#[allow(clippy::cast_precision_loss, reason = "what is exported is a float")]
pub(super) fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

/// A metric with one number for each value of a label.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) help: &'static str,
    pub(super) label: &'static str,
    pub(super) values: fn() -> Vec<&'static str>,
    /// The number of the value at this place.
    pub(super) number: fn(&ShardMetrics, usize) -> u64,
}

macro_rules! families {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident, $label:ident of $values:ty, $tally:ident;)*) => {
        pub(super) const FAMILIES: &[Family] = &[$(Family {
            name: stringify!($name),
            kind: Kind::$kind,
            help: concat!($($help),+),
            label: stringify!($label),
            values: || <$values>::ALL.iter().map(|value| value.label()).collect(),
            number: |shard, place| shard.$tally.0[place].get(),
        },)*];
    };
}

families! {
    /// Connections ended, by reason.
    closed_total: Counter, reason of CloseReason, closed;
    /// Rules broken by clients, by rule.
    violations_total: Counter, rule of Rule, violations;
    /// Tokens refused, and wishes that a token does not allow, by cause.
    auth_refused_total: Counter, cause of AuthRefusal, refused;
    /// Times a limit struck, by limit.
    limit_struck_total: Counter, limit of Limit, struck;
    /// TLS handshakes that failed, by cause.
    tls_handshakes_failed_total: Counter, cause of TlsFailure, tls_failures;
    /// Connections now, and streams of HTTP/2, by what they speak.
    protocol_connections: Gauge, protocol of Protocol, spoken;
    /// Connections and streams that began to speak this.
    protocol_opened_total: Counter, protocol of Protocol, opened;
    /// Messages received from clients, by what they speak.
    protocol_messages_received_total: Counter, protocol of Protocol, received;
    /// Messages handed to clients, by what they speak: deliveries and answers.
    protocol_messages_sent_total: Counter, protocol of Protocol, sent;
    /// Bytes of user memory, by what they are for, looked at ten times a second.
    memory_bytes: Gauge, purpose of Purpose, memory;
}
