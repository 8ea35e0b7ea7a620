//! The rules that a peer can break, and the limits that it can run into.
//!
//! Both lists are closed, so that whoever reads them knows all that is counted, and a metric has a place for each.

/// An enum whose values have names in metrics, and a list of all of them.
macro_rules! labelled {
    ($(#[doc = $doc:literal])+ $name:ident { $($(#[doc = $what:literal])+ $variant:ident = $label:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name {
            $($(#[doc = $what])+ $variant,)+
        }

        impl $name {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in metrics and logs, `[a-z0-9_]+`.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)+
                }
            }
        }
    };
}
pub(crate) use labelled;

labelled! {
    /// A rule of a protocol.
    Rule {
        /// PROXY protocol: a peer that may not speak for others.
        ProxyUntrusted = "proxy_untrusted",
        /// PROXY protocol: no header where one must be.
        ProxyMissing = "proxy_header_missing",
        /// PROXY protocol: a header that cannot be read.
        ProxyMalformed = "bad_proxy_header",
        /// PROXY protocol: a header that is too long.
        ProxyTooLong = "proxy_header_too_long",
        /// HTTP: the first byte begins no request.
        NotHttp = "not_http",
        /// HTTP: a line that does not end in CR LF.
        BareLineFeed = "bare_line_feed",
        /// HTTP: a head over `head_bytes_max`.
        HeadTooLarge = "head_too_large",
        /// HTTP: a target over `target_bytes_max`.
        TargetTooLong = "target_too_long",
        /// HTTP: more fields than `head_fields_max`.
        TooManyFields = "too_many_fields",
        /// HTTP: the request line.
        RequestLine = "bad_request_line",
        /// HTTP: a version that is not spoken.
        Version = "bad_version",
        /// HTTP: neither a path nor a URL.
        Target = "bad_target",
        /// HTTP: a target that is not well-encoded UTF-8.
        TargetEncoding = "bad_encoding",
        /// HTTP: the name of a field.
        FieldName = "bad_field_name",
        /// HTTP: the value of a field.
        FieldValue = "bad_field_value",
        /// HTTP: no Host.
        HostMissing = "host_missing",
        /// HTTP: more than one host.
        HostAmbiguous = "host_ambiguous",
        /// HTTP: not a host.
        HostInvalid = "bad_host",
        /// HTTP: more than one Content-Length.
        LengthAmbiguous = "length_ambiguous",
        /// HTTP: not a length.
        LengthInvalid = "bad_length",
        /// HTTP: Content-Length beside Transfer-Encoding.
        LengthAndEncoding = "length_and_encoding",
        /// HTTP: the Transfer-Encoding.
        EncodingInvalid = "bad_transfer_encoding",
        /// HTTP: another Transfer-Encoding than chunked.
        EncodingUnknown = "unknown_transfer_encoding",
        /// HTTP: a method that is not taken here.
        MethodNotAllowed = "method_not_allowed",
        /// HTTP: a method that nobody knows.
        MethodUnknown = "method_unknown",
        /// HTTP: a body where none is taken.
        BodyNotTaken = "body_not_taken",
        /// HTTP: a body of unknown length.
        LengthRequired = "length_required",
        /// HTTP: a body over `body_bytes_max`.
        BodyTooLarge = "body_too_large",
        /// HTTP: an Expect field that wants something unknown.
        Expectation = "bad_expectation",
        /// HTTP: the size of a chunk.
        ChunkSize = "bad_chunk_size",
        /// HTTP: a chunk without its CR LF.
        ChunkEnd = "bad_chunk_end",
        /// HTTP: a chunk's extension.
        ChunkExtension = "bad_chunk_extension",
        /// HTTP: a field behind the last chunk.
        Trailer = "bad_trailer",
        /// Handshake: none, where only a WebSocket is served.
        UpgradeRequired = "upgrade_required",
        /// Handshake: in HTTP/1.0.
        UpgradeOldVersion = "upgrade_old_version",
        /// Handshake: no Upgrade in the Connection field.
        ConnectionField = "bad_connection_field",
        /// Handshake: another version than 13.
        WebSocketVersion = "bad_websocket_version",
        /// Handshake: the key.
        WebSocketKey = "bad_websocket_key",
        /// HTTP: more requests of one address than `request_rate_per_address`.
        TooManyRequests = "too_many_requests",
        /// HTTP: from a page of another site.
        Origin = "origin_not_allowed",
        /// Topics: a publication by somebody who may not publish there.
        PublishNotAllowed = "publish_not_allowed",
        /// HTTP: without a token, or with one that does not do.
        Unauthorized = "unauthorized",
        /// Handshake: the client did not wait for the answer.
        BytesBeforeSwitch = "bytes_before_switch",
        /// WebSocket: a reserved bit.
        ReservedBit = "reserved_bit",
        /// WebSocket: a reserved opcode.
        ReservedOpcode = "reserved_opcode",
        /// WebSocket: a control frame in fragments.
        FragmentedControl = "fragmented_control",
        /// WebSocket: a control frame over 125 bytes.
        LongControl = "long_control",
        /// WebSocket: a frame without a mask.
        Unmasked = "unmasked",
        /// WebSocket: a length in a longer form than it needs.
        LengthForm = "length_form",
        /// WebSocket: a length of 64 bits.
        LengthOverflow = "length_overflow",
        /// WebSocket, gRPC: a compressed message, though compression was not agreed on.
        NotAgreed = "compression_not_agreed",
        /// WebSocket: a continuation of nothing.
        NothingToContinue = "nothing_to_continue",
        /// WebSocket: a message inside another.
        Interleaved = "interleaved_messages",
        /// WebSocket, HTTP, gRPC: a message over `message_bytes_max`.
        MessageTooBig = "message_too_big",
        /// WebSocket: more fragments than `fragments_max`.
        TooManyFragments = "too_many_fragments",
        /// WebSocket: more empty fragments in a row than `empty_fragments_max`.
        EmptyFragments = "empty_fragments",
        /// WebSocket: text that is not UTF-8.
        BadUtf8 = "bad_utf8",
        /// WebSocket: a message that cannot be inflated.
        BadDeflate = "bad_deflate",
        /// WebSocket, gRPC: a message over `message_bytes_max` when it is inflated.
        InflatedTooBig = "inflated_too_big",
        /// WebSocket: half of a close code.
        HalfACloseCode = "half_a_close_code",
        /// WebSocket: a close code that nobody may send.
        BadCloseCode = "bad_close_code",
        /// WebSocket: a close reason that is not UTF-8.
        BadCloseReason = "bad_close_reason",
        /// gRPC: a message's prefix that says neither that it is compressed nor that it is not.
        GrpcFlag = "bad_grpc_flag",
        /// gRPC: a body that ends inside a message.
        GrpcTruncated = "truncated_grpc_message",
        /// gRPC: a message that is called compressed and cannot be inflated.
        BadGzip = "bad_gzip",
        /// Raw TCP: a line over `message_bytes_max`.
        LineTooLong = "line_too_long",
        /// Raw TCP: a frame over `message_bytes_max`.
        FrameTooLong = "frame_too_long",
        /// Raw TCP: a first frame that opens nothing.
        BadFirstFrame = "bad_first_frame",
        /// Raw TCP: a first frame whose topic is over `topic_bytes_max`.
        TopicTooLong = "topic_too_long",
        /// HTTP/2: not its preface and SETTINGS first.
        Http2Preface = "http2_preface",
        /// HTTP/2: a frame of a length that it cannot have.
        Http2FrameSize = "http2_frame_size",
        /// HTTP/2: a frame on a stream that it cannot be on.
        Http2StreamNumber = "http2_stream_number",
        /// HTTP/2: a frame on a stream that has not begun.
        Http2IdleStream = "http2_idle_stream",
        /// HTTP/2: a frame on a stream that is closed.
        Http2ClosedStream = "http2_closed_stream",
        /// HTTP/2: more padding than the frame holds.
        Http2Padding = "http2_padding",
        /// HTTP/2: a CONTINUATION of nothing, or something else in its place.
        Http2Continuation = "http2_continuation",
        /// HTTP/2: a client's PUSH_PROMISE.
        Http2Push = "http2_push",
        /// HTTP/2: a stream that depends on itself.
        Http2Priority = "http2_priority",
        /// HTTP/2: a setting with a value that it cannot have.
        Http2Setting = "http2_setting",
        /// HTTP/2: a window that grows by nothing.
        Http2WindowIncrement = "http2_window_increment",
        /// HTTP/2: a window that grows too large.
        Http2WindowOverflow = "http2_window_overflow",
        /// HTTP/2: more data than a window.
        Http2WindowExceeded = "http2_window_exceeded",
        /// HTTP/2: compressed fields that cannot be read.
        Http2Compression = "http2_compression",
        /// HTTP/2: compressed fields that make too much work.
        Http2FieldWork = "http2_field_work",
        /// HTTP/2: a request or trailers with fields that cannot be so.
        Http2Malformed = "http2_malformed",
        /// HTTP/2: a body that is not as long as announced.
        Http2BodyLength = "http2_body_length",
        /// HTTP/2: more streams than `http2.streams_max`.
        Http2TooManyStreams = "http2_too_many_streams",
        /// HTTP/2: more resets than `http2.resets_burst`.
        Http2Resets = "http2_resets",
        /// HTTP/2: more frames without a payload than `http2.frames_burst`.
        Http2Frames = "http2_frames",
        /// HTTP/2: more empty DATA frames in a row than `http2.empty_data_max`.
        Http2EmptyData = "http2_empty_data",
        /// HTTP/2: more tiny DATA frames than `http2.data_overhead_max`.
        Http2DataOverhead = "http2_data_overhead",
        /// HTTP/2: more CONTINUATION frames than `http2.continuations_max`, or too large a block.
        Http2Continuations = "http2_continuations",
    }
}

labelled! {
    /// Why a TLS handshake failed.
    TlsFailure {
        /// No version, cipher or certificate suits both sides.
        Incompatible = "incompatible",
        /// No application protocol does.
        Protocol = "no_application_protocol",
        /// The client's certificate is missing or not trusted.
        Certificate = "client_certificate",
        /// The client said that something is wrong: often it does not trust the certificate.
        Alert = "alert_from_client",
        /// What came is no TLS.
        Malformed = "malformed",
        /// HTTP came, without TLS.
        PlainHttp = "plain_http",
        /// TLS came that breaks its rules.
        Misbehaved = "misbehaved",
        /// It took too long.
        Timeout = "timeout",
        /// Handshakes under way kept too much memory.
        Crowded = "crowded",
        /// The client left, or its transport broke.
        Cut = "cut",
        /// Anything else.
        Other = "other",
    }
}

labelled! {
    /// A limit of [`Limits`](crate::config::Limits), by its name there. `heartbeat_interval` is none.
    Limit {
        /// A connection was refused.
        ConnectionsMax = "connections_max",
        /// A connection was refused: more came in a second.
        AcceptRate = "accept_rate",
        /// A connection was refused: memory was short.
        MemoryFreeBytesMin = "memory_free_bytes_min",
        /// A connection was refused: its address has so many.
        ConnectionsPerAddressMax = "connections_per_address_max",
        /// A connection was refused: more came from its address in a second.
        AcceptRatePerAddress = "accept_rate_per_address",
        /// A connection was refused: so many handshakes were unfinished.
        HandshakesMax = "handshakes_max",
        /// A connection was refused: so many handshakes of its address were unfinished.
        HandshakesPerAddressMax = "handshakes_per_address_max",
        /// A request was refused: more came from its address in a second.
        RequestRatePerAddress = "request_rate_per_address",
        /// An address was not answered any more for a while: it came again however often it was refused.
        RefusalRatePerAddress = "refusal_rate_per_address",
        /// A connection sent more messages than it may.
        MessageRate = "message_rate",
        /// A connection sent more bytes of messages than it may.
        MessageBytesRate = "message_bytes_rate",
        /// No complete handshake came in its time.
        HandshakeTimeout = "handshake_timeout",
        /// A request head was too large.
        HeadBytesMax = "head_bytes_max",
        /// A request's target was too long.
        TargetBytesMax = "target_bytes_max",
        /// A request head had too many fields.
        HeadFieldsMax = "head_fields_max",
        /// A request's body was too large.
        BodyBytesMax = "body_bytes_max",
        /// A request's body stopped coming.
        BodyTimeout = "body_timeout",
        /// A request's body came too slowly.
        BodyRateMin = "body_rate_min",
        /// A connection had all the requests that it may have.
        KeepAliveRequestsMax = "keep_alive_requests_max",
        /// No further request came in its time.
        KeepAliveTimeout = "keep_alive_timeout",
        /// A message was too big.
        MessageBytesMax = "message_bytes_max",
        /// A message had too many fragments.
        FragmentsMax = "fragments_max",
        /// Too many empty fragments came in a row.
        EmptyFragmentsMax = "empty_fragments_max",
        /// A connection was no longer read because so many pongs waited.
        ControlRepliesMax = "control_replies_max",
        /// A message found a full queue.
        QueueBytesMax = "queue_bytes_max",
        /// A message had to queue while all queues together were full.
        QueueBytesTotalMax = "queue_bytes_total_max",
        /// A queue made no progress for too long.
        QueueStallTimeout = "queue_stall_timeout",
        /// A peer did not end its connection after our close.
        CloseTimeout = "close_timeout",
        /// A subscription too many.
        SubscriptionsMax = "subscriptions_max",
        /// A topic's name was too long.
        TopicBytesMax = "topic_bytes_max",
        /// There was no room for another topic.
        TopicsMax = "topics_max",
        /// A publication was refused: its topic had its rate.
        TopicRate = "topic_rate",
        /// A topic had no room for another queue group.
        GroupsMax = "groups_max",
        /// A peer did not answer a heartbeat in time.
        HeartbeatTimeout = "heartbeat_timeout",
        /// A connection had no message for too long.
        IdleTimeout = "idle_timeout",
        /// A shard's mailbox filled, and its publishers had to wait.
        MailboxCapacity = "mailbox_capacity",
        /// HTTP/2: a stream was refused, so many were open.
        Http2StreamsMax = "http2_streams_max",
        /// HTTP/2: no SETTINGS, or no acknowledgement of ours, in time.
        Http2SettingsTimeout = "http2_settings_timeout",
        /// HTTP/2: streams were reset too often.
        Http2ResetsBurst = "http2_resets_burst",
        /// HTTP/2: too many frames that carry no payload.
        Http2FramesBurst = "http2_frames_burst",
        /// HTTP/2: too many empty DATA frames in a row.
        Http2EmptyDataMax = "http2_empty_data_max",
        /// HTTP/2: too many tiny DATA frames that nobody had consumed.
        Http2DataOverheadMax = "http2_data_overhead_max",
        /// HTTP/2: a block of fields in too many frames, or too large.
        Http2ContinuationsMax = "http2_continuations_max",
    }
}

impl Limit {
    /// Whether it is about one client address, so that others do not run into it.
    #[must_use]
    pub const fn is_of_an_address(self) -> bool {
        matches!(self, Self::ConnectionsPerAddressMax | Self::AcceptRatePerAddress | Self::HandshakesPerAddressMax)
    }
}

labelled! {
    /// Why somebody may not do what they ask for.
    AuthRefusal {
        /// Nothing was shown, and something has to be.
        Missing = "missing",
        /// It is neither a token nor a key.
        Malformed = "malformed",
        /// A token whose claims cannot be read, or that lacks one.
        Claims = "claims",
        /// A token that does not say when it expires, and must.
        NoExpiry = "no_expiry",
        /// It is over the limit, and was not read.
        TooLong = "too_long",
        /// A token whose algorithm is none, or not that of the key.
        Algorithm = "algorithm",
        /// No key has this name, or no API key is this.
        UnknownKey = "unknown_key",
        /// No key has made this signature.
        Signature = "signature",
        /// None of the keys that were tried has made it, and more could have: the token does not say which.
        TooManyKeys = "too_many_keys",
        /// A token whose time is over.
        Expired = "expired",
        /// A token whose time has not come.
        NotYet = "not_yet",
        /// A token for somebody else.
        Audience = "audience",
        /// A token of another issuer.
        Issuer = "issuer",
        /// A token that may be used once, and was.
        Replayed = "replayed",
        /// So many tokens that may be used once that no more can be remembered.
        ReplaysFull = "replays_full",
        /// A good token that does not allow this.
        Forbidden = "forbidden",
    }
}

impl AuthRefusal {
    /// A sentence for whoever shows it.
    #[must_use]
    pub const fn message(self) -> &'static str {
        match self {
            Self::Missing => "say who you are with a token or a key",
            Self::Malformed => "this is neither a token nor a key that is known here",
            Self::Claims => "the token's claims cannot be read, or one is missing",
            Self::NoExpiry => "the token does not say when it expires (exp)",
            Self::TooLong => "the token is too long",
            Self::Algorithm => "the token is not signed in a way that its key allows",
            Self::UnknownKey => "nobody here knows the key",
            Self::Signature => "the token's signature is wrong",
            Self::TooManyKeys => "the token has to say with its kid which key has signed it",
            Self::Expired => "the token has expired",
            Self::NotYet => "the token is not good yet",
            Self::Audience => "the token is for somebody else",
            Self::Issuer => "the token is from somebody else",
            Self::Replayed => "the token was used before",
            Self::ReplaysFull => "no more tokens can be taken now; try again later",
            Self::Forbidden => "your token does not allow this",
        }
    }

    /// The HTTP status that says so.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Forbidden => 403,
            Self::ReplaysFull => 503,
            _ => 401,
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::ReplaysFull => "try_again_later",
            _ => "unauthenticated",
        }
    }
}

impl Rule {
    /// The limit that was broken with it.
    #[must_use]
    pub const fn limit(self) -> Option<Limit> {
        Some(match self {
            Self::HeadTooLarge => Limit::HeadBytesMax,
            Self::TargetTooLong => Limit::TargetBytesMax,
            Self::BodyTooLarge => Limit::BodyBytesMax,
            Self::TooManyFields => Limit::HeadFieldsMax,
            Self::MessageTooBig | Self::InflatedTooBig | Self::LineTooLong | Self::FrameTooLong => {
                Limit::MessageBytesMax
            }
            Self::TooManyRequests => Limit::RequestRatePerAddress,
            Self::TooManyFragments => Limit::FragmentsMax,
            Self::EmptyFragments => Limit::EmptyFragmentsMax,
            Self::TopicTooLong => Limit::TopicBytesMax,
            Self::Http2TooManyStreams => Limit::Http2StreamsMax,
            Self::Http2Resets => Limit::Http2ResetsBurst,
            Self::Http2Frames => Limit::Http2FramesBurst,
            Self::Http2EmptyData => Limit::Http2EmptyDataMax,
            Self::Http2DataOverhead => Limit::Http2DataOverheadMax,
            Self::Http2Continuations => Limit::Http2ContinuationsMax,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_number_is_its_place_and_every_name_is_its_own() {
        assert!(Rule::ALL.iter().enumerate().all(|(place, rule)| *rule as usize == place));
        assert!(AuthRefusal::ALL.iter().enumerate().all(|(place, refusal)| *refusal as usize == place));
        assert!(Limit::ALL.iter().enumerate().all(|(place, limit)| *limit as usize == place));
        let labels: Vec<_> = Rule::ALL.iter().map(|rule| rule.label()).collect();
        assert_eq!(labels.iter().collect::<HashSet<_>>().len(), labels.len());
        assert!(
            labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_lowercase() || b"_82".contains(&byte)))
        );
    }
}
