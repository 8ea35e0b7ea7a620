//! How a call ends: a code and a sentence.

use std::borrow::Cow;

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
