//! The diagnosis as people read it: a table, then the verdict.

use std::fmt;

use super::amount::{count, several};
use super::descriptors::SYSCTL;
use super::{Check, Diagnosis, Limit, Outlook, Verdict};

impl Diagnosis {
    /// The one line of a server that was told to hold more than fit; `None` when they fit.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Limit::At(stops_at) = self.stops_at else { return None };
        let because = self.because.as_deref().unwrap_or_default();
        (!self.fits).then(|| {
            format!(
                "{} connections do not fit here: {} ends at {} ({because}); see `holdline doctor --connections {}`",
                count(self.connections),
                self.backend,
                count(stops_at),
                self.connections
            )
        })
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernel = self.kernel.as_deref().unwrap_or("of unknown version");
        let (connections, backend) = (count(self.connections), self.backend);
        writeln!(f, "{connections} connections on {backend}, {}, Linux {kernel}\n", several(self.shards, "shard"))?;
        let rows: Vec<[String; 5]> =
            std::iter::once(HEAD.map(str::to_owned)).chain(self.checks.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths = [width(0), width(1), width(2), width(3), width(4)];
        let (head, rows) = rows.split_first().ok_or(fmt::Error)?;
        line(f, head, widths)?;
        for (check, row) in self.checks.iter().zip(rows) {
            line(f, row, widths)?;
            let indent = " ".repeat(widths[0] + 4);
            let explained = format!("{}: {}", check.setting, check.arithmetic);
            fold(&explained, COLUMNS - indent.len()).iter().try_for_each(|part| writeln!(f, "{indent}{part}"))?;
            if let Some(mend) = &check.mend {
                writeln!(f, "{indent}-> {mend}")?;
            }
        }
        writeln!(f)?;
        self.backends.iter().try_for_each(|outlook| writeln!(f, "{}", ending(outlook)))?;
        writeln!(f, "{}", self.conclusion())?;
        let mends = self.checks.iter().filter_map(|check| check.mend.as_ref());
        if mends.filter(|mend| mend.starts_with(SYSCTL)).count() > 0 {
            let number = self.connections;
            writeln!(
                f,
                "most of that is set by tuning/holdline-tune apply --connections {number} (and kept with --persist)"
            )?;
        }
        Ok(())
    }
}

impl Diagnosis {
    fn conclusion(&self) -> String {
        let of = |verdict: Verdict| self.checks.iter().filter(|check| check.verdict == verdict).count();
        let connections = count(self.connections);
        if !self.fits {
            return format!("{connections} do not fit: mend what is TOO SMALL");
        }
        let mut words = format!("{connections} fit");
        if of(Verdict::Slow) > 0 {
            words.push_str("; what is slow shows when all clients come, speak or leave at once");
        }
        if of(Verdict::Unknown) > 0 {
            words.push_str("; what is unknown could not be read and was not counted");
        }
        words
    }
}

/// Explanations are folded to this width. Commands are not: they are to be copied.
const COLUMNS: usize = 110;

const HEAD: [&str; 5] = ["verdict", "what", "now", "needs", "stops at"];

fn row(check: &Check) -> [String; 5] {
    let stops_at = match check.stops_at {
        Limit::At(number) => count(number),
        Limit::Unlimited | Limit::Unknown => "-".to_owned(),
    };
    [check.verdict.name().to_owned(), check.what.to_owned(), check.now.show(), check.needs.show(), stops_at]
}

fn line(f: &mut fmt::Formatter<'_>, row: &[String; 5], widths: [usize; 5]) -> fmt::Result {
    let [verdict, what, now, needs, stops_at] = row;
    let [w0, w1, w2, w3, w4] = widths;
    writeln!(f, "{verdict:<w0$}  {what:<w1$}  {now:>w2$}  {needs:>w3$}  {stops_at:>w4$}")
}

/// Lines of whole words, each at most `columns` long if its words are.
fn fold(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn ending(outlook: &Outlook) -> String {
    match (outlook.stops_at, &outlook.because) {
        (Limit::At(0), Some(because)) => format!("{} does not work here: {because}", outlook.backend),
        (Limit::At(number), Some(because)) => {
            format!("{} ends at {} connections here: {because}", outlook.backend, count(number))
        }
        (Limit::Unknown, _) => format!("{}: where it ends is unknown", outlook.backend),
        _ => format!("{}: nothing that was looked at ends it", outlook.backend),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explanations_are_folded_between_words() {
        assert_eq!(fold("one two  three", 7), ["one two", " three"]);
        assert_eq!(fold("a-long-one b", 4), ["a-long-one", "b"]);
        assert_eq!(fold("", 4), [""]);
    }
}
