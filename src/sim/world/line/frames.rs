//! What a server's frames say to a line, and whether they may be where they are.

use super::{Fields, Line, Stream};
use crate::codec::http2::frame::{self, Header, flag, kind};
use crate::codec::http2::hpack::Bounds;
use crate::codec::http2::{ErrorCode, StreamId, response};

/// Of heads and trailers.
const BOUNDS: Bounds = Bounds { bytes_max: 8192, fields_max: 40 };

impl Line {
    /// Takes one frame.
    pub(super) fn take(&mut self, header: Header, payload: &[u8]) -> Result<(), String> {
        let Header { kind, stream: StreamId(number), .. } = header;
        if self.block.is_some() != (kind == kind::CONTINUATION) {
            return Err("a block of fields is interrupted, or goes on without a beginning".into());
        }
        if number != 0 && (number.is_multiple_of(2) || number >= self.next) {
            return Err("a stream that nobody opened".into());
        }
        match kind {
            kind::DATA => self.take_data(header, payload),
            kind::HEADERS => {
                self.block = Some((number, header.has(flag::END_STREAM), Vec::new()));
                self.take_block(header, payload)
            }
            kind::CONTINUATION => self.take_block(header, payload),
            kind::RST_STREAM => self.take_reset(number, payload),
            kind::SETTINGS => self.take_settings(header, payload),
            kind::PING => self.take_ping(header, payload),
            kind::GOAWAY => self.take_go_away(payload),
            kind::WINDOW_UPDATE => self.take_window(number, payload),
            _ => Err("a frame that servers do not send".into()),
        }
    }

    /// A stream on which something comes; `None`: it was given up.
    fn awaiting(&mut self, number: u32) -> Result<Option<&mut Stream>, String> {
        let Some(stream) = self.streams.get_mut(&number) else {
            return if self.closed.contains(&number) { Ok(None) } else { Err("no such stream".into()) };
        };
        let is_over = stream.ended || stream.reset.is_some();
        if is_over { Err("the stream has ended".into()) } else { Ok(Some(stream)) }
    }

    fn take_data(&mut self, header: Header, payload: &[u8]) -> Result<(), String> {
        let bytes = i64::from(header.length);
        self.window -= bytes;
        self.owed += header.length;
        if self.window < 0 {
            return Err("more than the connection's window".into());
        }
        if header.has(flag::PADDED) {
            return Err("padding".into());
        }
        let Some(stream) = self.awaiting(header.stream.0)? else { return Ok(()) };
        stream.window -= bytes;
        if bytes > 0 && stream.window < 0 {
            return Err(format!("more than the stream's window, by {}", -stream.window));
        }
        if stream.head.is_none() {
            return Err("a body before its head".into());
        }
        stream.body.extend_from_slice(payload);
        stream.ended = header.has(flag::END_STREAM);
        Ok(())
    }

    fn take_block(&mut self, header: Header, payload: &[u8]) -> Result<(), String> {
        let Some((number, ends, mut block)) = self.block.take() else { return Err("no block".into()) };
        if header.stream.0 != number || header.flags & (flag::PADDED | flag::PRIORITY) != 0 {
            return Err("a strange block".into());
        }
        block.extend_from_slice(payload);
        if !header.has(flag::END_HEADERS) {
            self.block = Some((number, ends, block));
            return Ok(());
        }
        let mut fields = Fields::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let take = |name: &[u8], value: &[u8]| fields.push((text(name), text(value)));
        let status = response::read(&mut self.decoder, &block, BOUNDS, &mut Vec::new(), take);
        let status = status.map_err(|error| error.to_string())?;
        let Some(stream) = self.awaiting(number)? else { return Ok(()) };
        match (status, &stream.head) {
            (Some(100), None) if !ends => return Ok(()),
            (Some(status), None) => stream.head = Some((status, fields)),
            (None, Some(_)) if ends => stream.trailers = Some(fields),
            // A call that ends at once has its trailers in its head.
            _ => return Err(format!("{status:?} where it does not belong: {fields:?}")),
        }
        stream.ended = ends;
        Ok(())
    }

    /// Those who do nothing wrong are not told that they did.
    fn take_reset(&mut self, number: u32, payload: &[u8]) -> Result<(), String> {
        let code = be(payload)?;
        // Who reads a stream too slowly is told to be calm.
        let plain = [ErrorCode::NoError, ErrorCode::Cancel, ErrorCode::RefusedStream, ErrorCode::EnhanceYourCalm];
        let is_plain = plain.iter().any(|one| *one as u32 == code);
        if !is_plain {
            return Err(format!("a stream is reset with {code}"));
        }
        let Some(stream) = self.streams.get_mut(&number) else { return Ok(()) };
        if stream.reset.is_some() {
            return Err("a stream is reset twice".into());
        }
        stream.reset = Some(code);
        self.weather.resets.set(self.weather.resets.get() + 1);
        Ok(())
    }

    fn take_settings(&mut self, header: Header, payload: &[u8]) -> Result<(), String> {
        if header.has(flag::ACK) {
            let Some(window) = self.announced.pop_front() else { return Err("an answer to no SETTINGS".into()) };
            let grown = window - self.window_first;
            self.window_first = window;
            self.streams.values_mut().for_each(|stream| stream.window += grown);
            return Ok(());
        }
        for setting in payload.chunks(6) {
            let value = be(setting.get(2..).unwrap_or_default())?;
            match setting {
                [0, 3, ..] => self.streams_max = value as usize,
                [0, 4, ..] => {
                    let grown = i64::from(value) - self.send_window_first;
                    self.send_window_first = i64::from(value);
                    self.streams.values_mut().for_each(|stream| stream.send_window += grown);
                }
                _ => {}
            }
        }
        frame::write(kind::SETTINGS, flag::ACK, StreamId::CONNECTION, &[], &mut self.outgoing);
        Ok(())
    }

    fn take_ping(&mut self, header: Header, payload: &[u8]) -> Result<(), String> {
        let data: [u8; 8] = payload.try_into().map_err(|_| "a PING of another size")?;
        if header.has(flag::ACK) {
            let expected = self.pings.pop_front();
            return if expected == Some(data) { Ok(()) } else { Err(format!("{data:?}, expected {expected:?}")) };
        }
        frame::write_ping(data, true, &mut self.outgoing);
        Ok(())
    }

    fn take_go_away(&mut self, payload: &[u8]) -> Result<(), String> {
        let (last, code) = (be(payload)?, be(payload.get(4..).unwrap_or_default())?);
        let text = String::from_utf8_lossy(payload.get(8..).unwrap_or_default());
        // Without a sentence it is not a rule that was broken: the peer read too slowly, or answered too late.
        let [calm, late] = [ErrorCode::EnhanceYourCalm, ErrorCode::SettingsTimeout].map(|code| code as u32);
        if code != ErrorCode::NoError as u32 && !(text.is_empty() && [calm, late].contains(&code)) {
            return Err(format!("it goes away with {code}: {text}"));
        }
        self.leaving = true;
        let never = self.streams.iter_mut().filter(|(number, _)| **number > last);
        never.for_each(|(_, stream)| {
            stream.reset.get_or_insert(ErrorCode::RefusedStream as u32);
        });
        Ok(())
    }

    fn take_window(&mut self, number: u32, payload: &[u8]) -> Result<(), String> {
        let grown = i64::from(be(payload)?);
        let window = match self.streams.get_mut(&number) {
            Some(stream) => &mut stream.send_window,
            None if number == 0 => &mut self.send_window,
            None => return Ok(()),
        };
        *window += grown;
        if grown == 0 || *window >= 1 << 31 {
            return Err(format!("a window grows by {grown} to {window}"));
        }
        Ok(())
    }
}

/// The number in front.
fn be(bytes: &[u8]) -> Result<u32, String> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)).ok_or_else(|| "a number is cut off".to_owned())
}
