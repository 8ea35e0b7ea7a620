//! The real disk.

use std::sync::Arc;
use std::thread;

use super::scene::{Directory, Publisher, topics};
use crate::metrics::JournalMetrics;
use crate::server::control::ControlThread;

#[test]
fn a_journal_on_a_real_disk_has_what_it_said() {
    let directory = Directory::new();
    let metrics = Arc::<JournalMetrics>::default();
    for life in 1..=3_u64 {
        let journal = directory.open().unwrap();
        let (mut publisher, end, doorbell) = Publisher::new();
        for (name, (cursor, _)) in topics(&journal) {
            let account = publisher.topics.entry(name).or_default();
            (account.committed, account.reserved) = (cursor, cursor);
        }
        let mut control = ControlThread::start(vec![journal.job(vec![end], doorbell, Arc::clone(&metrics))]).unwrap();
        for _ in 0..40 {
            (0..5).for_each(|_| publisher.publish("a"));
            publisher.publish("b");
            while publisher.waiting() > 0 {
                publisher.turn();
                thread::yield_now();
            }
        }
        control.end();
        let found = topics(&directory.open().unwrap());
        assert_eq!((found["a"].0, found["b"].0), (life * 200, life * 40));
        let last: Vec<u64> = (life * 40 - 10..=life * 40).collect();
        assert!(found["b"].1.ends_with(&last[..last.len().min(5)]) || found["b"].1.ends_with(&last), "{found:?}");
    }
    assert!(metrics.segments.get() > 0 && metrics.messages.get() == 720);
}
