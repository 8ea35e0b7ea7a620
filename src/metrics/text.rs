//! The text that a scraper reads: Prometheus' own format, version 0.0.4, or OpenMetrics 1.0.
//!
//! They differ in three things that matter here: OpenMetrics names a counter's family without `_total`, writes bounds
//! of buckets as numbers with a point, and ends in `# EOF`.

use std::fmt::{self, Write};

use super::histogram::Spread;

/// What the scraper asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// The text format, version 0.0.4.
    #[default]
    Prometheus,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What an `Accept` field asks for: OpenMetrics where it is named and not refused.
    #[must_use]
    pub fn accepted(field: Option<&[u8]>) -> Self {
        let text = field.and_then(|field| str::from_utf8(field).ok()).unwrap_or_default();
        let names = |range: &str| {
            let mut parts = range.split(';').map(str::trim);
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"))
                && parts.all(|part| !matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
        };
        if text.split(',').any(names) { Self::OpenMetrics } else { Self::Prometheus }
    }

    /// The `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a metric's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and its name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
}

impl Kind {
    /// As `# TYPE` has it.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// Text that is being written. All names get the prefix `holdline_`.
#[derive(Debug)]
pub struct Text {
    out: String,
    format: Format,
}

impl Text {
    /// Nothing yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { out: String::with_capacity(32 * 1024), format }
    }

    /// Begins a family of samples.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let family = match self.format {
            Format::OpenMetrics if kind == Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let _ = write!(self.out, "# HELP holdline_{family} ");
        escape(help, self.format == Format::OpenMetrics, &mut self.out);
        let _ = writeln!(self.out, "\n# TYPE holdline_{family} {}", kind.label());
    }

    /// Adds a sample of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl fmt::Display) {
        let _ = write!(self.out, "holdline_{name}");
        self.labels(labels, None);
        let _ = writeln!(self.out, " {value}");
    }

    /// A family with one sample.
    pub fn one(&mut self, name: &str, kind: Kind, help: &str, value: impl fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Adds the samples of a histogram.
    #[allow(clippy::cast_precision_loss, reason = "what is exported is a float")]
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], spread: &Spread) {
        let (mut count, divisor) = (0, spread.scale.divisor);
        for (place, bucket) in spread.counts().iter().enumerate() {
            count += bucket;
            let bound = spread.scale.bounds.get(place).map(|bound| *bound as f64 / divisor);
            let bound = match (bound, self.format) {
                (None, _) => "+Inf".to_owned(),
                (Some(bound), Format::Prometheus) => bound.to_string(),
                (Some(bound), Format::OpenMetrics) => format!("{bound:?}"),
            };
            let _ = write!(self.out, "holdline_{name}_bucket");
            self.labels(labels, Some(&bound));
            let _ = writeln!(self.out, " {count}");
        }
        let sum = spread.sum as f64 / divisor;
        for (part, value) in [("sum", sum.to_string()), ("count", count.to_string())] {
            let _ = write!(self.out, "holdline_{name}_{part}");
            self.labels(labels, None);
            let _ = writeln!(self.out, " {value}");
        }
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        let mut before = "{";
        for (name, value) in all {
            let _ = write!(self.out, "{before}{name}=\"");
            escape(value, true, &mut self.out);
            self.out.push('"');
            before = ",";
        }
        if before == "," {
            self.out.push('}');
        }
    }

    /// The text.
    #[must_use]
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

/// A backslash before what would end a line or a label's value.
fn escape(text: &str, quotes: bool, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Histogram, Scale};

    #[test]
    fn what_a_value_says_ends_neither_a_line_nor_a_label() {
        let mut text = Text::new(Format::Prometheus);
        text.family("odd_total", Kind::Counter, "a \\ and \"two\"\nlines");
        text.sample("odd_total", &[("what", "a \\ and \"two\"\nlines"), ("more", "")], 7);
        let expected = "# HELP holdline_odd_total a \\\\ and \"two\"\\nlines\n# TYPE holdline_odd_total counter\n\
            holdline_odd_total{what=\"a \\\\ and \\\"two\\\"\\nlines\",more=\"\"} 7\n";
        assert_eq!(text.finish(), expected);
    }

    #[test]
    fn open_metrics_differs_in_three_things() {
        let write = |format| {
            let histogram = Histogram::new(&Scale::BYTES);
            histogram.observe(300);
            let mut text = Text::new(format);
            text.one("sent_total", Kind::Counter, "Sent.", 3);
            text.family("depth_bytes", Kind::Histogram, "Deep.");
            text.histogram("depth_bytes", &[("shard", "0")], &histogram.spread());
            text.finish()
        };
        let plain = write(Format::Prometheus);
        assert!(plain.starts_with("# HELP holdline_sent_total Sent.\n# TYPE holdline_sent_total counter\n"), "{plain}");
        assert!(plain.contains("\nholdline_depth_bytes_bucket{shard=\"0\",le=\"1024\"} 1\n"), "{plain}");
        assert!(plain.ends_with("_sum{shard=\"0\"} 300\nholdline_depth_bytes_count{shard=\"0\"} 1\n"), "{plain}");
        let open = write(Format::OpenMetrics);
        assert!(open.starts_with("# HELP holdline_sent Sent.\n# TYPE holdline_sent counter\nholdline_sent_total 3\n"));
        assert!(open.contains("\nholdline_depth_bytes_bucket{shard=\"0\",le=\"1024.0\"} 1\n"), "{open}");
        assert!(open.ends_with("\n# EOF\n"));
    }

    #[test]
    fn open_metrics_is_for_who_asks_for_it() {
        for (field, format) in [
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3", Format::OpenMetrics),
            ("text/plain, Application/OpenMetrics-Text", Format::OpenMetrics),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(Some(field.as_bytes())), format, "{field}");
        }
        assert_eq!(Format::accepted(None), Format::Prometheus);
        assert_eq!(Format::accepted(Some(b"\xff")), Format::Prometheus);
    }
}
