//! What the desk and the keeper both know.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::sync::{Mutex, Notify, oneshot};

use crate::journal::census::{Bounds, Census, Stand};
use crate::metrics::JournalMetrics;

/// What both know.
pub(super) struct Shared {
    pub(super) census: RefCell<Census>,
    pub(super) bounds: Bounds,
    pub(super) metrics: Arc<JournalMetrics>,
    /// Places that are to be written again, and who waits for it.
    pub(super) orders: RefCell<VecDeque<Order>>,
    /// Segments whose beginning failed: their files go before any that is behind them does.
    pub(super) strays: RefCell<Vec<u64>>,
    /// Wakes the desk.
    pub(super) bell: Arc<Notify>,
    /// Wakes the keeper: there is too much.
    pub(super) over: Notify,
    /// The disk takes what is written.
    pub(super) is_working: Cell<bool>,
    /// It does not, for want of room.
    pub(super) is_full: Cell<bool>,
    /// Whoever has it may take what room there is on a disk that is full.
    pub(super) room: Mutex<()>,
}

/// Places to be written again; the answer is whether they are safe.
pub(super) struct Order {
    pub(super) stands: Vec<Stand>,
    pub(super) done: oneshot::Sender<bool>,
}

impl Shared {
    pub(super) fn new(census: Census, bounds: Bounds, metrics: Arc<JournalMetrics>) -> Self {
        let shared = Self {
            census: RefCell::new(census),
            bounds,
            metrics,
            orders: RefCell::default(),
            strays: RefCell::default(),
            bell: Arc::default(),
            over: Notify::new(),
            is_working: Cell::new(true),
            is_full: Cell::new(false),
            room: Mutex::new(()),
        };
        shared.metrics.working.set(1);
        shared.measure();
        shared
    }

    /// Says how much there is.
    pub(super) fn measure(&self) {
        let census = self.census.borrow();
        self.metrics.bytes.set(census.bytes());
        self.metrics.segments.set(census.segments() as u64);
        self.metrics.corrupt.set(census.corrupt() as u64);
        self.metrics.topics.set(census.topics() as u64);
    }

    /// Notes why nothing can be written. Where room is missing, the keeper may find some.
    pub(super) fn note_full(&self, error: &io::Error) {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !self.is_full.replace(is_full) && is_full {
            // What found no room before was not given the reserve.
            self.census.borrow_mut().unbar();
            self.over.notify_one();
        }
    }
}
