//! What a fuzzer runs: the same stream whole, cut, byte by byte and with a stop at each event.

use super::{State, Violation, receive};
use crate::config::Limits;
use crate::message::Kind;
use crate::session::{Env, Event, Flow, Partial, Partials, Tools};

/// An event that outlives its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message.
    Message(Kind, Vec<u8>),
    /// A ping.
    Ping(Vec<u8>),
    /// A pong.
    Pong(Vec<u8>),
    /// A close frame.
    Close(Option<u16>),
}

impl From<Event<'_>> for Seen {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Message(kind, payload) => Self::Message(kind, payload.to_vec()),
            Event::Ping(payload) => Self::Ping(payload.to_vec()),
            Event::Pong(payload) => Self::Pong(payload.to_vec()),
            Event::Close(code) => Self::Close(code),
            Event::Heartbeat => unreachable!("WebSocket has no such event"),
        }
    }
}

/// A server's end of one connection.
#[derive(Debug, Default)]
pub struct Server {
    /// The hot state.
    pub state: State,
    /// What is unfinished.
    pub partial: Option<Box<Partial>>,
    /// The bounds.
    pub limits: Limits,
    /// What the shard has.
    pub tools: Tools,
    /// Likewise.
    pub partials: Partials,
    /// All events so far.
    pub seen: Vec<Seen>,
}

impl Server {
    /// An open connection.
    #[must_use]
    pub fn new(window_bits: u8, limits: Limits) -> Self {
        Self { state: State::open(window_bits), limits, ..Self::default() }
    }

    /// Receives `bytes` at once. With [`Flow::Stop`] it is stopped at each event and goes on with what is left.
    ///
    /// # Errors
    /// When a rule is broken.
    pub fn receive(&mut self, bytes: &[u8], flow: Flow) -> Result<(), Violation> {
        let mut bytes = bytes.to_vec();
        let mut rest = bytes.as_mut_slice();
        loop {
            let mut env = Env { limits: &self.limits, tools: &mut self.tools, partials: &mut self.partials };
            let before = self.seen.len();
            let seen = &mut self.seen;
            let used = receive(&mut self.state, &mut self.partial, rest, &mut env, |event| {
                seen.push(event.into());
                flow
            })?;
            assert!(flow == Flow::Continue || self.seen.len() <= before + 1, "stop means stop");
            rest = &mut rest[used..];
            if rest.is_empty() {
                return Ok(());
            }
            assert!(flow == Flow::Stop && self.seen.len() == before + 1, "only a stop leaves bytes");
        }
    }

    /// What there is at the end, however the bytes came. Two connections that received the same are equal in it.
    #[must_use]
    pub fn outcome(&self) -> (&[Seen], State, bool) {
        (&self.seen, self.state, self.partial.is_some())
    }

    /// Asserts that no more is kept than has come or is allowed.
    pub fn assert_bounded(&self, received: usize) {
        if let Some(partial) = &self.partial {
            let bound = received.min(self.limits.message_bytes_max * 9 / 8 + 64 + 125);
            assert!(partial.buf.len() <= bound && partial.buf.capacity() <= (2 * bound).max(16 * 1024));
        }
        let kept = self.limits.message_bytes_max + 1;
        assert!(self.tools.inflated.capacity() <= kept);
    }
}

/// Small bounds, so that short inputs reach them.
#[must_use]
pub fn small_limits() -> Limits {
    Limits { message_bytes_max: 2048, fragments_max: 24, empty_fragments_max: 4, ..Limits::default() }
}

/// Any bytes give the same events and the same violation however they are cut. The first two bytes choose the
/// extension and the cuts.
pub fn fuzz_receive(data: &[u8]) {
    let Some((&[choice, cut], stream)) = data.split_first_chunk() else { return };
    let window_bits = if choice & 1 == 0 { 15 } else { 0 };
    let server = || Server::new(window_bits, small_limits());
    let step = usize::from(cut) % stream.len().max(1) + 1;

    let mut whole = server();
    let violation = whole.receive(stream, Flow::Continue);
    whole.assert_bounded(stream.len());
    for (step, flow) in
        [(stream.len().max(1), Flow::Stop), (step, Flow::Continue), (step, Flow::Stop), (1, Flow::Continue)]
    {
        let mut pieces = server();
        let again = stream.chunks(step).try_for_each(|piece| pieces.receive(piece, flow));
        assert_eq!(again, violation, "in pieces of {step}");
        assert_eq!(pieces.outcome(), whole.outcome(), "in pieces of {step}");
        pieces.assert_bounded(stream.len());
    }
}
