//! What counts are told apart by, beside the reasons and rules that have lists of their own.

use crate::rule::labelled;

labelled! {
    /// What a connection speaks, or a stream of HTTP/2.
    Protocol {
        /// Requests of HTTP/1.1, or on a stream of HTTP/2.
        Http = "http",
        /// A connection of HTTP/2, beside its streams.
        Http2 = "http2",
        /// RFC 6455, also on a stream of HTTP/2.
        WebSocket = "websocket",
        /// Raw TCP, frames that end in a newline.
        Line = "tcp_line",
        /// Raw TCP, frames behind a length.
        Length = "tcp_length",
        /// Server-sent events.
        EventStream = "sse",
        /// An endless response, a line of JSON for each message.
        JsonStream = "json_stream",
        /// A long poll that waits.
        Poll = "poll",
        /// A gRPC call.
        Grpc = "grpc",
    }
}

labelled! {
    /// What memory is for.
    Purpose {
        /// The table of connections: 64 bytes for each there is a place for.
        Table = "table",
        /// Outgoing queues.
        Queues = "queues",
        /// Unfinished incoming messages.
        Unfinished = "unfinished",
        /// Topics' histories.
        History = "history",
        /// Topics that are owned, without their histories.
        Topics = "topics",
        /// Subscriptions: topics' members.
        Subscriptions = "subscriptions",
        /// Messages that wait for their fan-out or for a queue group.
        Waiting = "waiting",
        /// Publications that wait for their topics' owners.
        Staged = "staged",
        /// Buffers of the kernel's interface: receive buffers, rings, lists of sockets.
        Backend = "backend",
        /// Keys of connections that speak TLS, and what their records pass through.
        Tls = "tls",
        /// The timing wheel: its slots. Timers lie in the table.
        Wheel = "wheel",
        /// Queues between shards, as long as they can get, without what the messages in them share.
        Mailboxes = "mailboxes",
        /// Files that are kept to be served again. One cache is all shards'.
        Files = "files",
    }
}
