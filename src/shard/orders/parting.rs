//! What those hear whom an operator closes. A WebSocket's close frame and a call's status are written where all are.

use super::Parting;
use crate::codec::http1::response::{Reply, write_error};
use crate::codec::{json, sse};
use crate::id::ConnId;
use crate::session::Protocol;
use crate::shard::connection::Flags;
use crate::shard::core::Core;

impl Core {
    /// Tells a stream of events, or a request that waits. Returns whether there was a way.
    pub(in crate::shard) fn write_parting(&mut self, id: ConnId) -> bool {
        let (Some(parting), Some(connection)) = (&self.orders.parting, self.table.get(id)) else { return false };
        match connection.protocol {
            Protocol::Sse | Protocol::SseMany => write_event(parting, &mut self.out),
            Protocol::Http | Protocol::Poll if connection.flags.has(Flags::WAITING) => {
                let reply = Reply { version: self.version_of(id), ..Reply::last(self.date) };
                write_error(403, "kicked", &parting.reason, &[], reply, &mut self.out);
            }
            _ => return false,
        }
        true
    }
}

/// An event `kicked`: a page's reader comes again by itself, unless the page sees to it that it does not.
fn write_event(parting: &Parting, out: &mut Vec<u8>) {
    let mut data = b"{\"code\":".to_vec();
    json::write_number(u64::from(parting.code), &mut data);
    data.extend_from_slice(b",\"reason\":");
    json::write_string(&parting.reason, &mut data);
    data.push(b'}');
    sse::write_event("kicked", out);
    sse::write_data(&data, out);
}
