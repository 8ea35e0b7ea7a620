//! What peers say: messages whole and in pieces, pings, good-byes, and crimes.

use super::super::calls;
use super::super::plan::{Crime, Role};
use super::super::wire::{self, Format, Id, Style};
use super::{Peer, Stage, Surroundings};
use crate::sim::Random;

impl Peer {
    /// Says good-bye.
    pub(super) fn part(&mut self) {
        self.stage = Stage::Parting;
        if self.is_web() {
            self.close_sent = true;
            self.web_frame(0x88, &1000_u16.to_be_bytes(), [5, 6, 7, 8]);
        } else {
            if self.format == Format::Call
                && let Role::Member(topic, ..) = self.sketch.role
            {
                calls::unsubscribe(topic, &mut self.outgoing);
            }
            self.close_sent = true;
        }
    }

    /// Begins a call.
    pub(super) fn call(&mut self) {
        let Role::Member(topic, echo, _) = self.sketch.role else {
            self.outgoing.extend_from_slice(calls::head("Echo", None).as_bytes());
            return;
        };
        self.outgoing.extend_from_slice(calls::head("Connect", None).as_bytes());
        calls::subscribe(topic, calls::From::Now, false, echo, &mut self.outgoing);
    }

    pub(super) fn ping(&mut self, random: &mut Random) {
        let payload = vec![b'p'; random.below(20)];
        self.web_frame(0x89, &payload, [0; 4]);
        self.expected_pongs.push_back(payload);
    }

    /// Says the next message.
    pub(in crate::sim::world) fn say(&mut self, around: &mut Surroundings<'_>) {
        let random = &mut *around.random;
        let style = match (self.sketch.role, self.format) {
            (Role::Chat(_), Format::Line) => Style::Text,
            (Role::Chat(_), _) => [Style::Text, Style::Lines][random.below(2)],
            (_, Format::Line) => [Style::Text, Style::Binary][random.below(2)],
            _ => [Style::Text, Style::Lines, Style::Binary][random.below(3)],
        };
        let longest = around.message_bytes_max.saturating_sub(32);
        let bytes = if random.chance(900) || around.calm { random.below(100) } else { random.below(longest) };
        self.sent += 1;
        let payload = wire::payload(style, Id { publisher: self.number, sequence: self.sent }, bytes);
        if self.sketch.role == Role::Echo {
            self.expected.push_back((style, payload.clone()));
        }
        match self.format {
            Format::WebSocket { deflate } => self.web_message(style, &payload, deflate, around),
            Format::EchoCall => calls::echo(&payload, &mut self.outgoing),
            Format::Call => {
                let Role::Member(topic, ..) = self.sketch.role else { return };
                self.expected_acks.push_back(self.sent);
                calls::publish(topic, self.sent, style, &payload, "", &mut self.outgoing);
            }
            _ => self.raw_frame(&payload),
        }
    }

    /// A message in one frame or several, with pings between them, compressed or not.
    fn web_message(&mut self, style: Style, payload: &[u8], deflate: bool, around: &mut Surroundings<'_>) {
        let compressed = deflate && around.random.chance(500);
        let payload = if compressed { around.zip.deflate(payload) } else { payload.to_vec() };
        let mut first = if style == Style::Binary { 2 } else { 1 } | if compressed { 0x40 } else { 0 };
        let mut rest = &payload[..];
        for _ in 0..if around.random.chance(700) { 0 } else { around.random.below(4) } {
            if rest.is_empty() {
                break;
            }
            let (fragment, more) = rest.split_at(around.random.within(1, 40).min(rest.len()));
            self.web_frame(first, fragment, around.random.bits().to_le_bytes()[..4].try_into().unwrap_or([7; 4]));
            (first, rest) = (0, more);
            if around.random.chance(300) {
                self.ping(around.random);
            }
        }
        self.web_frame(first | 0x80, rest, [3, 1, 4, 1]);
    }

    pub(super) fn web_frame(&mut self, first: u8, payload: &[u8], key: [u8; 4]) {
        wire::client_frame(first, payload, key, &mut self.outgoing);
    }

    pub(super) fn raw_frame(&mut self, payload: &[u8]) {
        if self.format == Format::Length {
            self.outgoing.extend(u32::try_from(payload.len()).unwrap_or(0).to_be_bytes());
            self.outgoing.extend_from_slice(payload);
        } else {
            self.outgoing.extend_from_slice(payload);
            self.outgoing.push(b'\n');
        }
    }

    pub(super) fn commit(&mut self, crime: Crime, around: &mut Surroundings<'_>) {
        self.crime_done = true;
        let key = [8, 8, 8, 8];
        match crime {
            Crime::ReservedOpcode => self.web_frame(0x83, b"x", key),
            Crime::ReservedBit => self.web_frame(0xa1, b"x", key),
            Crime::Unmasked => self.outgoing.extend([0x81, 1, b'x']),
            Crime::BadUtf8 => self.web_frame(0x81, b"abc\xc0\xafdef", key),
            Crime::TooBig => self.web_frame(0x82, &vec![0; around.message_bytes_max + 1], key),
            Crime::BadClose => self.web_frame(0x88, &1005_u16.to_be_bytes(), key),
            Crime::LoneContinuation => self.web_frame(0x80, b"x", key),
            Crime::Fragments => (0..60).for_each(|at| self.web_frame(u8::from(at == 0), b"x", key)),
            Crime::EmptyFragments => (0..60).for_each(|at| self.web_frame(u8::from(at == 0), b"", key)),
            Crime::BinaryChat => self.web_frame(0x82, b"x", key),
            Crime::PanicInMessage => self.web_frame(0x81, b"x", key),
            Crime::PanicInClose => self.part(),
            Crime::Noise => {
                let noise: Vec<u8> = (0..300).map(|_| around.random.bits().to_le_bytes()[0]).collect();
                self.outgoing.extend(noise);
            }
            Crime::PingFlood => (0..300).for_each(|_| self.web_frame(0x89, &[b'f'; 100], key)),
            Crime::LongFrame => {
                let bytes = around.message_bytes_max + 10;
                self.raw_frame(&vec![b'l'; bytes]);
            }
            _ => {}
        }
    }
}
