//! The allocator, and what it counts on the shards' threads.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's allocator under counters.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static WATCHED: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Allocations after which the next one is told in full.
static ALLOWED: AtomicU64 = AtomicU64::new(u64::MAX);
/// Bytes that shards have allocated and not freed.
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);
static TRACE: Mutex<Option<String>> = Mutex::new(None);

thread_local! {
    static ON_SHARD: Cell<Option<bool>> = const { Cell::new(None) };
    /// An allocation is being told; telling it allocates.
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is a shard's, by its name. Asks the kernel and keeps the answer: std's way to a thread's name
/// might allocate.
fn on_shard() -> bool {
    ON_SHARD.get().unwrap_or_else(|| {
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes, the last of them zero.
        let failed = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let shard = failed == 0 && name.starts_with(b"shard-");
        // A thread gets its name soon after its start, perhaps after its first allocation.
        if shard || WATCHED.load(Ordering::Relaxed) {
            ON_SHARD.set(Some(shard));
        }
        shard
    })
}

fn note(bytes: i64, is_allocation: bool) {
    if !on_shard() || TELLING.get() {
        return;
    }
    LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed);
    if is_allocation && WATCHED.load(Ordering::Relaxed) {
        let before = ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        if before == ALLOWED.load(Ordering::Relaxed) {
            TELLING.set(true);
            *lock(&TRACE) = Some(Backtrace::force_capture().to_string());
            TELLING.set(false);
        }
    }
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call goes on to the system's allocator as it came, and what that returns is returned. Noting it
// allocates only under `TELLING`, where the nested calls are not noted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()), true);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(signed(layout.size()), true);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-signed(layout.size()), false);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(signed(size) - signed(layout.size()), true);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// The counters are the process's, so that tests take turns.
pub struct Watch(#[allow(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);

impl Watch {
    pub fn new() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        Self(lock(&TURN))
    }

    /// Allocations of all shards while `work` runs. Beyond `allowed` the first one's origin is printed.
    pub fn allocations(&self, allowed: u64, work: impl FnOnce()) -> u64 {
        ALLOCATIONS.store(0, Ordering::Relaxed);
        ALLOWED.store(allowed, Ordering::Relaxed);
        WATCHED.store(true, Ordering::SeqCst);
        work();
        WATCHED.store(false, Ordering::SeqCst);
        let allocations = ALLOCATIONS.load(Ordering::Relaxed);
        let trace = lock(&TRACE).take();
        if allocations > allowed {
            eprintln!(
                "{allocations} allocations instead of {allowed}, the first too many in:\n{}",
                trace.unwrap_or_default()
            );
        }
        allocations
    }

    /// Bytes that the shards hold now.
    pub fn live_bytes(&self) -> i64 {
        LIVE_BYTES.load(Ordering::SeqCst)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
