//! The negotiation of permessage-deflate, RFC 7692 section 7.1, in `Sec-WebSocket-Extensions`, RFC 6455 section 9.1.
//!
//! We always ask for no context takeover, in both directions. We never limit the client's window: a shard's only
//! inflater takes every window, so there is nothing to gain.

use super::deflate::WINDOW_BITS;

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The window of what we send, 9 to 15 bits.
    pub window_bits: u8,
    /// The client named a window: section 7.1.2.1 has the answer name one too.
    names_window: bool,
}

impl Agreement {
    /// Appends the value of our `Sec-WebSocket-Extensions`.
    pub fn write_response(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"permessage-deflate; server_no_context_takeover; client_no_context_takeover");
        if self.names_window {
            out.extend_from_slice(b"; server_max_window_bits=");
            if self.window_bits >= 10 {
                out.push(b'1');
            }
            out.push(b'0' + self.window_bits % 10);
        }
    }
}

/// The first of the client's offers that we can take. One that we do not understand is passed over, as the RFC says:
/// an extension is never a reason to refuse a connection.
#[must_use]
pub fn negotiate(offers: &str) -> Option<Agreement> {
    split(offers, b',').find_map(accept)
}

/// What an offer says, each at most once.
#[derive(Default)]
struct Offer {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_window_bits: Option<u8>,
    client_window_bits: bool,
}

fn accept(offer: &str) -> Option<Agreement> {
    let mut parts = split(offer, b';').map(trim);
    if !parts.next()?.eq_ignore_ascii_case("permessage-deflate") {
        return None;
    }
    let mut offer = Offer::default();
    for part in parts {
        offer.add(part)?;
    }
    let window_bits = offer.server_window_bits.unwrap_or(*WINDOW_BITS.end());
    // 8 is a window that zlib cannot compress for: that offer is declined.
    WINDOW_BITS
        .contains(&window_bits)
        .then_some(Agreement { window_bits, names_window: offer.server_window_bits.is_some() })
}

impl Offer {
    /// Takes a parameter; `None` when it is unknown, repeated or has a value it cannot have.
    fn add(&mut self, parameter: &str) -> Option<()> {
        let (name, value) = match parameter.split_once('=') {
            Some((name, value)) => (trim(name), Some(unquote(trim(value))?)),
            None => (parameter, None),
        };
        let repeated = match (name, value) {
            ("server_no_context_takeover", None) => std::mem::replace(&mut self.server_no_context_takeover, true),
            ("client_no_context_takeover", None) => std::mem::replace(&mut self.client_no_context_takeover, true),
            ("server_max_window_bits", Some(bits)) => self.server_window_bits.replace(window_bits(bits)?).is_some(),
            ("client_max_window_bits", bits) => {
                if let Some(bits) = bits {
                    window_bits(bits)?;
                }
                std::mem::replace(&mut self.client_window_bits, true)
            }
            _ => return None,
        };
        (!repeated).then_some(())
    }
}

/// 8 to 15, without leading zeros.
fn window_bits(value: &str) -> Option<u8> {
    let bits = match value.as_bytes() {
        [digit @ b'8'..=b'9'] => digit - b'0',
        [b'1', digit @ b'0'..=b'5'] => 10 + digit - b'0',
        _ => return None,
    };
    Some(bits)
}

/// What stands in quotes must be a token when they are taken off; none of our values needs an escape.
fn unquote(value: &str) -> Option<&str> {
    match value.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"'),
        None => Some(value),
    }
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The parts between separators that do not stand in quotes.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut quoted, mut escaped) = (false, false);
        for (at, byte) in text.bytes().enumerate() {
            if escaped {
                escaped = false;
            } else if byte == b'"' {
                quoted = !quoted;
            } else if quoted {
                escaped = byte == b'\\';
            } else if byte == separator {
                rest = Some(&text[at + 1..]);
                return Some(&text[..at]);
            }
        }
        rest = None;
        Some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(offers: &str) -> Option<String> {
        negotiate(offers).map(|agreement| {
            let mut out = Vec::new();
            agreement.write_response(&mut out);
            String::from_utf8_lossy(&out).into_owned()
        })
    }

    const PLAIN: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn offers_we_take() {
        for offers in [
            "permessage-deflate",
            "Permessage-Deflate",
            " permessage-deflate ",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; client_max_window_bits=8",
            "permessage-deflate;client_max_window_bits=\"10\"",
            "permessage-deflate ; server_no_context_takeover ;\tclient_no_context_takeover",
            "x-webkit-deflate-frame, permessage-deflate; client_max_window_bits",
            "foo; bar=\"permessage-deflate, \\\" ;\", permessage-deflate",
        ] {
            assert_eq!(answer(offers).as_deref(), Some(PLAIN), "{offers}");
        }
    }

    #[test]
    fn section_7_1_2_1_the_window_we_send_with() {
        for bits in 9..=15 {
            let offer = format!("permessage-deflate; server_max_window_bits={bits}; client_max_window_bits");
            assert_eq!(answer(&offer), Some(format!("{PLAIN}; server_max_window_bits={bits}")));
            assert_eq!(negotiate(&offer).map(|agreement| agreement.window_bits), Some(bits));
        }
        assert_eq!(negotiate("permessage-deflate").map(|agreement| agreement.window_bits), Some(15));
        assert_eq!(answer("permessage-deflate; server_max_window_bits=8"), None, "zlib cannot");
        assert_eq!(
            answer("permessage-deflate; server_max_window_bits=8, permessage-deflate").as_deref(),
            Some(PLAIN),
            "the fallback of section 7.1.3"
        );
    }

    #[test]
    fn offers_we_decline() {
        for offers in [
            "",
            ",",
            ";",
            "permessage-bzip2",
            "permessage-deflate;",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover=",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; server_max_window_bits=+10",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=10; server_max_window_bits=10",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "\"permessage-deflate",
        ] {
            assert_eq!(answer(offers), None, "{offers}");
        }
    }
}
