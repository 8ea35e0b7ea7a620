//! What must hold for a call's body, whatever its bytes, and for the frames in it.

use prost::Message as _;

use super::{Violation, end, receive};
use crate::codec::grpc::{Encoding, PREFIX_BYTES, generated::edge::ClientFrame};
use crate::config::Limits;
use crate::session::{Env, Event, Flow, Partials, Tools};

/// The messages of a body that comes in these pieces, and how it ends.
///
/// # Panics
/// When more is kept than a message may have.
pub fn read<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    encoding: Encoding,
    bytes_max: usize,
) -> (Vec<Vec<u8>>, Result<(), Violation>) {
    let limits = Limits { message_bytes_max: bytes_max, ..Limits::default() };
    let (mut tools, mut partials) = (Tools::default(), Partials::default());
    let (mut partial, mut messages) = (None, Vec::new());
    for piece in pieces {
        let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
        let received = receive(&mut partial, piece, encoding, &mut env, |event| {
            if let Event::Message(_, payload) = event {
                messages.push(payload.to_vec());
            }
            Flow::Continue
        });
        match received {
            Ok(done) => assert_eq!(done, piece.len(), "all bytes are done with"),
            Err(violation) => return (messages, Err(violation)),
        }
        if let Some(partial) = &partial {
            assert!(partial.buf.len() <= bytes_max + PREFIX_BYTES, "a partial is bounded");
        }
    }
    (messages, end(&mut partial, &mut partials))
}

/// A body means the same wherever it is cut, no message is over the limit, and what is a frame is the same frame when it is
/// written and read again.
///
/// # Panics
/// When that does not hold.
pub fn check(bytes: &[u8], encoding: Encoding, bytes_max: usize, cuts: &[usize]) {
    let whole = read([bytes], encoding, bytes_max);
    let mut places: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    places.sort_unstable();
    let pieces = places.windows(2).map(|two| &bytes[two[0]..two[1]]);
    assert_eq!(read(pieces, encoding, bytes_max), whole, "cut at {places:?}");
    assert_eq!(read(bytes.chunks(1), encoding, bytes_max), whole, "byte by byte");
    for message in &whole.0 {
        assert!(message.len() <= bytes_max, "a message is within the limit");
        if let Ok(frame) = ClientFrame::decode(&message[..]) {
            assert_eq!(ClientFrame::decode(&frame.encode_to_vec()[..]), Ok(frame), "a frame is what it says");
        }
    }
    if encoding == Encoding::Identity {
        assert_eq!(whole.0, naive(bytes, bytes_max), "messages lie behind their lengths");
    }
}

/// The messages of a body without compressed ones, as a reader finds them who has all of it.
fn naive(mut bytes: &[u8], bytes_max: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let [0, a, b, c, d, rest @ ..] = bytes {
        let length = usize::from(*a) << 24 | usize::from(*b) << 16 | usize::from(*c) << 8 | usize::from(*d);
        if length > bytes_max || length > rest.len() {
            break;
        }
        messages.push(rest[..length].to_vec());
        bytes = &rest[length..];
    }
    messages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::grpc::encode;
    use crate::codec::grpc::generated::edge::{Cursor, Publish, Subscribe, client_frame, publish, subscribe};
    use crate::codec::grpc::gzip::compress;
    use crate::session::testing::Dice;

    fn frame(dice: &mut Dice) -> Vec<u8> {
        let topic = "news".to_owned();
        let start = [
            Some(subscribe::Start::Since(Cursor { epoch: 1 << 40, offset: 7 })),
            Some(subscribe::Start::History(10)),
            None,
        ];
        let payload = Some(publish::Payload::Text("hello".to_owned()));
        let frame = match dice.below(3) {
            0 => None,
            1 => Some(client_frame::Frame::Subscribe(Subscribe {
                topic,
                start: start[dice.below(3)],
                ..Subscribe::default()
            })),
            _ => Some(client_frame::Frame::Publish(Publish {
                topic,
                payload,
                idempotency_key: "k".to_owned(),
                ..Publish::default()
            })),
        };
        ClientFrame { id: 300, frame }.encode_to_vec()
    }

    #[test]
    fn bodies_with_a_few_things_wrong() {
        let (mut well, mut frames) = (0, 0);
        for seed in 0..20_000 {
            let mut dice = Dice::new(seed);
            let mut bytes = Vec::new();
            for _ in 0..dice.below(4) {
                let frame = frame(&mut dice);
                let start = bytes.len();
                if dice.below(3) == 0 {
                    encode(&compress(&frame), &mut bytes);
                    bytes[start] = 1;
                } else {
                    encode(&frame, &mut bytes);
                }
            }
            for _ in 0..dice.below(3) {
                let at = dice.below(bytes.len() + 1);
                let until = (at + dice.below(3)).min(bytes.len());
                let word = [&b"\0"[..], b"\x01", b"\xff", b"\x12\x04", b"\0\0\0\0", b"\x0a", b"x"][dice.below(7)];
                bytes.splice(at..until, word.iter().copied());
            }
            let encoding = [Encoding::Identity, Encoding::Gzip][dice.below(2)];
            let cuts = [dice.below(1000), dice.below(1000), dice.below(1000)];
            if std::panic::catch_unwind(|| check(&bytes, encoding, 40, &cuts)).is_err() {
                panic!("seed {seed}: {bytes:?}");
            }
            let (messages, ended) = read([&bytes[..]], encoding, 40);
            well += usize::from(ended.is_ok());
            frames += messages.iter().filter(|message| ClientFrame::decode(&message[..]).is_ok()).count();
        }
        assert!((2_000..18_000).contains(&well), "the bodies are neither all good nor all bad: {well}");
        assert!(frames > 5_000, "frames are reached: {frames}");
    }
}
