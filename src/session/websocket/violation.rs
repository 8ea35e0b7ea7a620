//! The ways in which a client can misbehave.

use crate::close::CloseReason;
use crate::codec::websocket::close::CloseError;
use crate::codec::websocket::deflate::InflateError;
use crate::codec::websocket::frame::BadHeader;
use crate::codec::websocket::utf8::BadUtf8;
use crate::rule::Rule;

/// How a client broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A header that no client may send.
    #[error(transparent)]
    Header(#[from] BadHeader),
    /// RSV1 without the extension that gives it a meaning.
    #[error("a compressed message, though compression was not agreed on")]
    NotAgreed,
    /// A continuation of nothing.
    #[error("a continuation frame without a message to continue")]
    NothingToContinue,
    /// A new message inside another.
    #[error("a new message before the last one is complete")]
    Interleaved,
    /// A message over the limit.
    #[error("a message over the limit")]
    TooBig,
    /// A message in too many fragments.
    #[error("a message in too many fragments")]
    TooManyFragments,
    /// Too many empty fragments in a row.
    #[error("too many empty fragments in a row")]
    EmptyFragments,
    /// Text that is not UTF-8.
    #[error(transparent)]
    Text(#[from] BadUtf8),
    /// A compressed message that cannot be inflated, or not within the limit.
    #[error(transparent)]
    Compressed(#[from] InflateError),
    /// A close frame that says nothing sensible.
    #[error(transparent)]
    Close(#[from] CloseError),
}

impl crate::session::Violation for Violation {
    fn rule(&self) -> Rule {
        match self {
            Self::Header(BadHeader::ReservedBit) => Rule::ReservedBit,
            Self::Header(BadHeader::ReservedOpcode) => Rule::ReservedOpcode,
            Self::Header(BadHeader::FragmentedControl) => Rule::FragmentedControl,
            Self::Header(BadHeader::LongControl) => Rule::LongControl,
            Self::Header(BadHeader::Unmasked) => Rule::Unmasked,
            Self::Header(BadHeader::LengthForm) => Rule::LengthForm,
            Self::Header(BadHeader::LengthOverflow) => Rule::LengthOverflow,
            Self::NotAgreed => Rule::NotAgreed,
            Self::NothingToContinue => Rule::NothingToContinue,
            Self::Interleaved => Rule::Interleaved,
            Self::TooBig => Rule::MessageTooBig,
            Self::TooManyFragments => Rule::TooManyFragments,
            Self::EmptyFragments => Rule::EmptyFragments,
            Self::Text(BadUtf8) => Rule::BadUtf8,
            Self::Compressed(InflateError::Garbage) => Rule::BadDeflate,
            Self::Compressed(InflateError::TooBig) => Rule::InflatedTooBig,
            Self::Close(CloseError::HalfACode) => Rule::HalfACloseCode,
            Self::Close(CloseError::BadCode(_)) => Rule::BadCloseCode,
            Self::Close(CloseError::BadReason) => Rule::BadCloseReason,
        }
    }

    fn reason(&self) -> CloseReason {
        match self {
            Self::Header(_) | Self::NotAgreed | Self::NothingToContinue | Self::Interleaved => {
                CloseReason::ProtocolError
            }
            Self::Close(CloseError::HalfACode | CloseError::BadCode(_)) => CloseReason::ProtocolError,
            Self::Text(_) | Self::Close(CloseError::BadReason) => CloseReason::BadUtf8,
            // RFC 7692 names no code; 1007 is for data that does not fit the type of the message.
            Self::Compressed(InflateError::Garbage) => CloseReason::BadUtf8,
            Self::TooBig | Self::Compressed(InflateError::TooBig) => CloseReason::TooBig,
            Self::TooManyFragments | Self::EmptyFragments => CloseReason::Policy,
        }
    }
}
