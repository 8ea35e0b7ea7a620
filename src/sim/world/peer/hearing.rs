//! What peers are told: answers, pages and frames, and whether each of them may come.

use super::super::plan::{Crime, Door, Manner, PAGE, Role};
use super::super::poster::Poster;
use super::super::wire::{self, Format, Frame, Id, Style};
use super::{Peer, Stage, Surroundings};

/// The answer to [`KEY`](super::KEY), RFC 6455 section 1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

impl Peer {
    pub(super) fn read(&mut self, around: &mut Surroundings<'_>) -> Result<(), String> {
        let blind = self.sketch.manner == Manner::Blind || self.sketch.role == Role::Criminal(Crime::PingFlood);
        if blind && self.stage != Stage::Handshake && self.is_web() || blind && !self.is_web() {
            return Ok(());
        }
        let mut bytes_max = usize::MAX;
        if self.sketch.manner == Manner::Slow && !around.calm {
            if !around.random.chance(250) {
                return Ok(());
            }
            bytes_max = around.random.within(1, 200);
        }
        let Some(client) = &mut self.client else { return Ok(()) };
        let read = client.read_into(&mut self.inbox, bytes_max)?;
        around.moved += read as u64;
        if read == 0 {
            return Ok(());
        }
        if self.sketch.role == Role::Pages {
            return self.take_pages();
        }
        if self.stage == Stage::Handshake && !self.take_answer()? {
            return Ok(());
        }
        if self.status.is_some_and(|status| status != 101) {
            return Ok(());
        }
        while let Some(frame) = wire::next(self.format, &mut self.inbox, around.zip)? {
            if self.close_seen {
                return Err(format!("{frame:?} behind the close frame"));
            }
            let frames = match around.sabotage {
                Some(sabotage) if self.is_watched() => sabotage.filter(self.number, frame),
                _ => vec![frame],
            };
            for frame in frames {
                self.take(frame)?;
            }
        }
        if self.close_seen && !self.inbox.is_empty() {
            return Err("bytes behind the close frame".into());
        }
        Ok(())
    }

    /// Whether tampering with what it gets must be noticed.
    fn is_watched(&self) -> bool {
        self.sketch.manner == Manner::Healthy
            && matches!(self.sketch.role, Role::Echo | Role::Member(_, true, _) | Role::Chat(_))
    }

    /// The answer to the handshake; whether it is all there.
    fn take_answer(&mut self) -> Result<bool, String> {
        let Some(end) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
        let head = String::from_utf8(self.inbox[..end].to_vec()).map_err(|_| "an answer that is not UTF-8")?;
        self.inbox.drain(..end + 4);
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
        self.status = Some(status.ok_or_else(|| format!("no status: {head}"))?);
        if self.is_call() && self.status == Some(200) {
            self.status = Some(101);
            self.stage = Stage::Open;
            return Ok(true);
        }
        self.stage = if self.status == Some(101) { Stage::Open } else { Stage::Parting };
        if self.stage == Stage::Open {
            let deflate = head.contains("permessage-deflate");
            if !head.contains(ACCEPT) || deflate != matches!(self.sketch.door, Door::Web(Some(_))) {
                return Err(format!("a strange agreement: {head}"));
            }
            self.format = Format::WebSocket { deflate };
        }
        Ok(true)
    }

    fn take_pages(&mut self) -> Result<(), String> {
        while let Some(end) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") {
            for (status, line) in [(408, b"HTTP/1.1 408 "), (503, b"HTTP/1.1 503 ")] {
                if self.inbox.starts_with(line) {
                    self.status = Some(status);
                    return Ok(());
                }
            }
            if !self.inbox.starts_with(b"HTTP/1.1 200 ") {
                return Err(format!("no page: {}", String::from_utf8_lossy(&self.inbox)));
            }
            let Some(body) = self.inbox.get(end + 4..end + 4 + PAGE.len()) else { return Ok(()) };
            if body != PAGE {
                return Err("another page".into());
            }
            self.inbox.drain(..end + 4 + PAGE.len());
            self.pages += 1;
        }
        Ok(())
    }

    fn take(&mut self, frame: Frame) -> Result<(), String> {
        match frame {
            Frame::Heartbeat => {
                if !self.is_silent() {
                    self.raw_frame(&[]);
                }
            }
            Frame::Ping(payload) => {
                if !self.is_silent() && !self.close_sent {
                    self.web_frame(0x8a, &payload, [1, 2, 3, 4]);
                }
            }
            Frame::Pong(payload) => {
                let expected = self.expected_pongs.pop_front();
                if expected.as_ref() != Some(&payload) && self.sketch.role != Role::Criminal(Crime::Noise) {
                    return Err(format!("the pong {payload:?}, expected {expected:?}"));
                }
            }
            Frame::Close(code) => {
                self.close_seen = true;
                self.code = code;
                if !self.close_sent && !self.is_silent() {
                    self.close_sent = true;
                    self.web_frame(0x88, &code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec()), [9, 9, 9, 9]);
                }
                self.stage = Stage::Parting;
            }
            Frame::Ack(number) => {
                let expected = self.expected_acks.pop_front();
                if expected != Some(number) {
                    return Err(format!("publication {number} has its place, expected {expected:?}"));
                }
            }
            Frame::Aside => {}
            message => return self.take_message(&message),
        }
        Ok(())
    }

    fn take_message(&mut self, message: &Frame) -> Result<(), String> {
        match self.sketch.role {
            Role::Member(..) => {
                let id = wire::identify(message)?;
                // What is posted may be posted again: readers have an eye on it.
                if id.publisher < Poster::FIRST {
                    self.seen.push(id);
                }
            }
            Role::Chat(_) => self.seen.push(chat_line(message)?),
            Role::Echo => {
                let bytes = match (message, self.expected.pop_front()) {
                    (Frame::Text(bytes), Some((Style::Text | Style::Lines, expected))) if *bytes == expected => {
                        return Ok(());
                    }
                    (Frame::Binary(bytes), Some((Style::Binary, expected))) if *bytes == expected => return Ok(()),
                    (Frame::Raw(bytes), Some((_, expected))) if *bytes == expected => return Ok(()),
                    (Frame::Binary(bytes), Some((_, expected))) if *bytes == expected && self.is_call() => {
                        return Ok(());
                    }
                    (Frame::Text(bytes) | Frame::Binary(bytes) | Frame::Raw(bytes), _) => bytes,
                    _ => return Err(format!("{message:?}")),
                };
                return Err(format!("not an echo: {}", String::from_utf8_lossy(bytes)));
            }
            Role::Pages | Role::Criminal(_) => {}
        }
        Ok(())
    }
}

/// A chat's line: `cN joined the chat`, `cN: ...`, `cN left the chat`.
fn chat_line(message: &Frame) -> Result<Id, String> {
    let (Frame::Text(bytes) | Frame::Raw(bytes)) = message else { return Err(format!("{message:?} in a chat")) };
    let bad = || format!("a line that nobody said: {}", String::from_utf8_lossy(bytes));
    let digits = bytes.iter().skip(1).take_while(|byte| byte.is_ascii_digit()).count();
    let (name, said) = bytes.split_at_checked(1 + digits).ok_or_else(bad)?;
    let publisher = str::from_utf8(&name[1..]).ok().and_then(|number| number.parse().ok()).ok_or_else(bad)?;
    match said {
        b" joined the chat" => Ok(Id { publisher, sequence: 0 }),
        b" left the chat" => Ok(Id { publisher, sequence: Id::LEFT }),
        _ => {
            let said = said.strip_prefix(b": ").ok_or_else(bad)?.to_vec();
            let raw = matches!(message, Frame::Raw(_));
            let id = wire::identify(&if raw { Frame::Raw(said) } else { Frame::Text(said) })?;
            if id.publisher == publisher { Ok(id) } else { Err(bad()) }
        }
    }
}
