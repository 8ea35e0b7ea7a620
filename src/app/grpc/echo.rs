//! `holdline.v1.Edge/Echo`.

use super::{CALLS, decode, send};
use crate::app::{Context, Handler, Offers, Refusal, Request};
use crate::codec::grpc::generated::edge::EchoMessage;
use crate::message::Kind;

/// Sends every message back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    type State = ();

    fn open(&mut self, _state: &mut (), _request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn offers(&self) -> Offers {
        CALLS
    }

    fn message(&mut self, _state: &mut (), _kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        if is_plain(payload) {
            context.send(Kind::Binary, payload);
        } else if let Some(message) = decode::<EchoMessage>(payload, context) {
            send(&message, context);
        }
    }
}

/// Whether it is surely an `EchoMessage` with nothing but its payload, as nearly all are: then what is read and written again
/// is the same bytes.
fn is_plain(message: &[u8]) -> bool {
    const TAG: u8 = 1 << 3 | 2;
    let Some((&TAG, rest)) = message.split_first() else { return message.is_empty() };
    // A length has up to 5 bytes here, seven bits in each, the low ones first.
    let mut length = 0;
    for (at, &byte) in rest.iter().enumerate().take(5) {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte < 0x80 {
            return rest.len() - at - 1 == length;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::app::testing::Bench;
    use crate::codec::grpc::encode;
    use crate::message::Wire;

    #[test]
    fn messages_come_back() {
        for bytes in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let message = EchoMessage { payload: vec![b'x'; bytes] }.encode_to_vec();
            assert!(is_plain(&message));
            let mut bench = Bench::new(Wire::Grpc);
            bench.message(&mut Echo, &mut (), Kind::Binary, &message);
            let mut expected = Vec::new();
            encode(&message, &mut expected);
            assert!(bench.out == expected && bench.effects().is_empty());
        }
    }

    #[test]
    fn what_is_unknown_is_left_out_and_what_is_broken_ends_the_call() {
        let mut bench = Bench::new(Wire::Grpc);
        bench.message(&mut Echo, &mut (), Kind::Binary, b"\x0a\x02hi\x10\x01");
        assert_eq!((bench.effects().len(), &bench.out[..]), (0, &b"\0\0\0\0\x04\x0a\x02hi"[..]));
        for broken in [&b"\x0a"[..], b"\x0a\x03hi", b"\x0a\xff\xff\xff\xff\xff\xff", b"\xff"] {
            bench.out.clear();
            bench.message(&mut Echo, &mut (), Kind::Binary, broken);
            assert!(bench.out.is_empty());
            assert!(bench.effects()[0].starts_with("end Internal "), "{broken:?}");
        }
    }
}
