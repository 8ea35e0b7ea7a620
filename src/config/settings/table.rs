//! The table of all settings.

use std::time::Duration;

use super::Setting;
use crate::config::cluster::{NatsUrls, NodeName, Prefix};
use crate::config::credentials::{ApiKeyFile, Claim, Jwks, Names, Patterns, PublicKeys, Secret};
use crate::config::endpoint::Collector;
use crate::config::filter::Filter;
use crate::config::lists::{Address, Files, Listeners, NetworkList, OriginList, Subprotocols};
use crate::config::receiver::{CaFile, Kinds, Receiver, SecretFile, Subject};
use crate::config::value::{Count, Directory, File, FilePath, Format, Period, Rule, Size, Switch, Word};
use crate::config::{
    BackendChoice, ClientCertificates, LogFormat, OverRate, Presence, Publishers, SlowConsumer, Storage, TlsVersion,
};
use Rule::{Within, ZeroOr};

pub(in crate::config) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(in crate::config) const fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
pub(in crate::config) const GIB: usize = 1 << 30;

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $key:literal => $($field:ident).+: $format:ty $(, $rule:expr)?;)+) => {
        /// In the order of the file that [`default_config`](super::default_config) prints: a table's settings stand together.
        pub(in crate::config) static SETTINGS: &[Setting] = &[$(Setting {
            key: $key,
            doc: &[$($doc),+],
            set: |config, raw| {
                let value = <$format>::read(raw)?;
                $($rule.check::<$format>(&value)?;)?
                config.$($field).+ = value;
                Ok(())
            },
            show: |config| <$format>::write(&config.$($field).+),
            range: || [$($rule.describe::<$format>())?].into_iter().next(),
            is_same: |one, other| one.$($field).+ == other.$($field).+,
            keep: |config, running| config.$($field).+.clone_from(&running.$($field).+),
        }),+];
    };
}

settings! {
    /// Where clients connect: http://HOST:PORT (HTTP and WebSocket), or raw TCP as
    /// tcp://HOST:PORT?framing=line|length&app=echo|chat|topic&topic=NAME; https:// and tls:// likewise over TLS, see [tls].
    /// Port 0 picks a free one. unix:///PATH?mode=0660 is HTTP at a Unix socket, for a proxy on the same machine; the bits of
    /// mode say who may connect, by default the server's user and group.
    "listen" => listeners: Listeners;
    /// Where /metrics, /healthz, /readyz and a page for people are served, or off. Keep it off the open network.
    "admin" => admin: Address;
    /// Whether clients and operators may come from other machines though no authentication is configured. Without it,
    /// listeners on other addresses than the loopback's are refused then.
    "insecure" => insecure: Switch;
    /// auto, epoll or uring. auto takes io_uring where the kernel has all it needs.
    "backend" => backend: Word<BackendChoice>;
    /// Event loops, one thread each; 0 for one per available core.
    "shards" => shards: Count<usize>, Within(0, 1024);
    /// A directory whose files are served beside the routes; empty for the built-in page. Names that begin with a dot are
    /// not served, but for /.well-known/, and links do not lead out of it.
    "public" => public: Directory;
    /// Time over which clients are told to come back when the server ends.
    "drain" => drain: Period, Within(ms(0), hours(24));
    /// Time before that in which /readyz answers 503 and nothing else changes: for whoever spreads clients over servers.
    "drain_delay" => drain_delay: Period, Within(ms(0), hours(1));

    /// A Unix socket at which a server that is started with --upgrade takes the listeners over from this one, without a
    /// refused connection. Empty: upgrade.sock in $RUNTIME_DIRECTORY, or none where that is not set.
    "upgrade.socket" => upgrade_socket: File;

    /// text or json. Log lines go to standard error.
    "log.format" => log_format: Word<LogFormat>;
    /// error, warn, info, debug or trace, and levels of modules, such as info,holdline::shard=debug. HOLDLINE_LOG is the same
    /// in the environment.
    "log.level" => log_filter: Filter;
    /// Lines about HTTP requests that each event loop may log in a second (holdline::access): their method, path without the
    /// query, status and time; 0: none.
    "log.access_rate" => access_rate: Count<u32>, Within(0, 1_000_000);

    /// Files with certificates for https:// and tls:// listeners (PEM): each the server's own and those that lead to the CA.
    /// Clients get the one for the host that they name, others the first. A reload reads them again.
    "tls.certificates" => tls.certificates: Files;
    /// Files with their keys (PEM), in the same order; none where each key stands in its certificate's file.
    "tls.keys" => tls.keys: Files;
    /// A file with the CA certificates that vouch for clients (PEM); empty for none.
    "tls.client_ca" => tls.client_ca: FilePath;
    /// Whether clients are asked for certificates: off, optional or required.
    "tls.client_certificates" => tls.client_certificates: Word<ClientCertificates>;
    /// The oldest version that is spoken: 1.2 or 1.3.
    "tls.version_min" => tls.version_min: Word<TlsVersion>;
    /// Whether clients are given tickets, with which their next handshake costs little. Their keys change every 6 hours.
    "tls.tickets" => tls.tickets: Switch;
    /// Memory of an event loop for handshakes that are under way. Beyond that those are ended whose clients have been waited
    /// for longest.
    "tls.handshake_bytes_max" => tls.handshake_bytes_max: Size, Within(64 * KIB, 64 * GIB);

    /// Where spans of recorded traces are sent, as OpenTelemetry has it: OTLP over HTTP as JSON, to a collector such as
    /// http://127.0.0.1:4318. Empty: nowhere. A publication's traceparent says whether it is recorded.
    "otel.endpoint" => collector: Collector;

    /// Networks of proxies whose header of the PROXY protocol (version 1 or 2) is believed, such as ["10.0.0.0/8"]. Listeners
    /// with proxy=on in their URL (http://0.0.0.0:8080?proxy=on) take connections from there only, and each must begin with
    /// such a header.
    "proxy.trusted" => proxies: NetworkList;

    /// Who may do what. Clients are asked for a token or a key as soon as there are keys here: Authorization: Bearer,
    /// X-API-Key, ?token=, a WebSocket subprotocol holdline.token.TOKEN, or AUTH TOKEN as the first frame of raw TCP. A token
    /// names its topics in a claim: {"holdline": {"subscribe": ["room/*"], "publish": ["room/7"]}}. Chat rooms are the
    /// topics chat/ROOM. A reload asks connections whose key is gone for another one, over the time of a drain.
    /// A file with a JSON Web Key Set: keys that tokens are signed with (HS256, RS256, ES256, EdDSA).
    "auth.jwks" => access.jwks: Jwks;
    /// PEM files with public keys that tokens are signed with (RS256, ES256, EdDSA). A token without a kid is tried with 4
    /// keys of its algorithm at most, so no more than 4 may be without one.
    "auth.public_keys" => access.public_keys: PublicKeys;
    /// A secret of 32 bytes or more that tokens are signed with (HS256). It is safest in the environment.
    "auth.secret" => access.secret: Secret;
    /// A TOML file of API keys, one at least: [[key]] tables with name, key or sha256 (of the key, in hex), subscribe,
    /// publish and admin. Where one has admin = true, the admin page asks for such a key too.
    "auth.api_keys" => access.api_keys: ApiKeyFile;
    /// Whose tokens are taken (iss); empty: of all who sign with a key of ours.
    "auth.issuers" => access.issuers: Names;
    /// Whom tokens must be for (aud): one of these. Where it is empty, tokens that are for somebody are refused.
    "auth.audiences" => access.audiences: Names;
    /// The claim that names the topics.
    "auth.claim" => access.claim: Claim;
    /// What tokens without that claim may read.
    "auth.subscribe" => access.subscribe: Patterns;
    /// What they may publish to.
    "auth.publish" => access.publish: Patterns;
    /// What those may read who show nothing; where it is empty and the next one too, they are turned away. Without keys they
    /// may do that alone, and nothing else is open to anybody.
    "auth.anonymous_subscribe" => access.anonymous_subscribe: Patterns;
    /// What they may publish to.
    "auth.anonymous_publish" => access.anonymous_publish: Patterns;
    /// How far the clocks of those who issue tokens may be from ours.
    "auth.leeway" => access.leeway: Period, Within(ms(0), hours(1));
    /// Whether tokens must say when they expire (exp).
    "auth.must_expire" => access.must_expire: Switch;
    /// Whether each token may be used once only, by its jti.
    "auth.one_time" => access.one_time: Switch;
    /// Time that a connection has to renew its token when that has expired, or a reload has ended what it was worth. Then
    /// it is closed (4002). Where auth.leeway is longer it has that.
    "auth.renew_grace" => access.renew_grace: Period, Within(ms(0), hours(24));

    /// Silence after which a client is asked for a sign of life; 0: never.
    "heartbeat.interval" => limits.heartbeat_interval: Period, ZeroOr(ms(10), hours(24));
    /// Time to answer.
    "heartbeat.timeout" => limits.heartbeat_timeout: Period, Within(ms(10), hours(1));

    /// Which web pages may connect: "same" for those of the host they connect to, "*" for all, or a list such as
    /// ["same", "https://app.example", "https://*.app.example"], where the star stands for all names below. Clients that are
    /// not browsers send no origin and are not asked.
    "websocket.origins" => origins: OriginList;
    /// Subprotocols that are spoken, best first.
    "websocket.subprotocols" => subprotocols: Subprotocols;
    /// Whether messages are compressed (permessage-deflate) for clients that offer it. It costs processor time for each
    /// message, and no memory for each connection.
    "websocket.deflate" => deflate: Switch;

    /// What happens to a subscriber of a chat or topic whose queue is full: close (with 4001), drop_oldest or
    /// keep_latest.
    "topics.slow_consumer" => slow_consumer: Word<SlowConsumer>;
    /// Who may publish, of those who connect: anyone, authenticated or nobody. Operators and the program itself always may.
    "topics.publish" => publish: Word<Publishers>;
    /// Publications of each topic within a second, as many at once after a quiet second; 0: no limit. Beyond, POST gets 429,
    /// gRPC RESOURCE_EXHAUSTED, and whoever has no answer to its messages is closed with 1008.
    "topics.rate" => topic_rate: Count<u32>, Within(0, 1_000_000);
    /// Whether messages survive a crash: a publication is acknowledged, handed out and kept only when it is in the journal
    /// on the disk, see [journal]. While that cannot be written it is refused (503, journal_failed). Topics that are not
    /// durable never wait for the disk. In a cluster the topic has a stream of JetStream instead, see [cluster], and is one
    /// order with one past on all nodes. While that cannot be reached it is refused too (503, cluster_unavailable).
    "topics.durable" => durable: Switch;
    /// Whether other nodes of the cluster hold these topics too, where there is one. If not, each node has topics of its own
    /// by these names: what is published on one is not heard on others, and durable ones need a [journal].
    "topics.shared" => shared: Switch;
    /// Whether it is kept who is in a topic: off, count (how many subscriptions it has) or members (who they are, with their
    /// names). See GET /topics/NAME/presence and presence=1.
    "topics.presence" => presence: Word<Presence>;
    /// Members of one topic that are listed. Those beyond are counted, and answers say that the list is truncated.
    "topics.presence_members_max" => presence_members_max: Count<usize>, Within(1, 1_000_000);

    /// Messages of each topic that are kept for those who come later; 0: none.
    "history.messages_max" => limits.history.messages_max: Count<usize>, Within(0, 1_000_000);
    /// Bytes of each topic's messages that are kept; 0: none.
    "history.bytes_max" => limits.history.bytes_max: Size, Within(0, GIB);
    /// Age of a message that is kept; 0: none. A topic without messages and subscribers is forgotten after the same time.
    "history.age_max" => limits.history.age_max: Period, ZeroOr(ms(100), hours(24 * 7));
    /// Bytes that the process keeps for all topics. Where it is spent, the oldest messages go first.
    "history.bytes_total_max" => limits.history.bytes_total_max: Size, Within(0, 1024 * GIB);

    /// The directory in which messages of durable topics are kept until they are too old for the topic's history, so that a
    /// crash takes none that was acknowledged; empty for none. It is made where it is missing. It needs io_uring, and one
    /// directory serves one process.
    "journal.dir" => journal.dir: Directory;
    /// Bytes from which on a file of it is followed by another one.
    "journal.segment_bytes" => journal.segment_bytes: Size, Within(MIB, GIB);
    /// Bytes of all files, about. Files are written anew without what is not needed any more; where what is needed takes
    /// more than this, the oldest files go.
    "journal.bytes_max" => journal.bytes_max: Size, Within(4 * MIB, 1 << 50);
    /// Age from which on nothing is kept, not even the place of a topic that nobody has published to.
    "journal.age_max" => journal.age_max: Period, Within(hours(1), hours(24 * 365));

    /// Servers of NATS over which this node shares its topics with others: what is published on any node reaches the
    /// subscribers on all; see docs/cluster.md. Such as nats://127.0.0.1:4222, with USER:PASSWORD@ or TOKEN@ before the host;
    /// tls:// over TLS. Empty: it is on its own.
    "cluster.nats" => cluster.nats: NatsUrls;
    /// A file with a JWT and a seed for NATS, as `nsc generate creds` prints it; or none.
    "cluster.credentials" => cluster.credentials: FilePath;
    /// A file with CA certificates (PEM) that may vouch for NATS, beside those that the system trusts; or none.
    "cluster.ca_file" => cluster.ca_file: FilePath;
    /// What this node is called in NATS' lists; empty for the host's name.
    "cluster.name" => cluster.name: NodeName;
    /// What all subjects and streams of the cluster begin with: one NATS can serve several.
    "cluster.prefix" => cluster.prefix: Prefix;
    /// Servers of NATS that keep each durable topic, where NATS is a cluster itself: 1, or 3 or 5, to go on when one fails.
    "cluster.replicas" => cluster.replicas: Count<u8>, Within(1, 5);
    /// Where NATS keeps durable topics: file, or memory, which is lost when NATS ends.
    "cluster.storage" => cluster.storage: Word<Storage>;
    /// Time after which a node that is not heard of is gone for the others.
    "cluster.lease" => cluster.lease: Period, Within(ms(1000), hours(1));

    /// Where events are posted, such as https://app.example/hooks: connections that come and go, subscriptions, publications,
    /// topics that become occupied and vacated. Empty: nowhere. Batches of JSON, in order, each until the receiver takes it
    /// with a status of 200 to 299; see docs/hooks.md.
    "hooks.url" => hooks.url: Receiver;
    /// A subject of the NATS in cluster.nats on which batches are published instead, such as events.edge. A stream must
    /// keep what is published there: a batch is delivered when the stream has it.
    "hooks.nats" => hooks.nats: Subject;
    /// A file with a secret of 32 bytes or more, such as `openssl rand -hex 32` prints, with which requests are signed
    /// (HMAC-SHA256, Holdline-Signature). Of several lines each signs, so that a secret can be changed without a gap.
    "hooks.secret_file" => hooks.secrets: SecretFile;
    /// A file with CA certificates (PEM) that may vouch for the receiver, beside those that the system trusts; or none.
    "hooks.ca_file" => hooks.ca: CaFile;
    /// Which events are told: connect, disconnect, subscribe, unsubscribe, publish, occupied and vacated.
    "hooks.events" => hooks.events: Kinds;
    /// Patterns of the topics whose events are told; empty for all. Connections are told in any case.
    "hooks.topics" => hooks.topics: Patterns;
    /// Whether publications are told with what was published.
    "hooks.payload" => hooks.payload: Switch;
    /// Events of one request.
    "hooks.batch_max" => hooks.batch_max: Count<usize>, Within(1, 10_000);
    /// Time that an event waits for others to go with it.
    "hooks.batch_delay" => hooks.batch_delay: Period, Within(ms(0), ms(60_000));
    /// Time for one request, from the look for the receiver's address to its answer.
    "hooks.timeout" => hooks.timeout: Period, Within(ms(100), ms(300_000));
    /// Bytes of events that wait while the receiver is slow or away. Beyond, the oldest are dropped, and the next batch says
    /// how many.
    "hooks.queue_bytes" => hooks.queue_bytes: Size, Within(64 * KIB, 16 * GIB);
    /// Age from which on an event is given up that the receiver could not take.
    "hooks.retry_max_age" => hooks.retry_max_age: Period, Within(ms(1000), hours(24 * 7));

    /// Connections of the whole process.
    "limits.connections_max" => limits.connections_max: Count<usize>, Within(1, 100_000_000);
    /// Connections that are taken in within a second, as many at once after a quiet second; 0: no limit. Who comes beyond
    /// is turned away: HTTP with 503 and Retry-After, raw TCP with a clean end.
    "limits.accept_rate" => limits.accept_rate: Count<u32>, Within(0, 100_000_000);
    /// Connections of one client address, which is an IPv4 address or the first 64 bits of one of IPv6; 0: no limit. Who
    /// comes beyond is turned away as above. Behind a proxy all clients have its address, unless it says theirs (see
    /// proxy.trusted): list it in limits.exempt then.
    "limits.connections_per_address_max" => limits.connections_per_address_max: Count<usize>, Within(0, 100_000_000);
    /// Connections that are taken in from one address within a second, as many at once after a quiet second; 0: no limit.
    "limits.accept_rate_per_address" => limits.accept_rate_per_address: Count<u32>, Within(0, 100_000_000);
    /// Connections that have not sent a whole request or first frame; 0: no limit. Who comes beyond is turned away.
    "limits.handshakes_max" => limits.handshakes_max: Count<usize>, Within(0, 100_000_000);
    /// The same of one address.
    "limits.handshakes_per_address_max" => limits.handshakes_per_address_max: Count<usize>, Within(0, 100_000_000);
    /// Requests from one address that are answered within a second, as many at once after a quiet second; 0: no limit.
    /// Those beyond are answered with 429 and Retry-After.
    "limits.request_rate_per_address" => limits.request_rate_per_address: Count<u32>, Within(0, 100_000_000);
    /// Connections of one address that are refused within a second, for the limits per address, before the kernel drops
    /// what it sends to connect: for a second, and twice as long each time that it goes on, up to 16 s; 0: never.
    "limits.refusal_rate_per_address" => limits.refusal_rate_per_address: Count<u32>, Within(0, 100_000_000);
    /// Networks to whose addresses none of those per address apply.
    "limits.exempt" => limits.exempt: NetworkList;
    /// Messages that one connection may send in a second, as many at once after a quiet second; 0: no limit.
    "limits.message_rate" => limits.message_rate: Count<u32>, Within(0, 100_000_000);
    /// Bytes that one connection may send in a second, likewise, once it is open; 0: no limit.
    "limits.message_bytes_rate" => limits.message_bytes_rate: Size, Within(0, 1024 * GIB);
    /// What happens to a connection that sends more: wait (it is not read until its time has come) or close (with 1008).
    /// Requests that publish have their answer in either case, and the next ones wait.
    "limits.message_rate_policy" => limits.message_rate_policy: Word<OverRate>;
    /// Memory that must be left to the process, as the kernel and its control groups tell it. With less, connections are
    /// turned away until there is more; 0: never.
    "limits.memory_free_bytes_min" => limits.memory_free_bytes_min: Size, Within(0, 1 << 50);
    /// Time from accept to a complete request head or handshake. A byte does not restart it.
    "limits.handshake_timeout" => limits.handshake_timeout: Period, Within(ms(10), hours(1));
    /// Bytes of a request head.
    "limits.head_bytes_max" => limits.head_bytes_max: Size, Within(256, MIB);
    /// Bytes of a request's target, its path and query.
    "limits.target_bytes_max" => limits.target_bytes_max: Size, Within(64, MIB);
    /// Fields of a request head.
    "limits.head_fields_max" => limits.head_fields_max: Count<usize>, Within(8, 128);
    /// Bytes of a request's body, where it is a batch of messages.
    "limits.body_bytes_max" => limits.body_bytes_max: Size, Within(1, GIB);
    /// Time without a byte of a request's body.
    "limits.body_timeout" => limits.body_timeout: Period, Within(ms(10), hours(1));
    /// Bytes a second of a request's body, on average, after its first 5 seconds; 0: no bound.
    "limits.body_rate_min" => limits.body_rate_min: Size, Within(0, GIB);
    /// Requests that are answered on one connection.
    "limits.keep_alive_requests_max" => limits.keep_alive_requests_max: Count<u32>, Within(1, 1_000_000_000);
    /// Time from an answer to the next request.
    "limits.keep_alive_timeout" => limits.keep_alive_timeout: Period, Within(ms(10), hours(24));
    /// Bytes of one message, after inflation.
    "limits.message_bytes_max" => limits.message_bytes_max: Size, Within(1, GIB);
    /// Fragments of one message.
    "limits.fragments_max" => limits.fragments_max: Count<u32>, Within(1, 100_000_000);
    /// Empty fragments in a row.
    "limits.empty_fragments_max" => limits.empty_fragments_max: Count<u32>, Within(0, 100_000_000);
    /// Pongs that may wait in the outgoing queue before the client is no longer read.
    "limits.control_replies_max" => limits.control_replies_max: Count<u32>, Within(1, 1_000_000);
    /// Bytes in the outgoing queue of one connection. One message may always wait, however long it is.
    "limits.queue_bytes_max" => limits.queue_bytes_max: Size, Within(KIB, GIB);
    /// Bytes in all outgoing queues and unfinished incoming messages of the process.
    "limits.queue_bytes_total_max" => limits.queue_bytes_total_max: Size, Within(64 * KIB, 1024 * GIB);
    /// Time without progress of an outgoing queue that is not empty.
    "limits.queue_stall_timeout" => limits.queue_stall_timeout: Period, Within(ms(10), hours(1));
    /// Time from the server's close frame to the end of the connection.
    "limits.close_timeout" => limits.close_timeout: Period, Within(ms(10), hours(1));
    /// Subscriptions of one connection.
    "limits.subscriptions_max" => limits.subscriptions_max: Count<usize>, Within(1, 1_000_000);
    /// Bytes of a topic's name.
    "limits.topic_bytes_max" => limits.topic_bytes_max: Size, Within(1, 255);
    /// Topics of the whole process.
    "limits.topics_max" => limits.topics_max: Count<usize>, Within(1, 100_000_000);
    /// Queue groups of one topic: each of its messages is handed to one member of every group.
    "limits.groups_max" => limits.groups_max: Count<usize>, Within(1, 100_000);
    /// Time without a message, heartbeats not counted, after which a connection is closed; 0: never. It holds for WebSockets,
    /// raw TCP and gRPC calls, and not for what is only read over HTTP: SSE, JSON lines, long polls.
    "limits.idle_timeout" => limits.idle_timeout: Period, ZeroOr(ms(10), hours(24 * 365));
    /// Time that a long poll may wait for a message, whatever it asks for.
    "limits.poll_wait_max" => limits.poll_wait_max: Period, Within(ms(0), hours(1));
    /// Items in one shard's mailbox.
    "limits.mailbox_capacity" => limits.mailbox_capacity: Count<usize>, Within(16, 1 << 20);

    /// Streams of one connection that are open at once.
    "http2.streams_max" => limits.http2.streams_max: Count<u32>, Within(1, 10_000);
    /// Bytes of one stream's body that may wait until they are consumed.
    "http2.stream_window" => limits.http2.stream_window: Size, Within(KIB, 16 * MIB);
    /// Bytes of all bodies of a connection that may be on their way.
    "http2.connection_window" => limits.http2.connection_window: Size, Within(65_535, GIB);
    /// Time to a client's SETTINGS, and then to its acknowledgement of the server's.
    "http2.settings_timeout" => limits.http2.settings_timeout: Period, Within(ms(100), hours(1));
    /// Streams of one connection that may be reset at once, by the client or because of it.
    "http2.resets_burst" => limits.http2.resets_burst: Count<u32>, Within(1, 1_000_000);
    /// Resets that may follow in each second.
    "http2.resets_rate" => limits.http2.resets_rate: Count<u32>, Within(1, 1_000_000);
    /// Frames without a payload (SETTINGS, PING, PRIORITY, WINDOW_UPDATE, RST_STREAM, empty DATA) that a connection may
    /// send at once. For each DATA frame that it is sent it may send one more.
    "http2.frames_burst" => limits.http2.frames_burst: Count<u32>, Within(100, 1_000_000);
    /// Such frames that may follow in each second.
    "http2.frames_rate" => limits.http2.frames_rate: Count<u32>, Within(10, 1_000_000);
    /// Empty DATA frames in a row.
    "http2.empty_data_max" => limits.http2.empty_data_max: Count<u32>, Within(1, 60_000);
    /// What small DATA frames that wait to be consumed may lack to 256 bytes each, all together.
    "http2.data_overhead_max" => limits.http2.data_overhead_max: Count<u32>, Within(256, 1_000_000_000);
    /// CONTINUATION frames of one block of fields.
    "http2.continuations_max" => limits.http2.continuations_max: Count<u32>, Within(1, 250);
}
