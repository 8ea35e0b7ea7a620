//! What can be said of the journal.

use std::path::PathBuf;
use std::time::Duration;

/// Where and how durable topics are kept on the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Journal {
    /// The directory; `None`: there is no journal.
    pub dir: Option<PathBuf>,
    /// Bytes from which on a file is followed by another one.
    pub segment_bytes: usize,
    /// Bytes of all files. Where they are spent, the oldest go.
    pub bytes_max: usize,
    /// Age from which on neither messages nor the places of topics are kept.
    pub age_max: Duration,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            dir: None,
            segment_bytes: 64 << 20,
            bytes_max: 4 << 30,
            // As long as any history may reach.
            age_max: Duration::from_secs(7 * 24 * 3600),
        }
    }
}
