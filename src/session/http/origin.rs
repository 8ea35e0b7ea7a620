//! Whose page a request comes from. A browser says it in `Origin`; a client that says nothing is none, and not asked.

use super::Head;
use crate::config::Origins;

/// Whose page a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'h> {
    /// No browser's, or a page of this host.
    Own,
    /// A page of this other site, which is allowed here.
    Friend(&'h [u8]),
    /// A page that is not allowed here.
    Foreign,
}

/// Whose page this request comes from.
#[must_use]
pub fn caller<'h>(head: &'h Head<'_>, origins: &Origins) -> Caller<'h> {
    let mut caller = Caller::Own;
    for origin in head.fields("origin") {
        if !is_allowed(origins, origin, head.host()) {
            return Caller::Foreign;
        }
        if !is_same(origin, head.host()) {
            caller = Caller::Friend(origin);
        }
    }
    caller
}

/// Whether a request with this `Origin` and `Host` is allowed. `null`, the origin of pages that have none of their own,
/// is only where any is.
fn is_allowed(origins: &Origins, origin: &[u8], host: &[u8]) -> bool {
    origins.any || origins.same && is_same(origin, host) || origins.lists(origin)
}

/// Whether `http://host` or `https://host`, the scheme's own port left out, is the origin. The scheme does not matter:
/// TLS may have ended before us.
fn is_same(origin: &[u8], host: &[u8]) -> bool {
    fn bare<'n>(name: &'n [u8], port: &[u8]) -> &'n [u8] {
        name.strip_suffix(port).unwrap_or(name)
    }
    let schemes: [(&[u8], &[u8]); 2] = [(b"http://", b":80"), (b"https://", b":443")];
    schemes.into_iter().any(|(scheme, port)| {
        origin.split_at_checked(scheme.len()).is_some_and(|(start, authority)| {
            !authority.is_empty()
                && start.eq_ignore_ascii_case(scheme)
                && bare(authority, port).eq_ignore_ascii_case(bare(host, port))
        })
    })
}
