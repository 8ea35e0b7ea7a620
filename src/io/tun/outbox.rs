//! Packets that wait to be written, one behind the other in one buffer.

/// Finished packets, each behind the same prefix.
#[derive(Debug)]
pub(super) struct Outbox {
    prefix: &'static [u8],
    bytes: Vec<u8>,
    /// Where each packet ends.
    ends: Vec<usize>,
}

impl Outbox {
    /// Bytes beyond which whoever fills it should send first.
    const BYTES_MAX: usize = 256 * 1024;

    /// Nothing yet; every packet begins with `prefix`, which the device wants.
    pub(super) const fn new(prefix: &'static [u8]) -> Self {
        Self { prefix, bytes: Vec::new(), ends: Vec::new() }
    }

    /// Adds what `write` appends as one packet.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(self.prefix);
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// The packets in their order, with their prefixes.
    pub(super) fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }

    /// Whether it holds so much that it should be sent before there is more.
    pub(super) const fn is_full(&self) -> bool {
        self.bytes.len() > Self::BYTES_MAX
    }

    /// Empties it, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}
