//! Bodies of requests: where they end, how long they may be, who waits to be told to send one.

use super::*;

/// Takes messages, or batches at `/batch`, and gives them back.
struct Bodies;

impl Service for Bodies {
    type Answer = Option<Vec<u8>>;

    fn preflight(&mut self, head: &Head<'_>) -> Result<Preflight, Violation> {
        Ok(match head.path() {
            "/now" => Preflight::Now,
            "/batch" => Preflight::Batch,
            _ => Preflight::Message,
        })
    }

    fn answer(&mut self, _head: &Head<'_>, body: Option<&[u8]>) -> Result<Self::Answer, Violation> {
        Ok(body.map(<[u8]>::to_vec))
    }
}

/// All that comes of these pieces: bodies, whether a client was told to go on, and the violation's status.
fn bodies<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Option<Vec<u8>>>, usize, Option<u16>) {
    let limits = Limits { message_bytes_max: 20, body_bytes_max: 40, ..Limits::default() };
    let (mut tools, mut partials, mut partial) = (Tools::default(), Partials::default(), None);
    let (mut found, mut told) = (Vec::new(), 0);
    for piece in pieces {
        let (mut piece, mut consumed) = (piece.to_vec(), 0);
        while consumed < piece.len() {
            let mut env = Env { limits: &limits, tools: &mut tools, partials: &mut partials };
            match receive(&mut partial, &mut piece[consumed..], &mut env, &mut Bodies) {
                Ok(progress) => {
                    consumed += progress.consumed;
                    told += usize::from(progress.expects);
                    found.extend(progress.outcome);
                }
                Err(violation) => return (found, told, Some(violation.status())),
            }
        }
    }
    (found, told, None)
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

#[test]
fn bodies_come_whole_whatever_the_cuts() {
    let chunked = "Transfer-Encoding: chunked";
    let stream = post("/a", "Content-Length: 5", "hello")
        + &post("/b", chunked, "2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX: y\r\n\r\n")
        + &post("/c", "Content-Length: 0", "")
        + &post("/d", chunked, "0\r\n\r\n")
        + &post("/batch", "Content-Length: 40", &"x".repeat(40))
        + &post("/e", "X: no body", "");
    let expected: Vec<_> = ["hello", "hello", "", "", &"x".repeat(40), ""].map(|body| Some(body.into())).into();
    let bytes = stream.as_bytes();
    assert_eq!(bodies([bytes]), (expected.clone(), 0, None));
    assert_eq!(bodies(bytes.chunks(1)).0, expected);
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        assert_eq!(bodies([first, second]), (expected.clone(), 0, None), "cut at {cut}");
    }
}

#[test]
fn a_body_over_its_limit_is_refused_before_it_is_read() {
    for (request, expected) in [
        (post("/a", "Content-Length: 20", &"x".repeat(20)), None),
        (post("/a", "Content-Length: 21", ""), Some(413)),
        (post("/a", "Content-Length: 18446744073709551615", ""), Some(413)),
        (post("/batch", "Content-Length: 41", ""), Some(413)),
        (post("/a", "Transfer-Encoding: chunked", "15\r\n"), Some(413)),
        (post("/a", "Transfer-Encoding: chunked", "1\r\nx\r\n14\r\n"), Some(413)),
        (post("/a", "Transfer-Encoding: chunked", "ffffffffffffffff\r\n"), Some(413)),
        (post("/a", "Transfer-Encoding: chunked", "x\r\n"), Some(400)),
        (post("/a", "Expect: 200-ok\r\nContent-Length: 5", ""), Some(417)),
        (post("/a", "Expect: 100-continue, x\r\nContent-Length: 5", ""), Some(417)),
        (post("/a", "Expect: 100-continue\r\nContent-Length: 21", ""), Some(413)),
    ] {
        let bytes = request.as_bytes();
        assert_eq!(bodies([bytes]).2, expected, "{request:?}");
        assert_eq!(bodies(bytes.chunks(1)).2, expected, "{request:?}");
    }
}

#[test]
fn who_waits_for_a_continue_is_told_once() {
    let length = post("/a", "Expect: 100-Continue\r\nContent-Length: 5", "");
    let chunked = post("/a", "Expect: 100-continue\r\nTransfer-Encoding: chunked", "");
    let old = "POST /a HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n".to_owned();
    let empty = post("/a", "Expect: 100-continue\r\nContent-Length: 0", "");
    let unread = post("/now", "Expect: 100-continue\r\nContent-Length: 5", "");
    for (head, body, told) in [
        (&length, "hello", 1),
        (&chunked, "5\r\nhello\r\n0\r\n\r\n", 1),
        (&old, "hello", 0),
        (&empty, "", 0),
        (&unread, "", 0),
    ] {
        let (found, count, violation) = bodies([head.as_bytes(), body.as_bytes()]);
        assert_eq!((found.len(), count, violation), (1, told, None), "{head}");
        let at_once = head.to_owned() + body;
        assert_eq!(bodies([at_once.as_bytes()]).1, 0, "it has begun: {head}");
    }
    assert_eq!(bodies([unread.as_bytes()]).0, [None], "a body that is left unread is none");
}
