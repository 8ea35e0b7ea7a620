//! How segments follow each other.
//!
//! Each segment's header names the one before it and says how much of that was safe. Whatever has a number in between was
//! put together in it and is a leftover, of a process that ended before it could remove the file. Segments go from the
//! oldest on, so the first one may name one that is gone; where a later one does, a file is missing.

use super::segment::Header;

/// What is to be done with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub number: u64,
    /// How much of it was safe on the disk, where that is known: of all but the last one.
    pub length: Option<u64>,
    /// It is contained in a later one.
    pub is_leftover: bool,
    /// The segment before it that should be there and is not.
    pub missing: Option<u64>,
}

/// The segments with these headers, in the order of their numbers.
#[must_use]
pub fn links(headers: &[Header]) -> Vec<Link> {
    let mut links: Vec<Link> = headers
        .iter()
        .map(|header| Link {
            number: header.number,
            length: Some(header.length).filter(|&length| length != 0),
            is_leftover: false,
            missing: None,
        })
        .collect();
    for (place, header) in headers.iter().enumerate() {
        let (before, this) = links.split_at_mut(place);
        let (covered, named) = (before.partition_point(|link| link.number <= header.previous), &mut this[0]);
        let (older, inside) = before.split_at_mut(covered);
        inside.iter_mut().for_each(|link| link.is_leftover = true);
        match older.last_mut() {
            // None has no bytes: this is a header that could not be read, and does not say.
            Some(last) if last.number == header.previous && header.before != 0 => {
                last.length.get_or_insert(header.before);
            }
            Some(last) if last.number == header.previous => {}
            Some(_) => named.missing = Some(header.previous),
            None => {}
        }
    }
    links
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(number: u64, previous: u64) -> Header {
        Header { number, previous, before: previous * 100, ..Header::default() }
    }

    fn seen(headers: &[Header]) -> Vec<(u64, Option<u64>)> {
        links(headers).iter().filter(|link| !link.is_leftover).map(|link| (link.number, link.length)).collect()
    }

    #[test]
    fn each_segment_says_how_long_the_one_before_it_was() {
        let headers = [header(3, 2), header(4, 3), header(5, 4)];
        assert_eq!(seen(&headers), [(3, Some(300)), (4, Some(400)), (5, None)]);
        assert!(links(&headers).iter().all(|link| link.missing.is_none()), "older ones go first");
        assert_eq!(seen(&[]), []);
        assert_eq!(seen(&[header(1, 0)]), [(1, None)]);
    }

    #[test]
    fn what_was_put_together_is_in_one_place() {
        let joined = Header { length: 77, ..header(5, 2) };
        let headers = [header(2, 1), header(3, 2), header(4, 3), joined, header(6, 5)];
        assert_eq!(seen(&headers), [(2, Some(200)), (5, Some(77)), (6, None)]);
        let all = [Header { length: 77, ..header(5, 0) }, header(6, 5)];
        assert_eq!(seen(&[&[header(1, 0), header(2, 1)], &all[..]].concat()), [(5, Some(77)), (6, None)]);
    }

    #[test]
    fn a_file_that_is_gone_is_missed() {
        let missing: Vec<_> =
            links(&[header(1, 0), header(3, 2), header(4, 3)]).iter().map(|link| link.missing).collect();
        assert_eq!(missing, [None, Some(2), None]);
    }
}
