//! Connections that come through a proxy: whether it may speak for others, and for whom it does.

use super::Shard;
use super::connection::Flags;
use super::core::Core;
use super::entrance::Entrance;
use crate::close::CloseReason;
use crate::codec::proxy::Fault;
use crate::id::ConnId;
use crate::io::{Accepted, Backend};
use crate::rule::Rule;
use std::net::SocketAddr;

impl Core {
    /// Whether who connects may speak for others; counts it if not.
    pub(super) fn trusts(&mut self, accepted: &Accepted) -> bool {
        // Who may open the file of a Unix socket is said by its permissions.
        let entrance = self.entrances.get(usize::from(accepted.listener.0));
        let is_local = entrance.is_some_and(Entrance::is_unix);
        let trusted = is_local || accepted.peer.is_some_and(|peer| self.live.proxies.contains(peer.ip()));
        if !trusted {
            self.metrics.count_violation(Rule::ProxyUntrusted);
            let peer = accepted.peer.map_or_else(|| "someone unknown".to_owned(), |peer| peer.to_string());
            let what = format_args!("{peer} came in where only proxies of proxy.trusted may");
            self.log.event(self.now, &self.metrics, what);
        }
        trusted
    }
}

impl<B: Backend> Shard<B> {
    /// A proxy has said for whom it speaks, or something that nobody understands.
    pub(super) fn proxied(&mut self, id: ConnId, header: Result<Option<SocketAddr>, Fault>) {
        if self.core.table.get(id).is_none_or(|connection| connection.flags.has(Flags::CLOSING)) {
            return;
        }
        let client = match header {
            Ok(client) => client,
            Err(fault) => {
                self.core.metrics.count_violation(fault.rule());
                return self.turn_off(id, CloseReason::BadHandshake, &fault.to_string());
            }
        };
        if let Err(limit) = self.core.count_client(id, client) {
            return self.shed_client(id, client, limit);
        }
        self.open_bound(id);
    }

    /// Ends a connection of which it is not known yet what it speaks: with a reset, as there is nothing to say.
    fn turn_off(&mut self, id: ConnId, reason: CloseReason, detail: &str) {
        self.core.set(id, Flags::BROKEN);
        self.begin_close(id, reason, detail);
    }
}
