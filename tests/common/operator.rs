//! The client of an operator, at the admin listener.

#![allow(
    dead_code,
    clippy::unwrap_used,
    missing_docs,
    unreachable_pub,
    reason = "each test uses a part of it; a test that cannot get what it needs has failed"
)]

use std::fmt::Write as _;
use std::net::SocketAddr;

use serde_json::Value;

use super::{Client, Running};

/// The client of an operator.
pub struct Operator(pub SocketAddr);

impl Operator {
    pub fn of(running: &Running) -> Self {
        Self(*running.at.last().unwrap())
    }

    pub fn raw(&self, method: &str, path: &str, fields: &str, body: &str) -> (u16, String) {
        let mut client = Client::connect(self.0);
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}");
        if !body.is_empty() {
            write!(request, "Content-Length: {}\r\n", body.len()).unwrap();
        }
        write!(request, "\r\n{body}").unwrap();
        client.send_raw(request.as_bytes());
        let all = String::from_utf8(client.exactly(usize::MAX)).unwrap();
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, body) = self.raw(method, path, "Content-Type: application/json\r\n", body);
        (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}")))
    }

    pub fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    pub fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask("POST", path, &body.to_string());
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// Refused with this status, code, and these words in its message.
    pub fn refused(&self, method: &str, path: &str, body: &str, expected: (u16, &str, &str)) {
        let (status, answer) = self.ask(method, path, body);
        let (code, words) = (answer["error"]["code"].as_str(), answer["error"]["message"].as_str().unwrap());
        assert_eq!((status, code), (expected.0, Some(expected.1)), "{method} {path} {body}: {answer}");
        assert!(words.contains(expected.2), "{method} {path} {body}: {answer}");
    }

    /// All connections that match, by pages of `limit`.
    pub fn all(&self, query: &str, limit: usize) -> Vec<Value> {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = self.get(&format!("/api/connections?limit={limit}{query}{cursor}"));
            let connections = page["connections"].as_array().unwrap();
            assert!(connections.len() <= limit);
            found.extend(connections.iter().cloned());
            let Some(next) = page["next"].as_str() else { return found };
            cursor = format!("&cursor={next}");
        }
    }
}

pub fn id(connection: &Value) -> String {
    connection["id"].as_str().unwrap().to_owned()
}
