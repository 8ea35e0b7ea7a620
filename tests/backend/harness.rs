//! What the suite asks of whoever wants to be judged by it.

use std::net::SocketAddr;

use holdline::io::Backend;

/// What a case needs.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Places in the connection table.
    pub connections_max: u32,
    /// Socket buffers so small that a large transfer stops and goes.
    pub small_buffers: bool,
    /// Nothing else may run in this process, since the case counts or uses up its descriptors.
    pub alone: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { connections_max: 1024, small_buffers: false, alone: false }
    }
}

/// A backend with one listener, and clients for it.
pub trait Harness {
    type Backend: Backend;
    type Client: Client;

    /// Whether the network breaks the calm: short sends with room, late `Closed`, and so on.
    const FAULTS: bool = false;

    fn new(setup: Setup) -> Self;

    fn backend(&mut self) -> &mut Self::Backend;

    /// A new connection, `None` when it is turned away.
    fn try_connect(&mut self) -> Option<Self::Client>;

    /// Makes accepting fail, if there is a way.
    fn starve(&mut self) -> bool;

    /// Ends that.
    fn feed(&mut self);

    /// How much the process (or the network) holds: equal before and after means that nothing leaked.
    fn holdings(&self) -> usize;
}

/// What a client knows of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Open,
    Finished,
    Reset,
}

/// The other end. Nothing here blocks.
pub trait Client {
    /// Where it comes from, if it knows.
    fn address(&self) -> Option<SocketAddr>;

    /// Goes on with what it has to agree on with the server, and says whether that is done.
    fn settle(&mut self) -> bool {
        true
    }

    /// Writes what fits.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Appends what is there, up to a bound, and says how much.
    fn read(&mut self, into: &mut Vec<u8>, bytes_max: usize) -> usize;

    /// What the last read has shown.
    fn peer(&mut self) -> Peer;

    fn shutdown_write(&mut self);

    fn close(self);

    fn reset(self);
}
