//! The `echo` application: what you send comes back.

use super::{Context, Handler, Refusal, Request};
use crate::message::Kind;

/// Sends every message back, text as text and binary as binary.
#[derive(Clone, Copy, Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    type State = ();

    fn open(&mut self, _state: &mut (), _request: &Request<'_>, _context: &mut Context<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    #[inline]
    fn message(&mut self, _state: &mut (), kind: Kind, payload: &[u8], context: &mut Context<'_>) {
        context.send(kind, payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::testing::Bench;
    use crate::message::Wire;

    #[test]
    fn what_comes_goes_back_and_nothing_else() {
        let mut bench = Bench::new(Wire::Length);
        assert_eq!(bench.open(&mut Echo, &mut (), "/echo", "", ""), Ok(()));
        bench.message(&mut Echo, &mut (), Kind::Text, b"hello");
        bench.message(&mut Echo, &mut (), Kind::Binary, b"");
        assert_eq!(bench.out, b"\0\0\0\x05hello\0\0\0\0");
        assert_eq!(bench.effects(), [""; 0]);
    }
}
