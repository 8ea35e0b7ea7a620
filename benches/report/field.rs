//! What others have published about themselves, and what was measured of others on a machine of the same kind (two
//! virtual cores of an AMD EPYC, 24 GiB, Linux 6.18, the server on one core and its load on the other).

/// A figure that was published. Empty: not said.
pub(crate) struct Published {
    pub(crate) who: &'static str,
    pub(crate) year: &'static str,
    pub(crate) connections: &'static str,
    pub(crate) machine: &'static str,
    pub(crate) memory: &'static str,
    pub(crate) else_said: &'static str,
}

const fn published([who, year, connections, machine, memory, else_said]: [&'static str; 6]) -> Published {
    Published { who, year, connections, machine, memory, else_said }
}

pub(crate) const PUBLISHED: &[Published] = &[
    published(["MigratoryData", "2013", "12 M WebSockets", "one server", "3.0 KB kernel", "57 % CPU"]),
    published(["handy 10m", "", "10 M TCP", "16 cores, 64 GB", "", ""]),
    published(["EMQX 5", "", "4.3 M per node", "23 nodes, 100 M together", "3.9 KB process, hibernated", ""]),
    published(["WhatsApp", "2012", "2.3 M", "24 threads, 96 GB", "", ""]),
    published(["Phoenix", "2015", "2 M WebSockets", "40 cores, 128 GB", "", "broadcast to all: about 1 s"]),
    published(["Centrifugo", "2026", "1 M WebSockets", "11.3 GB used", "10.9 KB; 27 KB by default", ""]),
    published(["greatws", "2024", "1 M WebSockets", "", "448 B user", "69 k handshakes/s"]),
];

/// User memory of one idle WebSocket connection, bytes, measured; ranges by their middle.
pub(crate) const USER_BYTES: &[(&str, f64)] = &[
    ("uWebSockets 20", 256.0),
    ("mosquitto (MQTT)", 850.0),
    ("Go, gobwas/ws on epoll", 1_060.0),
    ("fastwebsockets", 5_600.0),
    ("tokio-tungstenite, 4 KiB buffers", 6_700.0),
    ("npm ws", 6_900.0),
    ("redis pub/sub", 9_900.0),
    ("nginx + nchan", 10_400.0),
    ("Python websockets", 12_600.0),
    ("Go, gorilla/websocket", 16_750.0),
    ("nats-server", 21_600.0),
    ("tonic, gRPC stream", 30_000.0),
    ("tokio-tungstenite, default", 138_000.0),
];

/// The same as published by its makers, bytes.
pub(crate) const USER_BYTES_PUBLISHED: &[(&str, f64)] =
    &[("greatws, published", 448.0), ("EMQX 5, published", 3_900.0), ("Centrifugo, published", 10_900.0)];

/// Time to the last of 15,000 subscribers of one topic, p50, ms, and the subscribers' number.
pub(crate) const LAST_OF: f64 = 15_000.0;
pub(crate) const LAST_MS: &[(&str, f64)] = &[
    ("bare loop of io_uring SEND", 66.0),
    ("bare loop of send(2)", 77.0),
    ("uWebSockets 20", 93.0),
    ("redis pub/sub", 105.0),
    ("tokio-tungstenite, 4 KiB buffers", 113.0),
    ("nginx + nchan, WebSocket", 113.0),
    ("npm ws", 125.0),
    ("nginx + nchan, SSE", 132.0),
    ("Go, gobwas/ws on epoll", 166.0),
    ("Go, gorilla/websocket", 182.0),
    ("nats-server", 201.0),
    ("Python websockets", 213.0),
    ("mosquitto (MQTT)", 572.0),
];

/// Server CPU of a TCP connect and an upgrade, µs; ranges by their middle.
pub(crate) const CONNECT_US: &[(&str, f64)] = &[
    ("bare loop", 17.0),
    ("uWebSockets 20", 21.0),
    ("nginx + nchan", 24.0),
    ("fastwebsockets", 25.0),
    ("Go, gobwas/ws on epoll", 26.0),
    ("Go, gorilla/websocket", 43.0),
    ("npm ws", 102.0),
    ("Python websockets", 253.0),
];

/// Handshakes per second of greatws, published.
pub(crate) const GREATWS_RATE: f64 = 69_000.0;
/// Seconds that Phoenix's broadcast to 2 M took, about, published.
pub(crate) const PHOENIX: (f64, f64) = (2e6, 1_000.0);
/// Kernel memory per socket of MigratoryData, published, bytes.
pub(crate) const MIGRATORY_KERNEL: f64 = 3_000.0;
