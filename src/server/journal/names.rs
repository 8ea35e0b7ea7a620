//! Names of the files in a journal's directory.

/// The file that is locked while a process has the directory.
pub(super) const LOCK: &str = "lock";
/// Room that is kept for the time when the disk is full.
pub(super) const RESERVE: &str = "reserve";
const SEGMENT: &str = ".journal";
const NEW: &str = ".journal.new";
const DAMAGED: &str = ".journal.damaged";
const DIGITS: usize = 16;
/// So often one segment is put aside at most.
pub(super) const DAMAGED_MAX: u32 = 99;

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The segment of this number.
    Segment(u64),
    /// What was to become one.
    New,
    /// Ours, and not read: the lock, the reserve, what was put aside.
    Aside,
    /// Somebody else's.
    Foreign,
}

impl Named {
    pub(super) fn of(name: &str) -> Self {
        let number = |name: &str, end: &str| {
            let digits = name.strip_suffix(end)?;
            let is_number = digits.len() == DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then(|| digits.parse().ok()).flatten().filter(|&number: &u64| number != 0)
        };
        let is_copy = |copy: &str| copy.parse::<u32>().is_ok_and(|copy| (2..=DAMAGED_MAX).contains(&copy));
        let first = name.rsplit_once('.').filter(|(_, copy)| is_copy(copy)).map_or(name, |(first, _)| first);
        match name {
            LOCK | RESERVE => Self::Aside,
            _ if number(first, DAMAGED).is_some() => Self::Aside,
            _ if number(name, NEW).is_some() => Self::New,
            _ => number(name, SEGMENT).map_or(Self::Foreign, Self::Segment),
        }
    }
}

/// The file of a segment.
pub(super) fn segment(number: u64) -> String {
    format!("{number:016}{SEGMENT}")
}

/// What becomes the file of a segment when it is whole.
pub(super) fn new(number: u64) -> String {
    format!("{number:016}{NEW}")
}

/// Where a segment is put in which something could not be read, for the first time or another one.
pub(super) fn damaged(number: u64, copy: u32) -> String {
    let first = format!("{number:016}{DAMAGED}");
    if copy == 1 { first } else { format!("{first}.{copy}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_are_read() {
        assert_eq!(Named::of(&segment(7)), Named::Segment(7));
        assert_eq!(Named::of("0000000000000007.journal"), Named::Segment(7));
        assert_eq!(Named::of(&new(7)), Named::New);
        assert_eq!([&damaged(7, 1), LOCK, RESERVE].map(Named::of), [Named::Aside; 3]);
        assert_eq!((damaged(7, 2), Named::of(&damaged(7, 2))), (format!("{}.2", damaged(7, 1)), Named::Aside));
        for foreign in [
            "",
            "7.journal",
            "0000000000000000.journal",
            "+000000000000007.journal",
            "a.txt",
            "x.journal.new",
            "0000000000000007.journal.2",
            "0000000000000007.journal.damaged.1",
            "0000000000000007.journal.damaged.100",
        ] {
            assert_eq!(Named::of(foreign), Named::Foreign, "{foreign}");
        }
    }
}
