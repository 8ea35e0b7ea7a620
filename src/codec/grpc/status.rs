//! How a call ends: a code and a sentence.

use std::borrow::Cow;

use crate::close::CloseReason;

/// gRPC's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// All went well.
    Ok = 0,
    /// The caller gave up.
    Cancelled = 1,
    /// Nobody knows.
    Unknown = 2,
    /// The caller said something that means nothing.
    InvalidArgument = 3,
    /// The caller's time was over.
    DeadlineExceeded = 4,
    /// What was asked for is not there.
    NotFound = 5,
    /// It is there already.
    AlreadyExists = 6,
    /// The caller may not.
    PermissionDenied = 7,
    /// A limit was reached.
    ResourceExhausted = 8,
    /// Not in this state.
    FailedPrecondition = 9,
    /// The call was ended from outside.
    Aborted = 10,
    /// Past the end.
    OutOfRange = 11,
    /// No such method, or not in this form.
    Unimplemented = 12,
    /// A fault of ours, or a broken message.
    Internal = 13,
    /// Come back later.
    Unavailable = 14,
    /// Something is lost for good.
    DataLoss = 15,
    /// The caller did not say who it is.
    Unauthenticated = 16,
}

/// A code, and a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The code.
    pub code: Code,
    /// The sentence, empty where the code says it all.
    pub message: Cow<'static, str>,
}

impl Status {
    /// All went well.
    pub const OK: Self = Self { code: Code::Ok, message: Cow::Borrowed("") };

    /// A code with a sentence.
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }
}

impl Code {
    /// The number, as the trailer `grpc-status` has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        const NUMBERS: [&str; 17] =
            ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"];
        NUMBERS[self as usize]
    }

    /// The code for what HTTP says with a status.
    #[must_use]
    pub const fn from_http(status: u16) -> Self {
        match status {
            400 | 414 | 415 | 431 => Self::InvalidArgument,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 | 410 => Self::NotFound,
            405 | 501 => Self::Unimplemented,
            408 | 504 => Self::DeadlineExceeded,
            409 => Self::Aborted,
            412 => Self::FailedPrecondition,
            413 | 429 => Self::ResourceExhausted,
            416 => Self::OutOfRange,
            502 | 503 => Self::Unavailable,
            500.. => Self::Internal,
            _ => Self::Unknown,
        }
    }
}

/// How a call ends when its connection, or its entry, does.
impl From<CloseReason> for Status {
    fn from(reason: CloseReason) -> Self {
        let (code, message) = match reason {
            CloseReason::Normal => return Self::OK,
            CloseReason::GoingAway => (Code::Unavailable, "the server is going away"),
            CloseReason::ProtocolError => (Code::Internal, "the call broke the protocol"),
            CloseReason::Unsupported => (Code::Unimplemented, "this method does not take that"),
            CloseReason::BadUtf8 => (Code::InvalidArgument, "text that is not UTF-8"),
            CloseReason::Policy => (Code::ResourceExhausted, "a limit or a rule forbids it"),
            CloseReason::TooBig => (Code::ResourceExhausted, "a message over the limit"),
            CloseReason::Internal => (Code::Internal, "a fault of the server's"),
            CloseReason::TryAgainLater => (Code::Unavailable, "no room now, try again later"),
            CloseReason::HeartbeatTimeout => (Code::Unavailable, "no answer to the heartbeat"),
            CloseReason::SlowConsumer => (Code::ResourceExhausted, "you read too slowly"),
            CloseReason::AuthExpired => (Code::Unauthenticated, "the permission has ended"),
            CloseReason::Kicked => (Code::Aborted, "thrown out"),
            CloseReason::HandshakeTimeout => (Code::DeadlineExceeded, "no complete request within its time"),
            CloseReason::BadHandshake => (Code::InvalidArgument, "a request that cannot be accepted"),
            CloseReason::IdleTimeout => (Code::Unavailable, "idle for too long"),
            CloseReason::PeerClosed | CloseReason::TransportError => (Code::Cancelled, "the caller is gone"),
        };
        Self { code, message: Cow::Borrowed(message) }
    }
}

impl Status {
    /// Bytes of a sentence that are sent.
    const SENTENCE_BYTES_MAX: usize = 1024;

    /// The value of `grpc-message`, `None` where there is nothing to say. Bytes other than the printable ones of ASCII are
    /// percent encoded, and so is the percent sign ("Responses" in gRPC's description of its protocol over HTTP/2).
    #[must_use]
    pub fn encoded_message(&self) -> Option<String> {
        if self.message.is_empty() {
            return None;
        }
        let mut encoded = String::with_capacity(self.message.len());
        for character in self.message.chars() {
            let mut room = [0; 4];
            let bytes = character.encode_utf8(&mut room).as_bytes();
            if encoded.len() + 3 * bytes.len() > Self::SENTENCE_BYTES_MAX {
                break;
            }
            match character {
                ' '..='~' if character != '%' => encoded.push(character),
                _ => bytes.iter().for_each(|byte| encoded.push_str(&format!("%{byte:02X}"))),
            }
        }
        Some(encoded)
    }
}

/// The fields that end a call: the value of `grpc-status`, and of `grpc-message` where there is one.
#[must_use]
pub fn status_fields(status: &Status) -> (&'static str, Option<String>) {
    (status.code.as_str(), status.encoded_message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_have_the_number_and_an_encoded_sentence() {
        for (message, encoded) in [
            ("", None),
            ("no such topic", Some("no such topic")),
            ("100% zoë\n~", Some("100%25 zo%C3%AB%0A~")),
            ("\u{7f}\u{1f600}", Some("%7F%F0%9F%98%80")),
        ] {
            let status = Status::new(Code::Unauthenticated, message);
            assert_eq!(status_fields(&status), ("16", encoded.map(str::to_owned)));
        }
        let long = Status::new(Code::Ok, "ë".repeat(10_000)).encoded_message().unwrap_or_default();
        assert!(long.len() <= Status::SENTENCE_BYTES_MAX && long.ends_with("%C3%AB"));
    }

    #[test]
    fn every_reason_ends_a_call_and_only_one_of_them_well() {
        let well: Vec<_> =
            CloseReason::ALL.into_iter().filter(|&reason| Status::from(reason).code == Code::Ok).collect();
        assert_eq!(well, [CloseReason::Normal]);
    }

    #[test]
    fn codes_are_their_numbers() {
        assert_eq!((Code::Ok.as_str(), Code::Internal.as_str()), ("0", "13"));
        for (status, code) in [(400, Code::InvalidArgument), (599, Code::Internal), (418, Code::Unknown)] {
            assert_eq!(Code::from_http(status), code);
        }
    }
}
