//! The known name that a wrong one was probably meant to be.

/// The candidate that takes the fewest edits to reach from `wrong`. A dotted candidate also counts by its last part, so
/// that a key without its table finds its place.
pub(crate) fn nearest<'c>(wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    // Enough for every known name, and a bound on the work.
    let wrong: Vec<char> = wrong.chars().take(128).map(|c| c.to_ascii_lowercase()).collect();
    candidates.into_iter().min_by_key(|candidate| {
        let whole = distance(&wrong, candidate);
        let last = candidate.rsplit('.').next().map_or(whole, |part| distance(&wrong, part));
        whole.min(last)
    })
}

/// What to do about a wrong name: take the nearest that is known. Where that is not near, it is said where all stand. All
/// names begin with `prefix`, which has been taken off here.
pub(crate) fn suggestion<'c>(prefix: &str, wrong: &str, candidates: impl IntoIterator<Item = &'c str>) -> String {
    let Some(known) = nearest(wrong, candidates) else { return ALL_KEYS.to_owned() };
    let letters: Vec<char> = wrong.chars().take(128).map(|c| c.to_ascii_lowercase()).collect();
    let last = known.rsplit('.').next().unwrap_or(known);
    let edits = distance(&letters, known).min(distance(&letters, last));
    if 2 * edits <= letters.len() {
        format!("did you mean {prefix}{known}?")
    } else {
        format!("{ALL_KEYS}; the nearest is {prefix}{known}")
    }
}

const ALL_KEYS: &str = "`holdline default-config` shows every key";

/// Optimal string alignment: insertions, deletions, replacements, and swaps of neighbours, each one edit.
fn distance(left: &[char], right: &str) -> usize {
    let right: Vec<char> = right.chars().map(|c| c.to_ascii_lowercase()).collect();
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    for i in 1..=left.len() {
        let mut current = vec![i; right.len() + 1];
        for j in 1..=right.len() {
            let replaced = previous[j - 1] + usize::from(left[i - 1] != right[j - 1]);
            current[j] = replaced.min(previous[j] + 1).min(current[j - 1] + 1);
            let swapped = i > 1 && j > 1 && left[i - 1] == right[j - 2] && left[i - 2] == right[j - 1];
            if swapped {
                current[j] = current[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        for (left, right, edits) in
            [("", "", 0), ("", "abc", 3), ("kitten", "sitting", 3), ("ab", "ba", 1), ("drian", "drain", 1)]
        {
            let left: Vec<char> = left.chars().collect();
            assert_eq!(distance(&left, right), edits, "{left:?} {right}");
        }
    }

    #[test]
    fn what_is_not_near_is_not_taken_for_a_slip() {
        let known = ["otel", "limits", "topics"];
        assert_eq!(suggestion("", "limts", known), "did you mean limits?");
        assert_eq!(suggestion("", "server", known), "`holdline default-config` shows every key; the nearest is otel");
        assert_eq!(suggestion("", "x", []), "`holdline default-config` shows every key");
    }

    #[test]
    fn a_key_without_its_table_is_found() {
        let known = ["shards", "limits.message_bytes_max", "limits.topic_bytes_max"];
        assert_eq!(nearest("mesage_bytes_max", known), Some("limits.message_bytes_max"));
        assert_eq!(nearest("shard", known), Some("shards"));
        assert_eq!(nearest("x", []), None);
    }
}
