//! Numbers with units, and axes: from values to pixels, and where the lines go.

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Decimal: 1 kB is 1,000 bytes.
    Bytes,
    /// Milliseconds.
    Millis,
    Count,
    PerSecond,
}

impl Unit {
    /// With at most three digits and the unit that keeps it short.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Bytes => scaled(value, &[(1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")]),
            Self::Millis => scaled(value, &[(1e3, "s"), (1.0, "ms"), (1e-3, "µs")]),
            Self::Count => scaled(value, &[(1e6, "M"), (1e3, "k"), (1.0, "")]),
            Self::PerSecond => scaled(value, &[(1e6, "M/s"), (1e3, "k/s"), (1.0, "/s")]),
        }
    }
}

fn scaled(value: f64, units: &[(f64, &str)]) -> String {
    let fitting = units.iter().find(|(size, _)| value.abs() >= size * 0.9995).or(units.last());
    let (size, name) = fitting.copied().unwrap_or((1.0, ""));
    let digits = value / size;
    let number = if digits.abs() >= 100.0 || value == 0.0 {
        format!("{digits:.0}")
    } else if digits.abs() >= 10.0 {
        format!("{digits:.1}")
    } else {
        format!("{digits:.2}")
    };
    let number = if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number} {name}").trim_end().to_owned()
}

/// A number with commas between the thousands.
pub(crate) fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// An axis from pixel `from` to pixel `to`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axis {
    low: f64,
    high: f64,
    log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// Decades around all values.
    pub(crate) fn log(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = bounds(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        let low = 10_f64.powf(low.log10().floor());
        let high = nice_above(high).max(low * 10.0);
        Self { low, high, log: true, from, to }
    }

    /// The same with no more room than the values need and a bit at both ends: for few steps of a ladder.
    pub(crate) fn steps(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = bounds(values.filter(|value| *value > 0.0)).unwrap_or((1.0, 10.0));
        Self { low: low / 1.6, high: high * 1.6, log: true, from, to }
    }

    /// From zero to above all values.
    pub(crate) fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let high = bounds(values).map_or(1.0, |(_, high)| high);
        Self { low: 0.0, high: nice_above(high.max(1e-9) * 1.02), log: false, from, to }
    }

    /// Where a value is; what is outside is at the edge.
    pub(crate) fn at(self, value: f64) -> f64 {
        let share = if self.log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + (self.to - self.from) * share.clamp(0.0, 1.0)
    }

    /// Values with a line, and whether they are labelled too.
    pub(crate) fn ticks(self) -> Vec<(f64, bool)> {
        if !self.log {
            let step = nice_above(self.high / 6.0);
            let count = (self.high / step + 1e-6).floor();
            return (0..)
                .map(f64::from)
                .take_while(|index| *index <= count)
                .map(|index| (index * step, true))
                .collect();
        }
        let decades = (self.high / self.low).log10();
        let mut ticks = Vec::new();
        let mut decade = 10_f64.powf(self.low.log10().floor());
        while decade <= self.high * 1.001 {
            for (factor, label) in [(1.0, true), (2.0, decades < 2.5), (5.0, decades < 3.5)] {
                let value = decade * factor;
                if value >= self.low * 0.999 && value <= self.high * 1.001 {
                    ticks.push((value, label));
                }
            }
            decade *= 10.0;
        }
        ticks
    }
}

fn bounds(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|value| value.is_finite()).fold(None, |found, value| match found {
        None => Some((value, value)),
        Some((low, high)) => Some((low.min(value), high.max(value))),
    })
}

/// The next of 1, 2 and 5 times a power of ten.
fn nice_above(value: f64) -> f64 {
    let decade = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * decade)
        .into_iter()
        .find(|nice| *nice >= value * 0.9999)
        .unwrap_or(value)
}
