//! A NATS that speaks TLS, and one that wants a JWT signed by the node's own key.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use holdline::cluster::port::{Inbound, NodeId};
use holdline::mailbox::Doorbell;
use holdline::metrics::ClusterMetrics;
use holdline::server::cluster::{ClusterError, Clustering, Settings};
use nkeys::KeyPair;
use serde_json::{Value, json};

use super::nats::Nats;
use super::node::{Node, settings};

/// A file of this process, which goes with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn with(name: &str, text: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why a node does not start.
fn refusal(settings: Settings) -> String {
    let metrics = Arc::<ClusterMetrics>::default();
    match Clustering::start(settings, NodeId(9), &[Arc::<Doorbell>::default()], metrics).map(drop) {
        Err(error @ ClusterError::Refused { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// Two nodes, and a message of a durable topic between them.
fn works(settings: &Settings, on: &str) {
    let node = |number| {
        let mut node = Node::with(number, settings.clone());
        node.until("a connection", |what| matches!(what, Inbound::Connected { .. }).then_some(()));
        node
    };
    let (mut a, mut b) = (node(1), node(2));
    b.join(on);
    a.append(1, on, "hello", None);
    a.appended(1).unwrap();
    assert_eq!(b.placed(), (1, "hello".to_owned()));
}

#[test]
fn tls_is_spoken_with_whom_the_node_trusts_and_nobody_else() {
    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let certificate = Scratch::with("nats.pem", &made.cert.pem());
    let key = Scratch::with("nats.key", &made.signing_key.serialize_pem());
    let nats = Nats::start_with(&["--tls", "--tlscert", certificate.path(), "--tlskey", key.path()]);
    // Whether the URL says so or NATS does.
    for (scheme, on) in [("tls://", "orders/1"), ("nats://", "orders/2")] {
        let stranger = settings(&nats.url.replace("nats://", scheme));
        works(&Settings { ca_file: Some(certificate.0.clone()), ..stranger.clone() }, on);
        let line = refusal(stranger);
        assert!(line.contains("cluster.ca_file"), "{line}");
    }
    // Who asks for TLS does not do without.
    let plain = Nats::start();
    let line = refusal(settings(&plain.url.replace("nats://", "tls://")));
    assert!(line.contains("TLS") || line.contains("tls"), "{line}");
}

/// A JWT as NATS has them (ADR-14): signed with an Ed25519 key.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name, "sub": subject.public_key(), "nats": nats,
    });
    let signed = format!("{}.{}", encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"})), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn credentials(account: &KeyPair, user: &KeyPair) -> String {
    let claims = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
    format!(
        "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        jwt(account, user, "node", &claims),
        user.seed().unwrap()
    )
}

#[test]
fn a_node_shows_its_credentials() {
    let (operator, system, account) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let operator_claims = json!({"type": "operator", "version": 2, "system_account": system.public_key()});
    let account_claims = |store: i64| {
        json!({"type": "account", "version": 2, "limits": {
            "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1, "leaf": -1,
            "mem_storage": store, "disk_storage": store, "streams": store, "consumer": store,
        }})
    };
    let configuration = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  {}: {}\n}}\n",
        jwt(&operator, &operator, "operator", &operator_claims),
        system.public_key(),
        system.public_key(),
        jwt(&operator, &system, "system", &account_claims(0)),
        account.public_key(),
        jwt(&operator, &account, "nodes", &account_claims(-1)),
    );
    let configuration = Scratch::with("nats.conf", &configuration);
    let nats = Nats::start_with(&["--config", configuration.path()]);
    let good = Scratch::with("good.creds", &credentials(&account, &KeyPair::new_user()));
    works(&Settings { credentials: Some(good.0.clone()), ..settings(&nats.url) }, "orders/1");
    // Of an account that nobody knows, and none at all.
    let bad = Scratch::with("bad.creds", &credentials(&KeyPair::new_account(), &KeyPair::new_user()));
    for credentials in [Some(bad.0.clone()), None] {
        let line = refusal(Settings { credentials, ..settings(&nats.url) });
        assert!(line.contains("cluster.credentials") && !line.contains("eyJ"), "{line}");
    }
}
