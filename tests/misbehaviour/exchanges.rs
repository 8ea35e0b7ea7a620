//! Requests one after the other on a connection: what keeps it, what ends it, and peers that are too slow for it.

use std::io::{ErrorKind, Write};
use std::thread;
use std::time::{Duration, Instant};

use holdline::close::CloseReason::{HandshakeTimeout, IdleTimeout, SlowConsumer};
use holdline::rule::Limit;

use crate::beside_a_neighbour;
use crate::common::{Client, PATIENCE, until};

const GET: &str = "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn post(fields: &str, body: &str) -> String {
    format!("POST /echo HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n{body}")
}

fn ask(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n")
}

/// A response with its body, but for one to HEAD.
struct Response {
    status: u16,
    head: String,
    body: Vec<u8>,
}

fn response(client: &mut Client, to_head: bool) -> Response {
    let mut head = String::new();
    while let Some(line) = client.line().filter(|line| line != "\r") {
        head.push_str(&line);
        head.push('\n');
    }
    let status = head.split(' ').nth(1).expect("a response before the end").parse().unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")?.trim().parse().ok());
    let body = client.exactly(if to_head { 0 } else { length.unwrap_or(0) });
    Response { status, head, body }
}

#[test]
fn requests_that_do_not_wait_are_answered_in_order() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let chunked = post("Transfer-Encoding: chunked\r\n", "2\r\ntw\r\n1;x=y\r\no\r\n0\r\nX: y\r\n\r\n");
            let all = [
                GET,
                &post("Content-Length: 3\r\nContent-Type: text/html\r\n", "one"),
                &ask("HEAD", "/", ""),
                &chunked,
                &ask("GET", "/nowhere", ""),
                "\r\n",
                &ask("OPTIONS", "*", ""),
                &ask("GET", "http://localhost/demo.css", "Connection: close\r\n"),
                GET,
            ]
            .concat();
            for pieces in [all.len(), 1000, 7, 1] {
                let mut client = running.connect(0);
                for piece in all.as_bytes().chunks(pieces) {
                    client.try_send_raw(piece);
                }
                let page = response(&mut client, false);
                assert_eq!(page.status, 200);
                let one = response(&mut client, false);
                assert_eq!((one.status, &one.body[..]), (200, &b"one"[..]));
                assert!(one.head.contains("Content-Type: application/octet-stream\r\n"), "{}", one.head);
                let head = response(&mut client, true);
                assert!(head.head.contains(&format!("Content-Length: {}\r\n", page.body.len())), "{}", head.head);
                assert_eq!(response(&mut client, false).body, b"two");
                assert_eq!(response(&mut client, false).status, 404);
                let options = response(&mut client, false);
                assert_eq!(options.status, 204);
                assert!(options.head.contains("Allow: GET, HEAD, POST, OPTIONS\r\n"), "{}", options.head);
                let last = response(&mut client, false);
                assert!(last.head.contains("Content-Type: text/css") && last.head.contains("Connection: close\r\n"));
                assert_eq!(client.exactly(usize::MAX), b"", "nothing is answered behind Connection: close");
            }
        },
    );
}

#[test]
fn a_client_that_asks_is_told_to_continue() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let mut client = running.connect(0);
            for body in ["5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n"] {
                client.send_raw(post("Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n", "").as_bytes());
                assert_eq!(client.answer().status, 100);
                client.send_raw(body.as_bytes());
                assert_eq!(client.answer().status, 200);
            }
            client.send_raw(post("Expect: 100-continue\r\nContent-Length: 5\r\n", "hello").as_bytes());
            assert_eq!(client.answer().status, 200, "it did not wait");
            client.send_raw(post("Expect: 100-continue\r\nContent-Length: 5000000\r\n", "").as_bytes());
            assert_eq!(client.answer().status, 413, "it need not send what is not taken");
            client.end();
        },
    );
}

#[test]
fn old_clients_stay_when_they_ask_for_it() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let mut client = running.connect(0);
            client.send_raw(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
            assert!(client.answer().head.contains("Connection: keep-alive\r\n"));
            client.send_raw(b"GET / HTTP/1.0\r\n\r\n");
            assert!(client.answer().head.contains("Connection: close\r\n"));
            client.end();
        },
    );
}

#[test]
fn a_refusal_has_no_body_where_none_is_asked_for() {
    beside_a_neighbour(
        |_| {},
        |running, _| {
            let mut client = running.connect(0);
            client.send_raw(ask("HEAD", "/echo", "").as_bytes());
            let refused = response(&mut client, true);
            assert!(refused.status == 426 && refused.head.contains("Upgrade: websocket"), "{}", refused.head);
            assert_eq!(client.exactly(usize::MAX), b"");
        },
    );
}

#[test]
fn a_connection_has_so_many_requests() {
    beside_a_neighbour(
        |config| config.limits.keep_alive_requests_max = 5,
        |running, _| {
            let mut client = running.connect(0);
            client.send_raw(GET.repeat(9).as_bytes());
            for number in 1..=5 {
                let answer = client.answer();
                assert_eq!(answer.head.contains("Connection: close\r\n"), number == 5, "{number}: {}", answer.head);
            }
            assert_eq!(client.exactly(usize::MAX), b"", "a sixth is not answered");
            assert_eq!(running.count(|shard| shard.struck(Limit::KeepAliveRequestsMax)), 1);
        },
    );
}

const SOON: Duration = Duration::from_millis(500);

fn assert_in_time(took: Duration, least: Duration) {
    assert!(took >= least - Duration::from_millis(200) && took < least + Duration::from_secs(4), "{took:?}");
}

#[test]
fn who_asks_for_nothing_more_is_let_go() {
    beside_a_neighbour(
        |config| config.limits.keep_alive_timeout = SOON,
        |running, neighbour| {
            let mut client = running.connect(0);
            client.send_raw(GET.as_bytes());
            client.answer();
            let began = Instant::now();
            assert_eq!(client.exactly(usize::MAX), b"", "it is not told off");
            assert_in_time(began.elapsed(), SOON);
            assert_eq!(running.closed(IdleTimeout), 1);
            neighbour.is_well();
        },
    );
}

#[test]
fn a_slow_head_is_cut_off_on_a_connection_that_has_had_answers_too() {
    beside_a_neighbour(
        |config| config.limits.handshake_timeout = SOON,
        |running, neighbour| {
            let mut client = running.connect(0);
            client.send_raw(GET.as_bytes());
            client.answer();
            // Longer than a head may take: the time of the next one has not begun.
            thread::sleep(SOON * 2);
            client.send_raw(&GET.as_bytes()[..20]);
            let began = Instant::now();
            assert_eq!(client.answer().status, 408);
            client.end();
            assert_in_time(began.elapsed(), SOON);
            assert_eq!(running.closed(HandshakeTimeout), 1);
            neighbour.is_well();
        },
    );
}

#[test]
fn a_body_that_stops_is_cut_off() {
    beside_a_neighbour(
        |config| config.limits.body_timeout = SOON,
        |running, neighbour| {
            for request in [
                post("Content-Length: 6\r\n", "hello"),
                post("Content-Length: 6\r\n", ""),
                post("Transfer-Encoding: chunked\r\n", "5\r\nhello"),
                post("Expect: 100-continue\r\nContent-Length: 6\r\n", ""),
            ] {
                let began = Instant::now();
                let mut client = running.connect(0);
                client.send_raw(request.as_bytes());
                let status = Some(client.answer().status).filter(|&status| status != 100);
                assert_eq!(status.unwrap_or_else(|| client.answer().status), 408, "{request:?}");
                client.end();
                assert_in_time(began.elapsed(), SOON);
                neighbour.is_well();
            }
            assert_eq!(running.count(|shard| shard.struck(Limit::BodyTimeout)), 4);
        },
    );
}

#[test]
fn a_body_that_drips_is_cut_off_and_one_that_flows_is_not() {
    beside_a_neighbour(
        |config| {
            config.limits.body_rate_min = 1024;
            config.limits.body_timeout = Duration::from_secs(2);
        },
        |running, neighbour| {
            let (mut dripping, mut flowing) = (running.connect(0), running.connect(0));
            dripping.send_raw(post("Content-Length: 100000\r\n", "").as_bytes());
            flowing.send_raw(post("Content-Length: 100000\r\n", "").as_bytes());
            let began = Instant::now();
            let mut sent = 0;
            while running.count(|shard| shard.struck(Limit::BodyRateMin)) == 0 || began.elapsed() < SOON * 13 {
                assert!(began.elapsed() < PATIENCE, "it is never cut off");
                dripping.try_send_raw(b"x");
                flowing.send_raw(&[b'x'; 400]);
                sent += 400;
                neighbour.is_well();
                thread::sleep(Duration::from_millis(100));
            }
            assert_eq!(dripping.answer().status, 408);
            dripping.end();
            flowing.send_raw(&vec![b'x'; 100_000 - sent]);
            assert_eq!(flowing.answer().status, 200);
            assert_eq!(running.count(|shard| shard.struck(Limit::BodyRateMin)), 1);
        },
    );
}

#[test]
fn who_never_reads_its_pages_is_cut_off() {
    beside_a_neighbour(
        |config| {
            config.limits.queue_stall_timeout = SOON;
            // The kernels' buffers take more than a thousand pages.
            config.limits.keep_alive_requests_max = 1_000_000;
        },
        |running, neighbour| {
            let client = Client::with_small_window(running.at[0]);
            client.stream.set_nonblocking(true).unwrap();
            let deadline = Instant::now() + PATIENCE;
            while running.closed(SlowConsumer) == 0 {
                assert!(Instant::now() < deadline, "it is never cut off");
                match (&client.stream).write(GET.as_bytes()) {
                    Ok(taken) if taken == GET.len() => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => neighbour.is_well(),
                    Ok(_) | Err(_) => until("it is cut off", || running.closed(SlowConsumer) > 0),
                }
            }
            assert!(running.count(|shard| shard.queued_bytes.get()) < 1 << 20);
        },
    );
}

#[test]
fn pages_of_other_sites_may_read_what_they_are_allowed_to() {
    beside_a_neighbour(
        |config| config.origins.list.push("https://app.example".to_owned()),
        |running, _| {
            let mut client = running.connect(0);
            let mut head = |method: &str, target: &str, fields: &str| {
                client.send_raw(ask(method, target, fields).as_bytes());
                let response = response(&mut client, method == "HEAD");
                format!("{} {}", response.status, response.head)
            };
            let friend = "Origin: https://app.example\r\n";
            let allowed = "Access-Control-Allow-Origin: https://app.example\r\nVary: Origin\r\n";
            let page = head("GET", "/", friend);
            assert!(
                page.contains(allowed)
                    && page.contains("Access-Control-Expose-Headers: Holdline-Cursor, Retry-After\r\n")
            );
            let asked = head("OPTIONS", "/echo", &format!("{friend}Access-Control-Request-Method: POST\r\n"));
            assert!(asked.starts_with("204 ") && asked.contains(allowed), "{asked}");
            assert!(asked.contains("Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\n"), "{asked}");
            assert!(asked.contains("Access-Control-Allow-Headers: Content-Type, Idempotency-Key, Last-Event-ID"));
            assert!(asked.contains("Access-Control-Max-Age: "), "{asked}");
            assert!(head("POST", "/echo", friend).contains(allowed));
            for own in ["", "Origin: http://localhost\r\n"] {
                for (method, target) in [("GET", "/"), ("POST", "/echo"), ("OPTIONS", "/")] {
                    let answer = head(method, target, own);
                    assert!(answer.starts_with("20") && !answer.contains("Access-Control"), "{answer}");
                }
            }
            let static_page = head("GET", "/demo.css", "Origin: https://evil.example\r\n");
            assert!(static_page.starts_with("200 ") && !static_page.contains("Access-Control"), "{static_page}");
            let refused = head("DELETE", "/", friend);
            assert!(refused.starts_with("405 ") && refused.contains(allowed), "{refused}");
        },
    );
}
