//! Conditional requests, RFC 9110 section 13.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::app::site::PageRequest;

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Validators<'a> {
    /// The strong entity tag, with its quotes.
    pub(crate) etag: &'a [u8],
    /// Seconds since 1970, when there is a time.
    pub(crate) modified: Option<u64>,
}

/// What a request's conditions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is answered as if it had none.
    Go,
    /// 304: the client has it already.
    NotModified,
    /// 412: it is not what the client thinks.
    Failed,
}

/// Judges the conditions in the order of section 13.2.2, for GET and HEAD.
pub(crate) fn judge(request: &PageRequest<'_>, now: Validators<'_>) -> Verdict {
    let until = |field: Option<&[u8]>| Some((date(field?)?, now.modified?));
    let passes = match request.if_match {
        Some(tags) => has_tag(tags, |weak, tag| !weak && tag == now.etag),
        None => until(request.if_unmodified_since).is_none_or(|(limit, modified)| modified <= limit),
    };
    if !passes {
        return Verdict::Failed;
    }
    let has_it = match request.if_none_match {
        Some(tags) => has_tag(tags, |_, tag| tag == now.etag),
        None => until(request.if_modified_since).is_some_and(|(limit, modified)| modified <= limit),
    };
    if has_it { Verdict::NotModified } else { Verdict::Go }
}

/// Whether the `Range` field counts: without `If-Range` it does, with it only when that names the file's state exactly.
pub(super) fn range_counts(if_range: Option<&[u8]>, now: Validators<'_>) -> bool {
    let Some(field) = if_range else { return true };
    if field.starts_with(b"\"") || field.starts_with(b"W/") {
        return field == now.etag;
    }
    date(field).is_some_and(|date| now.modified == Some(date))
}

fn date(field: &[u8]) -> Option<u64> {
    let time: SystemTime = httpdate::parse_http_date(str::from_utf8(field).ok()?).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

/// `Last-Modified` for so many seconds since 1970; `None` beyond the year 9999.
pub(super) fn http_date(seconds: u64) -> Option<String> {
    const YEAR_10000: u64 = 253_402_300_800;
    (seconds < YEAR_10000).then(|| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)))
}

/// Whether a list of entity tags is `*` or has one that `matches` takes: whether it is weak, and it with its quotes.
/// What is behind something malformed is not read.
fn has_tag(list: &[u8], matches: impl Fn(bool, &[u8]) -> bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    while !rest.is_empty() {
        let weak = rest.starts_with(b"W/");
        let tag = if weak { &rest[2..] } else { rest };
        let Some(end) = tag.strip_prefix(b"\"").and_then(|inside| memchr::memchr(b'"', inside)) else { return false };
        let (tag, after) = tag.split_at(end + 2);
        if matches(weak, tag) {
            return true;
        }
        let after = after.trim_ascii_start();
        let Some(next) = after.strip_prefix(b",") else { return false };
        rest = next.trim_ascii_start();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Validators<'_> = Validators { etag: b"\"a,b\"", modified: Some(784_111_777) };
    const THEN: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
    const BEFORE: &[u8] = b"Sun, 06 Nov 1994 08:49:36 GMT";

    fn request() -> PageRequest<'static> {
        PageRequest::get("/")
    }

    #[test]
    fn tags_are_compared_weakly_for_304_and_strongly_for_412() {
        for (tags, has_it, passes) in [
            (&b"*"[..], true, true),
            (b"\"a,b\"", true, true),
            (b"\"x\", \"a,b\"", true, true),
            (b"W/\"a,b\"", true, false),
            (b"\"x\"", false, false),
            (b"a,b", false, false),
            (b"\"a", false, false),
            (b"", false, false),
        ] {
            let none_match = judge(&PageRequest { if_none_match: Some(tags), ..request() }, NOW);
            assert_eq!(none_match == Verdict::NotModified, has_it, "{tags:?}");
            let matched = judge(&PageRequest { if_match: Some(tags), ..request() }, NOW);
            assert_eq!(matched == Verdict::Go, passes, "{tags:?}");
        }
    }

    #[test]
    fn dates_count_only_where_no_tag_does() {
        let modified = |date| judge(&PageRequest { if_modified_since: Some(date), ..request() }, NOW);
        assert_eq!(
            (modified(THEN), modified(BEFORE), modified(b"soon")),
            (Verdict::NotModified, Verdict::Go, Verdict::Go)
        );
        let unmodified = |date| judge(&PageRequest { if_unmodified_since: Some(date), ..request() }, NOW);
        assert_eq!(
            (unmodified(THEN), unmodified(BEFORE), unmodified(b"x")),
            (Verdict::Go, Verdict::Failed, Verdict::Go)
        );
        let both = PageRequest { if_none_match: Some(b"\"x\""), if_modified_since: Some(THEN), ..request() };
        assert_eq!(judge(&both, NOW), Verdict::Go);
        let both = PageRequest { if_match: Some(b"\"a,b\""), if_unmodified_since: Some(BEFORE), ..request() };
        assert_eq!(judge(&both, NOW), Verdict::Go);
        let both = PageRequest { if_match: Some(b"\"x\""), if_none_match: Some(b"*"), ..request() };
        assert_eq!(judge(&both, NOW), Verdict::Failed);
    }

    #[test]
    fn a_range_of_another_state_does_not_count() {
        for (field, counts) in [
            (&b"\"a,b\""[..], true),
            (b"\"x\"", false),
            (b"W/\"a,b\"", false),
            (THEN, true),
            (BEFORE, false),
            (b"?", false),
        ] {
            assert_eq!(range_counts(Some(field), NOW), counts, "{field:?}");
        }
        assert!(range_counts(None, NOW));
    }
}
