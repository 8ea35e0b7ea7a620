//! A message as one line of JSON, RFC 8259:
//!
//! ```text
//! {"topic":"t","epoch":1732795000000,"offset":7,"time":1732795012345,"text":"hi"}
//! {"topic":"t","epoch":1732795000000,"offset":8,"time":1732795012346,"base64":"/w=="}
//! {"topic":"t","epoch":1732795000000,"offset":8,"reset":true}
//! ```
//!
//! `time` is in milliseconds of Unix time. The last line is a reset: what lies before that offset, and was asked for, is
//! lost.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Kind;

/// Where something stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The topic's name.
    pub topic: &'a str,
    /// Which past of the topic.
    pub epoch: u64,
    /// The place in it.
    pub offset: u64,
}

impl Place<'_> {
    /// Appends the object's beginning: its brace and the fields of the place.
    pub fn open(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"topic\":");
        write_string(self.topic, out);
        out.extend_from_slice(b",\"epoch\":");
        write_number(self.epoch, out);
        out.extend_from_slice(b",\"offset\":");
        write_number(self.offset, out);
    }

    /// Appends a message that stands there.
    pub fn message(&self, time_ms: u64, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
        out.reserve(96 + self.topic.len() + payload.len() + payload.len() / 2);
        self.open(out);
        out.extend_from_slice(b",\"time\":");
        write_number(time_ms, out);
        out.push(b',');
        write_payload(kind, payload, out);
        out.push(b'}');
    }

    /// Appends that what was asked for before this place is lost.
    pub fn reset(&self, out: &mut Vec<u8>) {
        self.open(out);
        out.extend_from_slice(b",\"reset\":true}");
    }
}

/// Adds the trace that a message belongs to, to its JSON at the end of `out`.
pub fn write_trace(parent: &str, state: &str, out: &mut Vec<u8>) {
    if out.pop_if(|last| *last == b'}').is_none() {
        return;
    }
    out.extend_from_slice(b",\"traceparent\":");
    write_string(parent, out);
    if !state.is_empty() {
        out.extend_from_slice(b",\"tracestate\":");
        write_string(state, out);
    }
    out.push(b'}');
}

/// Appends a message that stands nowhere: what a server says to one client alone.
pub fn write_aside(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    out.push(b'{');
    write_payload(kind, payload, out);
    out.push(b'}');
}

/// Appends an error and a line break: `{"error":{"code","message"}}`.
pub fn write_error(code: &str, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"error\":{\"code\":");
    write_string(code, out);
    out.extend_from_slice(b",\"message\":");
    write_string(message, out);
    out.extend_from_slice(b"}}\n");
}

/// Appends `"text":"..."`, or `"base64":"..."` for what is no text.
pub fn write_payload(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let text = if kind == Kind::Text { simdutf8::basic::from_utf8(payload).ok() } else { None };
    if let Some(text) = text {
        out.extend_from_slice(b"\"text\":");
        write_string(text, out);
        return;
    }
    out.extend_from_slice(b"\"base64\":\"");
    let start = out.len();
    out.resize(start + payload.len().div_ceil(3) * 4, 0);
    // The room is exactly what padded base64 takes.
    let written = STANDARD.encode_slice(payload, &mut out[start..]).unwrap_or(0);
    out.truncate(start + written);
    out.push(b'"');
}

/// Appends `text` as a string, RFC 8259 section 7.
pub fn write_string(text: &str, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20 | 0x7f);
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let plain = rest.iter().take_while(|byte| is_plain(byte)).count();
        out.extend_from_slice(&rest[..plain]);
        let Some(&special) = rest.get(plain) else { break };
        match special {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', special]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            other => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(other >> 4)], HEX[usize::from(other & 15)]]);
            }
        }
        rest = &rest[plain + 1..];
    }
    out.push(b'"');
}

/// Appends a number's decimal digits, without the machinery of `format!`.
pub fn write_number(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// The name of another field of an object, which is none that needs escapes.
pub fn write_field(name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// Another field with a number.
pub fn write_number_field(name: &str, value: u64, out: &mut Vec<u8>) {
    write_field(name, out);
    write_number(value, out);
}

/// Another field with a string.
pub fn write_string_field(name: &str, value: &str, out: &mut Vec<u8>) {
    write_field(name, out);
    write_string(value, out);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn message(kind: Kind, payload: &[u8]) -> serde_json::Value {
        let mut out = Vec::new();
        Place { topic: "a\"b", epoch: 5, offset: u64::MAX }.message(12, kind, payload, &mut out);
        assert!(!out.contains(&b'\n') && !out.contains(&b'\r'), "one line");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_message_is_read_back() {
        let value = message(Kind::Text, "ü \"\\\n\r\t\u{1}\u{7f}".as_bytes());
        let expected = serde_json::json!({
            "topic": "a\"b", "epoch": 5, "offset": u64::MAX, "time": 12, "text": "ü \"\\\n\r\t\u{1}\u{7f}",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn what_is_no_text_is_base64() {
        for (kind, payload, base64) in [
            (Kind::Binary, &b"\xff"[..], "/w=="),
            (Kind::Binary, b"", ""),
            (Kind::Binary, b"abc", "YWJj"),
            (Kind::Text, b"\xc3", "ww=="),
        ] {
            let value = message(kind, payload);
            assert_eq!((value["base64"].as_str(), value.get("text")), (Some(base64), None));
        }
    }

    #[test]
    fn a_reset_and_an_aside() {
        let mut out = Vec::new();
        Place { topic: "t", epoch: 1, offset: 0 }.reset(&mut out);
        assert_eq!(out, b"{\"topic\":\"t\",\"epoch\":1,\"offset\":0,\"reset\":true}");
        out.clear();
        write_aside(Kind::Text, b"hi", &mut out);
        assert_eq!(out, b"{\"text\":\"hi\"}");
    }

    proptest! {
        #[test]
        fn any_text_and_any_number_come_back(text: String, number: u64) {
            let (mut string, mut digits) = (Vec::new(), Vec::new());
            write_string(&text, &mut string);
            write_number(number, &mut digits);
            prop_assert_eq!(serde_json::from_slice::<String>(&string).unwrap(), text);
            prop_assert_eq!(str::from_utf8(&digits).unwrap(), number.to_string());
        }
    }
}
