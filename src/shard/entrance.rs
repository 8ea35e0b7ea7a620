//! Listeners as a shard sees them.

use std::sync::Arc;

use super::core::Core;
use crate::app::opening::Opening;
use crate::app::site::Site;
use crate::session::Protocol;

/// One listener.
pub struct Entrance {
    /// Its URL, for logs.
    pub url: String,
    /// What its connections are.
    pub kind: Kind,
    /// Whether each begins with a header of the PROXY protocol, which [`crate::io::proxy`] takes off.
    pub proxied: bool,
}

/// What a listener's connections are.
pub enum Kind {
    /// HTTP, and what upgrades from it.
    Http {
        /// The pages.
        site: Arc<dyn Site>,
        /// Whether the routes are served here, or just the pages.
        routes: bool,
    },
    /// Raw TCP.
    Tcp {
        /// [`Protocol::Line`] or [`Protocol::Length`].
        protocol: Protocol,
        /// Which route a connection takes.
        opening: Opening,
    },
}

impl Entrance {
    /// Whether it is a file of this machine, whose clients have no addresses.
    #[must_use]
    pub fn is_unix(&self) -> bool {
        self.url.starts_with("unix:")
    }

    /// The protocol that a connection begins with.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        match &self.kind {
            Kind::Http { .. } => Protocol::Http,
            Kind::Tcp { protocol, .. } => *protocol,
        }
    }
}

impl Core {
    /// What files are kept in memory: all listeners of the server serve the same, and the first shard tells of it.
    pub(super) fn files_memory(&self) -> usize {
        let mut sites = self.entrances.iter().filter_map(|entrance| match &entrance.kind {
            Kind::Http { site, .. } => Some(site),
            Kind::Tcp { .. } => None,
        });
        sites.next().filter(|_| self.id.0 == 0).map_or(0, |site| site.memory())
    }
}
