//! SETTINGS of both sides (RFC 9113 section 6.5).

use std::time::Duration;

use super::violation::Violation;
use super::windows::{WINDOW_FIRST, WINDOW_MAX};
use crate::codec::http2::StreamId;
use crate::codec::http2::frame::{self, kind};
use crate::config::{Http2Limits, Limits};
use crate::wheel::{TICK, Tick};

/// Bytes of the table that fields are decompressed with: the default, which is not sent.
pub(super) const TABLE_BYTES: u32 = 4096;

/// The largest payload that we take, and that a peer takes before it says otherwise: the smallest that there can be.
pub(super) const FRAME_BYTES: u32 = 16_384;

/// Bytes of one setting: a number and a value.
const SETTING_BYTES: usize = 6;

/// Numbers of settings.
mod id {
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
    /// RFC 8441 section 3: WebSockets on streams.
    pub(super) const ENABLE_CONNECT_PROTOCOL: u16 = 8;
    /// RFC 9218 section 2.1.
    pub(super) const NO_RFC7540_PRIORITIES: u16 = 9;
}

/// The windows that we give: a stream's and the connection's.
pub(super) fn windows(limits: &Http2Limits) -> [u32; 2] {
    let window = |bytes: usize| u32::try_from(bytes).unwrap_or(WINDOW_MAX).min(WINDOW_MAX);
    // The connection's cannot be made smaller than it is at first (section 6.9.2).
    [window(limits.stream_window), window(limits.connection_window).max(WINDOW_FIRST)]
}

/// Appends our SETTINGS, and by how much the connection's window is larger than it is at first.
pub(super) fn write_ours(limits: &Limits, out: &mut Vec<u8>) {
    let [stream_window, connection_window] = windows(&limits.http2);
    let head_bytes_max = u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX);
    let mut payload = Vec::with_capacity(4 * SETTING_BYTES);
    let mut set = |id: u16, value: u32| {
        payload.extend_from_slice(&id.to_be_bytes());
        payload.extend_from_slice(&value.to_be_bytes());
    };
    set(id::MAX_CONCURRENT_STREAMS, limits.http2.streams_max);
    if stream_window != WINDOW_FIRST {
        set(id::INITIAL_WINDOW_SIZE, stream_window);
    }
    set(id::MAX_HEADER_LIST_SIZE, head_bytes_max);
    set(id::ENABLE_CONNECT_PROTOCOL, 1);
    frame::write(kind::SETTINGS, 0, StreamId::CONNECTION, &payload, out);
    if connection_window > WINDOW_FIRST {
        frame::write_window_update(StreamId::CONNECTION, connection_window - WINDOW_FIRST, out);
    }
}

/// What the peer has set. The size of its table for fields is of no interest: nothing is ever added to it, and the heads
/// that we write say so by themselves (RFC 7541 section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    /// Of new streams.
    pub(super) window: u32,
    frame_bytes_max: u32,
}

impl Peer {
    pub(super) const fn new() -> Self {
        Self { window: WINDOW_FIRST, frame_bytes_max: FRAME_BYTES }
    }

    pub(super) const fn frame_bytes_max(self) -> usize {
        self.frame_bytes_max as usize
    }

    /// How many settings are in a payload.
    pub(super) fn count(payload: &[u8]) -> Result<u32, Violation> {
        let whole = payload.len().is_multiple_of(SETTING_BYTES);
        if whole {
            Ok(u32::try_from(payload.len() / SETTING_BYTES).unwrap_or(u32::MAX))
        } else {
            Err(Violation::FrameSize)
        }
    }

    /// Takes what a payload says, in its order (section 6.5.3). Those that are unknown do not matter.
    pub(super) fn set(&mut self, payload: &[u8]) -> Result<(), Violation> {
        for setting in payload.chunks_exact(SETTING_BYTES) {
            let [a, b, c, d, e, f] = *setting else { continue };
            let value = u32::from_be_bytes([c, d, e, f]);
            match u16::from_be_bytes([a, b]) {
                id::ENABLE_PUSH | id::NO_RFC7540_PRIORITIES if value > 1 => return Err(Violation::Setting),
                id::INITIAL_WINDOW_SIZE if value > WINDOW_MAX => return Err(Violation::SettingWindow),
                id::INITIAL_WINDOW_SIZE => self.window = value,
                id::MAX_FRAME_SIZE if !(FRAME_BYTES..1 << 24).contains(&value) => return Err(Violation::Setting),
                id::MAX_FRAME_SIZE => self.frame_bytes_max = value,
                _ => {}
            }
        }
        Ok(())
    }
}

/// Which SETTINGS are due: the peer's, then its acknowledgement of ours.
#[derive(Clone, Copy, Debug)]
pub(super) struct Roll {
    due: Tick,
    has_begun: bool,
    has_acknowledged: bool,
}

impl Roll {
    pub(super) fn new(timeout: Duration, now: Tick) -> Self {
        Self { due: later(now, timeout), has_begun: false, has_acknowledged: false }
    }

    /// The peer's SETTINGS are here.
    pub(super) fn begin(&mut self, timeout: Duration, now: Tick) {
        if !self.has_begun {
            self.has_begun = true;
            self.due = later(now, timeout);
        }
    }

    pub(super) const fn has_begun(self) -> bool {
        self.has_begun
    }

    /// Ours have been acknowledged.
    pub(super) const fn acknowledge(&mut self) {
        self.has_acknowledged = true;
    }

    pub(super) const fn due(self) -> Option<Tick> {
        if self.has_begun && self.has_acknowledged { None } else { Some(self.due) }
    }
}

fn later(now: Tick, timeout: Duration) -> Tick {
    now.later(u32::try_from(timeout.as_nanos().div_ceil(TICK.as_nanos())).unwrap_or(u32::MAX))
}
