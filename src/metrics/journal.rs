//! What the journal of durable topics counts.

use super::text::{Kind, Text};
use super::{Counter, Histogram, Scale};

/// Written by the journal's task alone.
#[derive(Debug)]
pub struct JournalMetrics {
    /// Whether what is published to durable topics can be written: 1 or 0.
    pub working: Counter,
    /// Bytes of all segments.
    pub bytes: Counter,
    /// Segments.
    pub segments: Counter,
    /// Segments that are not what was written.
    pub corrupt: Counter,
    /// Topics whose places are kept.
    pub topics: Counter,
    /// Messages that are safe on the disk.
    pub messages: Counter,
    /// Bytes that were written.
    pub written: Counter,
    /// Writes that failed.
    pub failures: Counter,
    /// Messages that were refused with them.
    pub refused: Counter,
    /// Segments that were removed, or put together with others.
    pub removed: Counter,
    /// Segments that were removed though messages in them were needed.
    pub lost: Counter,
    /// From the beginning of a commit to its end.
    pub commit_seconds: Histogram,
    /// Messages and places of a commit.
    pub commit_records: Histogram,
}

impl Default for JournalMetrics {
    fn default() -> Self {
        let [working, bytes, segments, corrupt, topics, messages] = std::array::from_fn(|_| Counter::default());
        let [written, failures, refused, removed, lost] = std::array::from_fn(|_| Counter::default());
        Self {
            working,
            bytes,
            segments,
            corrupt,
            topics,
            messages,
            written,
            failures,
            refused,
            removed,
            lost,
            commit_seconds: Histogram::new(&Scale::LATENCY),
            commit_records: Histogram::new(&Scale::COUNT),
        }
    }
}

impl JournalMetrics {
    /// Writes all of it.
    pub fn write(&self, text: &mut Text) {
        let help = "Whether durable topics can be published to: the disk takes what is written.";
        text.one("journal_working", Kind::Gauge, help, self.working.get());
        for (name, kind, help, counter) in [
            ("journal_bytes", Kind::Gauge, "Bytes of the journal on the disk.", &self.bytes),
            ("journal_segments", Kind::Gauge, "Files of the journal.", &self.segments),
            (
                "journal_segments_corrupt",
                Kind::Gauge,
                "Files of the journal that were found not to be what was written: the next start will refuse them.",
                &self.corrupt,
            ),
            ("journal_topics", Kind::Gauge, "Topics that the journal has.", &self.topics),
            ("journal_messages_total", Kind::Counter, "Messages that the journal has made safe.", &self.messages),
            ("journal_written_bytes_total", Kind::Counter, "Bytes written to the journal.", &self.written),
            ("journal_failures_total", Kind::Counter, "Writes to the journal that failed.", &self.failures),
            (
                "journal_refused_total",
                Kind::Counter,
                "Messages refused because a write to the journal failed.",
                &self.refused,
            ),
            (
                "journal_segments_removed_total",
                Kind::Counter,
                "Files of the journal that were not needed any more.",
                &self.removed,
            ),
            (
                "journal_segments_lost_total",
                Kind::Counter,
                "Files of the journal that went though messages in them were needed: those took more than journal.bytes_max.",
                &self.lost,
            ),
        ] {
            text.one(name, kind, help, counter.get());
        }
        for (name, help, histogram) in [
            ("journal_commit_seconds", "What commits of the journal take.", &self.commit_seconds),
            ("journal_commit_records", "Messages in a commit of the journal.", &self.commit_records),
        ] {
            text.family(name, Kind::Histogram, help);
            text.histogram(name, &[], &histogram.spread());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::text::Format;

    #[test]
    fn a_scrape_shows_what_the_journal_counts() {
        let journal = JournalMetrics::default();
        journal.working.set(1);
        journal.messages.add(7);
        journal.lost.add(2);
        journal.commit_seconds.observe(2_000_000);
        journal.commit_records.observe(7);
        let mut text = Text::new(Format::Prometheus);
        journal.write(&mut text);
        let said = text.finish();
        for line in [
            "holdline_journal_working 1\n",
            "holdline_journal_messages_total 7\n",
            "holdline_journal_segments_lost_total 2\n",
            "holdline_journal_commit_seconds_bucket{le=\"0.0025\"} 1\n",
            "holdline_journal_commit_records_bucket{le=\"4\"} 0\n",
            "holdline_journal_commit_records_bucket{le=\"16\"} 1\n",
            "holdline_journal_commit_records_sum 7\n",
        ] {
            assert!(said.contains(line), "{line}{said}");
        }
    }
}
