//! What we send.

use crate::codec::websocket::close;
use crate::codec::websocket::deflate::Deflater;
use crate::codec::websocket::frame::{self, Header, Opcode};
use crate::message::Kind;
use crate::session::Encoder;

/// Appends a message as one frame, compressed where the peer takes that and it makes the frame smaller.
#[inline]
pub fn encode_message(encoder: Encoder, kind: Kind, payload: &[u8], deflater: &mut Deflater, out: &mut Vec<u8>) {
    if encoder.window_bits > 0 && frame::append_deflated(kind, payload, encoder.window_bits, deflater, out) {
        return;
    }
    let header = Header::message(kind, payload.len(), false);
    out.reserve(header.as_slice().len() + payload.len());
    out.extend_from_slice(header.as_slice());
    out.extend_from_slice(payload);
}

/// Appends a ping. A payload over 125 bytes is cut off.
pub fn encode_ping(payload: &[u8], out: &mut Vec<u8>) {
    encode_control(Opcode::Ping, payload, out);
}

/// Appends a pong: the answer to a ping has the ping's payload.
pub fn encode_pong(payload: &[u8], out: &mut Vec<u8>) {
    encode_control(Opcode::Pong, payload, out);
}

/// Appends a close frame; without a code it is empty. A reason that is too long is cut off. Nothing may follow it:
/// see [`State::set_close_sent`](super::State::set_close_sent).
pub fn encode_close(code: Option<u16>, reason: &str, out: &mut Vec<u8>) {
    let Some(code) = code else { return encode_control(Opcode::Close, &[], out) };
    let reason = close::fitting(reason);
    out.extend_from_slice(Header::control(Opcode::Close, 2 + reason.len()).as_slice());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

fn encode_control(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(frame::CONTROL_BYTES_MAX)];
    out.extend_from_slice(Header::control(opcode, payload.len()).as_slice());
    out.extend_from_slice(payload);
}
