//! Where a host is. The system's resolver blocks, so it is asked on a thread of its own, of which there is never more than one:
//! who asks again while it has no answer waits for the same.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::thread;

use tokio::sync::oneshot;

/// Asks the system.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    asked: Option<oneshot::Receiver<io::Result<Vec<SocketAddr>>>>,
}

impl Resolver {
    /// The addresses of one host, which is always the same one. It may be given up at any time.
    pub(super) async fn look_up(&mut self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let asked = match self.asked.take() {
            Some(asked) => self.asked.insert(asked),
            None => self.asked.insert(ask(host.to_owned(), port)?),
        };
        let answer = asked.await;
        self.asked = None;
        answer.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    }
}

fn ask(host: String, port: u16) -> io::Result<oneshot::Receiver<io::Result<Vec<SocketAddr>>>> {
    let (answer, asked) = oneshot::channel();
    let look = move || {
        let found = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // Nobody may wait for it any more.
        let _ = answer.send(found);
    };
    thread::Builder::new().name("resolver".to_owned()).spawn(look).map(|_| asked)
}
