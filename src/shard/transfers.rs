//! Files on their way to clients: each connection gets one slice in a turn, when what it had before has left.

use super::Shard;
use super::connection::Flags;
use super::core::Core;
use super::pace::Pace;
use crate::app::files::{Done, Job, Read, Step, Transfer};
use crate::close::CloseReason;
use crate::id::ConnId;
use crate::io::Backend;
use crate::time::Clock;

impl<B: Backend> Shard<B> {
    pub(super) fn transfer(&mut self, pace: &mut Pace<'_, impl Clock>) {
        // Those that go on because a slow read has arrived have had their slice.
        let listed = self.core.transfers.len();
        while pace.more()
            && let Ok(done) = self.core.desk.1.try_recv()
        {
            self.slice_arrived(done);
            self.pay(pace);
        }
        for _ in 0..listed {
            if !pace.more() {
                break;
            }
            let Some(id) = self.core.transfers.pop_front() else { break };
            self.next_slice(id);
            self.pay(pace);
        }
    }

    /// Sends the next slice, or asks for it.
    fn next_slice(&mut self, id: ConnId) {
        let bytes_max = (self.core.limits.queue_bytes_max / 4).max(4096);
        let Some(connection) = self.core.table.get_mut(id) else { return };
        let is_drained = connection.outbox.as_deref().is_none_or(crate::buf::Outbox::is_empty);
        let Some(transfer) = connection.transfer() else { return };
        transfer.listed = false;
        if !is_drained {
            // Its end lists the transfer again.
            return;
        }
        match transfer.next(bytes_max) {
            Step::Wait => {}
            Step::Done => self.end_transfer(id),
            Step::Read { offset, length } => self.read_slice(id, offset, length),
        }
    }

    fn read_slice(&mut self, id: ConnId, offset: u64, length: usize) {
        self.begin_output(id);
        let core = &mut self.core;
        let Some(transfer) = core.table.get_mut(id).and_then(|connection| connection.transfer()) else { return };
        let start = core.out.len();
        core.out.resize(start + length, 0);
        let file = &transfer.slice().file;
        match file.read_now(&mut core.out[start..], offset) {
            Read::Whole => {
                transfer.took(length);
                core.list_transfer(id);
                self.write(id);
            }
            Read::Cold => {
                core.out.truncate(start);
                let reader = transfer.slice().reader.clone();
                let job = Job { id, file: file.clone(), offset, length, desk: core.desk.0.clone() };
                transfer.waits();
                if !reader.ask(job) {
                    self.begin_close(id, CloseReason::Internal, "nobody reads files any more");
                }
            }
            Read::Changed => {
                core.out.truncate(start);
                self.file_changed(id);
            }
        }
    }

    /// A slow read is over.
    fn slice_arrived(&mut self, done: Done) {
        let Some(transfer) = self.core.table.get_mut(done.id).and_then(|connection| connection.transfer()) else {
            return;
        };
        let Some(bytes) = done.bytes else { return self.file_changed(done.id) };
        transfer.took(bytes.len());
        self.begin_output(done.id);
        self.core.out.extend_from_slice(&bytes);
        self.core.list_transfer(done.id);
        self.write(done.id);
    }

    /// The length has been announced: nothing but an end can tell the client now.
    fn file_changed(&mut self, id: ConnId) {
        self.begin_close(id, CloseReason::Internal, "a file changed while it was sent");
    }

    /// All has left: the connection ends, or goes on with what waited.
    fn end_transfer(&mut self, id: ConnId) {
        let tick = self.core.tick;
        let Some(connection) = self.core.table.get_mut(id) else { return };
        let is_last = connection.transfer().is_some_and(|transfer| transfer.last);
        if let Some(extra) = connection.extra.as_deref_mut() {
            extra.transfer = None;
            extra.spoke = tick;
        }
        let flags = connection.flags;
        if flags.has(Flags::BORNE) {
            self.core.say_last(id);
        } else if is_last {
            self.begin_close(id, CloseReason::Normal, "");
        } else if flags.has(Flags::PAUSED) {
            self.core.resumable.push_back(id);
        } else if flags.has(Flags::PEER_DONE) {
            self.begin_close(id, CloseReason::PeerClosed, "");
        }
        if !self.core.flag(id, Flags::CLOSING) && !flags.has(Flags::BORNE) {
            self.core.next_request(id);
        }
    }
}

impl Core {
    /// Begins to send a file behind the head that has just been written.
    pub(super) fn begin_transfer(&mut self, id: ConnId, transfer: Box<Transfer>) {
        let tick = self.tick;
        let Some(connection) = self.table.get_mut(id) else { return };
        let extra = connection.extra.get_or_insert_default();
        extra.spoke = tick;
        extra.transfer = Some(transfer);
        self.list_transfer(id);
    }

    /// Puts a transfer on the list of those that can go on.
    pub(super) fn list_transfer(&mut self, id: ConnId) {
        let Some(transfer) = self.table.get_mut(id).and_then(|connection| connection.transfer()) else { return };
        if !transfer.listed {
            transfer.listed = true;
            self.transfers.push_back(id);
        }
    }
}
