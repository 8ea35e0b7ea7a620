//! What streams of HTTP/2 send: their responses, framed as far as the windows reach.
//!
//! ```text
//!   response head --------------------------------------------> carrier's queue
//!   body --> own queue --> as far as the windows reach, framed --> carrier's queue
//!                  \---> nothing left, all said: END_STREAM or trailers, and the entry goes
//! ```
//!
//! What a stream writes while its carrier's bytes are looked at is framed where it lies, without a queue, if the windows
//! allow it. A queue is bounded like any other; what a slow reader misses is its route's to say.

use super::carrier::Carrier;
use super::connection::Flags;
use super::core::Core;
use crate::buf::{Next, Outbox};
use crate::codec::http2::StreamId;
use crate::codec::http2::frame::{self, HEADER_BYTES};
use crate::id::ConnId;
use crate::message::Image;

impl Core {
    /// Room that is left for a DATA frame's header.
    pub(super) const HOLE_BYTES: usize = HEADER_BYTES;
    /// What may be queued for a carrier before its streams wait: too little for it not to be read meanwhile.
    const CARRIER_BYTES_MAX: usize = 32 * 1024;
    /// What a stream may send before others have their turn.
    const TURN_BYTES: usize = 16 * 1024;
    /// Parts of shared images up to this size are copied beside their frame's header.
    const COPY_BYTES_MAX: usize = 4 * 1024;

    /// Makes frames of what a stream has written at the end of `out`, behind a hole at `mark`.
    pub(super) fn frame_output(&mut self, carrier: &mut Carrier, id: ConnId, stream: StreamId, mark: usize) {
        let body = mark + Self::HOLE_BYTES;
        let Some(connection) = self.table.get_mut(id) else { return self.out.truncate(mark) };
        let is_queued = connection.outbox.is_some();
        let Some(borne) = connection.borne() else { return self.out.truncate(mark) };
        let head = if borne.begun { 0 } else { head_bytes(&self.out[body..]) };
        borne.begun |= head > 0;
        let ending = borne.ending;
        // The head goes before the hole.
        let ended = head > 0 && self.out[body + 4] & frame::flag::END_STREAM != 0;
        self.out.copy_within(body..body + head, mark);
        let (hole, length) = (mark + head, self.out.len() - body - head);
        if ended {
            carrier.http2.ended(stream);
            self.out.truncate(hole);
            carrier.dismiss(stream, &mut self.out);
            return self.forget_stream(id);
        }
        if length > 0 && (is_queued || length > carrier.http2.room(stream)) {
            let rest = self.out.split_off(body + head);
            self.out.truncate(hole);
            self.queue_body(id, &rest);
            return;
        }
        // Calls end behind what is queued, with trailers.
        let ends = ending && !is_queued;
        if length == 0 && !ends {
            return self.out.truncate(hole);
        }
        let header = carrier.http2.data(stream, length, ends);
        self.out[hole..hole + HEADER_BYTES].copy_from_slice(&header);
        if ends {
            carrier.dismiss(stream, &mut self.out);
            self.forget_stream(id);
        }
    }

    /// Takes what was written for a stream at the end of `out`, where it is the entry at hand.
    pub(super) fn take_output_of_stream(&mut self, id: ConnId) {
        let start = self.out_start;
        let output = self.out.split_off(start);
        self.deliver_output(id, &output);
    }

    /// Sends what a stream has written: the head of its response at once, what follows through its queue.
    pub(super) fn deliver_output(&mut self, id: ConnId, output: &[u8]) {
        if let Some(tracer) = &mut self.tracer {
            tracer.bytes("sent", id, output.len());
        }
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let head = if borne.begun { 0 } else { head_bytes(output) };
        let (carrier, stream) = (borne.carrier, borne.stream);
        let (head, body) = output.split_at(head);
        if !head.is_empty() {
            borne.begun = true;
            self.write_own(carrier, |own| own.extend_from_slice(head));
            if head[4] & frame::flag::END_STREAM != 0 {
                self.through_carrier(id, |_, bearer, frames| {
                    bearer.http2.ended(stream);
                    bearer.dismiss(stream, frames);
                });
                return self.release_stream(id);
            }
        }
        self.queue_body(id, body);
    }

    fn queue_body(&mut self, id: ConnId, body: &[u8]) {
        if body.is_empty() {
            return;
        }
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        outbox.push_own(body);
        let after = outbox.memory();
        self.count_queued(before, after);
        self.mark_dirty(id);
    }

    /// Frames some of what is queued for a stream, as far as the windows and its carrier's queue have room. The rest has its
    /// turn behind other streams.
    pub(super) fn pump(&mut self, id: ConnId) {
        let Some(borne) = self.table.get_mut(id).and_then(|connection| connection.borne()) else { return };
        let (carrier, stream) = (borne.carrier, borne.stream);
        let Some(mut bearer) = self.take_carrier(carrier) else { return };
        let is_done = self.pump_into(id, stream, carrier, &mut bearer);
        self.put_carrier(carrier, bearer);
        if is_done {
            self.outbox_done(id);
        } else {
            self.mark_dirty(id);
        }
    }

    /// Returns whether nothing is queued any more.
    fn pump_into(&mut self, id: ConnId, stream: StreamId, carrier: ConnId, bearer: &mut Carrier) -> bool {
        let mut gather = std::mem::take(&mut self.gather);
        let mut left = if bearer.http2.streams() > 1 { Self::TURN_BYTES } else { usize::MAX };
        let is_done = loop {
            let queued = self.table.get(carrier).and_then(|one| one.outbox.as_deref()).map_or(0, Outbox::cost);
            let (tick, stall) = (self.tick, self.after(self.limits.queue_stall_timeout));
            let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) else {
                break false;
            };
            if outbox.is_empty() {
                break true;
            }
            if left == 0 {
                break false;
            }
            let room = bearer.http2.room(stream);
            if queued >= Self::CARRIER_BYTES_MAX || room == 0 {
                outbox.waits = true;
                if room > 0 && !bearer.waiting.contains(&id) {
                    bearer.waiting.push_back(id);
                }
                self.arm_by(id, stall);
                break false;
            }
            let before = outbox.memory();
            let room = room.min(left);
            let next = outbox.next_within(&mut gather, room);
            let length = next.len().min(room);
            left -= length;
            let header = bearer.http2.data(stream, length, false);
            let image = match &next {
                Next::Shared(image) if length > Self::COPY_BYTES_MAX => {
                    Some(Image { end: image.start + length, ..(*image).clone() })
                }
                _ => None,
            };
            let copied = match next {
                _ if image.is_some() => &[][..],
                Next::Bytes(bytes) => &bytes[..length],
                Next::Shared(image) => &image.as_slice()[..length],
            };
            let mut frame = std::mem::take(&mut self.line);
            frame.clear();
            frame.extend_from_slice(&header);
            frame.extend_from_slice(copied);
            outbox.advance(length);
            outbox.progress = tick;
            let after = outbox.memory();
            self.count_queued(before, after);
            self.write_own(carrier, |own| own.extend_from_slice(&frame));
            if let Some(image) = image {
                self.queue_image(carrier, image);
            }
            self.line = frame;
        };
        self.gather = gather;
        is_done
    }

    fn queue_image(&mut self, id: ConnId, image: Image) {
        let Some(outbox) = self.outbox(id) else { return };
        let before = outbox.memory();
        outbox.push_shared(image, 0);
        let after = outbox.memory();
        self.count_queued(before, after);
        self.mark_dirty(id);
    }

    /// A window has grown for a stream that may wait for it.
    pub(super) fn window_grew(&mut self, id: ConnId) {
        if let Some(outbox) = self.table.get_mut(id).and_then(|connection| connection.outbox.as_deref_mut()) {
            outbox.waits = false;
            self.mark_dirty(id);
        } else {
            self.ready_for_shares(id);
        }
    }

    /// What was queued for a carrier has left: streams that waited for that can go on.
    pub(super) fn carrier_has_room(&mut self, id: ConnId) {
        let Some(connection) = self.table.get_mut(id) else { return };
        let queued = connection.outbox.as_deref().map_or(0, Outbox::cost);
        let is_paused = connection.flags.has(Flags::PAUSED);
        let Some(carrier) = connection.carrier() else { return };
        if queued > Self::CARRIER_BYTES_MAX / 2 {
            return;
        }
        let waiting = std::mem::take(&mut carrier.waiting);
        if is_paused && queued > 0 {
            // Streams may keep the queue from ever being empty.
            self.resumable.push_back(id);
        }
        waiting.into_iter().for_each(|stream| self.window_grew(stream));
    }
}

/// Bytes of the HEADERS frame at the start of a response.
fn head_bytes(response: &[u8]) -> usize {
    response.first_chunk().map_or(0, |header| {
        let header = frame::Header::parse(header);
        debug_assert!(header.kind == frame::kind::HEADERS, "a response begins with its head");
        HEADER_BYTES + header.length as usize
    })
}
