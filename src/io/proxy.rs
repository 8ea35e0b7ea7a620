//! The PROXY protocol as a decorator of the port, below TLS: it takes the header off the connections of listeners that
//! have one, and tells who their clients are. See [`crate::codec::proxy`] for the header.
//!
//! Between `attach` and the header nothing of such a connection is told upward but its end. Then comes
//! [`Completion::Proxied`], once, and from there on the connection is like any other: what stood behind the header is lent
//! where it came. While no header is awaited this costs one comparison for each completion.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;

use super::syn_filter::Source;
use super::{Accepted, Backend, Backlog, Completion, Ending, Lease, Out, Short, Wake};
use crate::codec::proxy::{self, Fault, Header};
use crate::id::{ConnId, ListenerId};

/// A backend behind proxies.
#[derive(Debug)]
pub struct Proxy<B> {
    inner: B,
    /// Listeners whose connections begin with a header.
    listeners: Vec<ListenerId>,
    /// Connections whose header is not whole, and what has come of it: at most [`proxy::HEADER_MAX`] bytes each.
    waiting: HashMap<ConnId, Vec<u8>>,
    /// What came behind a header that has just been told.
    behind: Option<(ConnId, Lease)>,
}

impl<B: Backend> Proxy<B> {
    /// Expects headers on the connections of these listeners.
    pub fn new(inner: B, listeners: impl IntoIterator<Item = ListenerId>) -> Self {
        Self { inner, listeners: listeners.into_iter().collect(), waiting: HashMap::new(), behind: None }
    }

    /// The backend below.
    pub const fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    /// Looks for a header in what has come, with these bytes behind. Returns it, and how many of these belong to it.
    fn header(&mut self, id: ConnId, lease: &Lease) -> Result<Option<(Option<SocketAddr>, u32)>, Fault> {
        let Some(kept) = self.waiting.get_mut(&id) else { return Ok(None) };
        let (before, bytes) = (kept.len(), self.inner.bytes(lease));
        // No more than a header can have is ever copied, however much has come.
        let read = if before == 0 {
            proxy::parse(bytes)?
        } else {
            kept.extend_from_slice(&bytes[..bytes.len().min(proxy::HEADER_MAX - before)]);
            proxy::parse(kept)?
        };
        let Some(Header { bytes: end, client }) = read else {
            if before == 0 {
                kept.extend_from_slice(bytes);
            }
            return Ok(None);
        };
        Ok(Some((client, u32::try_from(end - before).unwrap_or(u32::MAX))))
    }

    /// Bytes of a connection whose header is awaited. What is to be told, if anything is.
    fn received(&mut self, id: ConnId, mut lease: Lease) -> Option<Completion> {
        match self.header(id, &lease) {
            Ok(None) => {
                self.inner.release(lease);
                None
            }
            Ok(Some((client, bytes))) => {
                self.waiting.remove(&id);
                if bytes < lease.len {
                    lease.start += bytes;
                    lease.len -= bytes;
                    self.behind = Some((id, lease));
                } else {
                    self.inner.release(lease);
                }
                Some(Completion::Proxied(id, Ok(client)))
            }
            Err(fault) => {
                self.waiting.remove(&id);
                self.inner.release(lease);
                Some(Completion::Proxied(id, Err(fault)))
            }
        }
    }

    /// Gives back what came behind a connection's header, when nobody wants it any more.
    fn drop_behind(&mut self, id: ConnId) {
        if let Some((_, lease)) = self.behind.take_if(|(of, _)| *of == id) {
            self.inner.release(lease);
        }
    }
}

impl<B: Backend> Backend for Proxy<B> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn waker(&self) -> Arc<dyn Wake> {
        self.inner.waker()
    }

    fn listen(&mut self, id: ListenerId, socket: TcpListener) -> io::Result<()> {
        self.inner.listen(id, socket)
    }

    fn pause_accept(&mut self, paused: bool) {
        self.inner.pause_accept(paused);
    }

    fn stop_listening(&mut self, id: ListenerId, backlog: Backlog) {
        self.inner.stop_listening(id, backlog);
    }

    fn silence(&mut self, id: ListenerId, sources: &[Source]) -> io::Result<()> {
        self.inner.silence(id, sources)
    }

    fn is_listening(&self) -> bool {
        self.inner.is_listening()
    }

    fn attach(&mut self, accepted: Accepted, id: ConnId) {
        if self.listeners.contains(&accepted.listener) {
            self.waiting.insert(id, Vec::new());
        }
        self.inner.attach(accepted, id);
    }

    fn refuse(&mut self, accepted: Accepted) {
        self.inner.refuse(accepted);
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.inner.wait(if self.behind.is_some() { Some(Duration::ZERO) } else { timeout })
    }

    fn next(&mut self) -> Option<Completion> {
        if let Some((id, lease)) = self.behind.take() {
            return Some(Completion::Received(id, lease));
        }
        loop {
            let completion = self.inner.next()?;
            if self.waiting.is_empty() {
                return Some(completion);
            }
            match completion {
                Completion::Received(id, lease) if self.waiting.contains_key(&id) => {
                    if let Some(told) = self.received(id, lease) {
                        return Some(told);
                    }
                }
                Completion::Closed(id) => {
                    self.waiting.remove(&id);
                    return Some(completion);
                }
                _ => return Some(completion),
            }
        }
    }

    fn bytes(&mut self, lease: &Lease) -> &mut [u8] {
        self.inner.bytes(lease)
    }

    fn release(&mut self, lease: Lease) {
        self.inner.release(lease);
    }

    fn send(&mut self, id: ConnId, out: Out<'_>, tag: u32) {
        self.inner.send(id, out, tag);
    }

    fn flush(&mut self) {
        self.inner.flush();
    }

    fn next_short(&mut self) -> Option<Short> {
        self.inner.next_short()
    }

    fn want_writable(&mut self, id: ConnId) {
        self.inner.want_writable(id);
    }

    fn pause(&mut self, id: ConnId) {
        self.inner.pause(id);
    }

    fn resume(&mut self, id: ConnId) {
        self.inner.resume(id);
    }

    fn shutdown(&mut self, id: ConnId) {
        self.inner.shutdown(id);
    }

    fn close(&mut self, id: ConnId, ending: Ending) {
        self.drop_behind(id);
        // What comes before `Closed` is of no interest, and the backend drops it.
        self.waiting.remove(&id);
        self.inner.close(id, ending);
    }

    fn memory(&self) -> usize {
        self.inner.memory()
    }

    fn tls_memory(&self) -> usize {
        self.inner.tls_memory()
    }

    fn quieten(&mut self, id: ConnId) {
        self.inner.quieten(id);
    }
}
