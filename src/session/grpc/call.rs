//! A call's request: what its fields say of it.

use std::time::Duration;

use crate::codec::grpc::{Code, Encoding, Status, parse_timeout};
use crate::codec::http1::Head;

/// A call that can begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// How messages are compressed that say they are.
    pub encoding: Encoding,
    /// The time that the caller gives it, from now.
    pub timeout: Option<Duration>,
}

/// A call that cannot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is none: the answer is HTTP's, with this status.
    Http(u16),
    /// The answer is a call that ends with this status. `grpc-accept-encoding` in its head says what is taken.
    Call(Status),
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        Self::Call(status)
    }
}

impl Call {
    /// Whether a request means to be a call: its content type begins with `application/grpc`.
    #[must_use]
    pub fn is_meant(head: &Head<'_>) -> bool {
        content_subtype(head).is_some()
    }

    /// Reads the head of a request.
    ///
    /// # Errors
    /// When it is no call, or one that cannot be served.
    pub fn read(head: &Head<'_>) -> Result<Self, Refused> {
        let subtype = content_subtype(head).ok_or(Refused::Http(415))?;
        if head.method() != "POST" {
            return Err(Refused::Http(405));
        }
        if !subtype.is_empty() && !subtype.eq_ignore_ascii_case(b"+proto") {
            let message = "messages are protobuf here: use application/grpc or application/grpc+proto";
            return Err(Status::new(Code::Unimplemented, message).into());
        }
        let encoding = match head.field("grpc-encoding") {
            None => Encoding::Identity,
            Some(name) => Encoding::from_name(name.trim_ascii()).ok_or_else(|| {
                let name = String::from_utf8_lossy(name);
                let message = format!("the grpc-encoding {name} is not supported; use {}", Encoding::ACCEPTED);
                Status::new(Code::Unimplemented, message)
            })?,
        };
        let timeout = head.field("grpc-timeout").map(|value| {
            parse_timeout(value.trim_ascii())
                .ok_or_else(|| Status::new(Code::Internal, "the grpc-timeout is malformed"))
        });
        Ok(Self { encoding, timeout: timeout.transpose()? })
    }
}

/// What follows `application/grpc` in the content type: nothing, or `+` and a name; `None` when it is another type.
fn content_subtype<'h>(head: &'h Head<'_>) -> Option<&'h [u8]> {
    const TYPE: &[u8] = b"application/grpc";
    let (begins, rest) = head.field("content-type")?.trim_ascii().split_at_checked(TYPE.len())?;
    let rest = rest.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
    (begins.eq_ignore_ascii_case(TYPE) && (rest.is_empty() || rest.starts_with(b"+"))).then_some(rest)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Limits;

    /// Reads a head with these fields.
    fn read(method: &str, fields: &str) -> Result<Call, Refused> {
        let head = format!("{method} /holdline.v1.Edge/Echo HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
        Head::parse(head.as_bytes(), 0, &Limits::default(), Call::read).unwrap()
    }

    #[test]
    fn calls() {
        for (fields, encoding, millis) in [
            ("content-type: application/grpc\r\n", Encoding::Identity, None),
            ("content-type: application/grpc+proto\r\ngrpc-timeout: 1S\r\n", Encoding::Identity, Some(1000)),
            ("content-type: Application/GRPC; charset=utf-8\r\ngrpc-encoding: gzip\r\n", Encoding::Gzip, None),
            ("content-type: application/grpc\r\ngrpc-encoding: identity\r\n", Encoding::Identity, None),
        ] {
            let timeout = millis.map(Duration::from_millis);
            assert_eq!(read("POST", fields), Ok(Call { encoding, timeout }), "{fields}");
        }
    }

    #[test]
    fn what_is_no_call_is_answered_by_http() {
        for (method, fields, status) in [
            ("POST", "", 415),
            ("POST", "content-type: text/plain\r\n", 415),
            ("POST", "content-type: application/grpc-web\r\n", 415),
            ("POST", "content-type: application/grpcs\r\n", 415),
            ("GET", "content-type: application/grpc\r\n", 405),
        ] {
            assert_eq!(read(method, fields), Err(Refused::Http(status)), "{method} {fields}");
        }
    }

    #[test]
    fn calls_that_cannot_be_served_end_with_a_status() {
        for (fields, code) in [
            ("content-type: application/grpc+json\r\n", Code::Unimplemented),
            ("content-type: application/grpc\r\ngrpc-encoding: snappy\r\n", Code::Unimplemented),
            ("content-type: application/grpc\r\ngrpc-timeout: soon\r\n", Code::Internal),
            ("content-type: application/grpc\r\ngrpc-timeout: 123456789S\r\n", Code::Internal),
        ] {
            let refused = read("POST", fields).unwrap_err();
            assert!(matches!(&refused, Refused::Call(status) if status.code == code), "{fields} {refused:?}");
        }
    }
}
