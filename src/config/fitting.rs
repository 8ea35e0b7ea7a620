//! What has to fit together: settings that are right each by itself and wrong beside each other.

use std::net::SocketAddr;
use std::path::Path;

use super::problem::{Wrong, quote};
use super::topics::{Publishers, TopicRule, TopicRules, TopicSection};
use super::{ClientCertificates, Config};
use crate::access::CHECKS_MAX;

/// Finds it: the key at fault, and what is wrong.
pub(super) fn check(config: &Config) -> Vec<(&'static str, Wrong)> {
    let mut wrongs = Vec::new();
    let limits = &config.limits;
    if limits.queue_bytes_total_max < limits.queue_bytes_max {
        let what = "is below limits.queue_bytes_max, so that no single queue could fill";
        wrongs.push(("limits.queue_bytes_total_max", Wrong::new(what, "raise it or lower limits.queue_bytes_max")));
    }
    wrongs.extend(unwritten(config));
    wrongs.extend(exposed(config));
    wrongs.extend(check_access(config));
    if let Some((algorithm, keys)) = config.access.untried() {
        let what =
            format!("has {keys} keys for {algorithm} without a name, together with those of auth.jwks and auth.secret");
        let mend = format!("keep {CHECKS_MAX} at most, or name them: auth.jwks has a kid for each");
        wrongs.push(("auth.public_keys", Wrong::new(what, mend)));
    }
    wrongs.extend(check_tls(config));
    if config.journal.bytes_max < config.journal.segment_bytes.saturating_mul(4) {
        let what = "is below 4 times journal.segment_bytes, so that files would go before their time";
        wrongs.push(("journal.bytes_max", Wrong::new(what, "raise it or lower journal.segment_bytes")));
    }
    wrongs.extend(outlived(config));
    wrongs.extend(check_hooks(config));
    wrongs.extend(crossed(config));
    wrongs
}

/// Topics that are to keep messages for longer than the journal does.
fn outlived(config: &Config) -> Option<(&'static str, Wrong)> {
    config.journal.dir.as_ref()?;
    let is_outlived = |rule: &TopicRule| {
        let has_stream = rule.shared && config.cluster.is_set();
        rule.durable && !has_stream && rule.history.age_max > config.journal.age_max
    };
    let rest = TopicRules::new(config).rest();
    let section = config.topics.iter().find(|section| is_outlived(&section.over(rest)));
    let which = match section {
        _ if is_outlived(&rest) => "history.age_max".to_owned(),
        Some(TopicSection { pattern, age_max, .. }) => match age_max {
            Some(_) => format!("topics.{}.history.age_max", quote(pattern.as_str())),
            None => format!("history.age_max, which topics.{} follows", quote(pattern.as_str())),
        },
        None => return None,
    };
    let what = format!("is below {which}, so that messages of durable topics would go before their time");
    Some(("journal.age_max", Wrong::new(what, "raise it, or keep those for less long")))
}

/// Where the keys that are meant may be named.
const KEYS: &str = "auth.jwks, auth.public_keys, auth.secret or auth.api_keys";

/// What is said about clients that show something where there is nothing that they could show.
fn check_access(config: &Config) -> Vec<(&'static str, Wrong)> {
    let access = &config.access;
    if access.has_keys() {
        return Vec::new();
    }
    let terms = [
        ("auth.issuers", !access.issuers.is_empty()),
        ("auth.audiences", !access.audiences.is_empty()),
        ("auth.subscribe", !access.subscribe.is_empty()),
        ("auth.publish", !access.publish.is_empty()),
    ];
    let without_keys = |(key, _): (&'static str, bool)| {
        let wrong =
            Wrong::new("is set, and there is no key that tokens could be signed with", format!("name one with {KEYS}"));
        (key, wrong)
    };
    let mut wrongs: Vec<_> = terms.into_iter().filter(|(_, is_set)| *is_set).map(without_keys).collect();
    let mend = || format!("name keys with {KEYS}, or write anyone or nobody");
    if config.publish == Publishers::Authenticated {
        let what = "is authenticated, and there is no key that a client could show, so that nobody could publish";
        wrongs.push(("topics.publish", Wrong::new(what, mend())));
    }
    let is_closed = |section: &&TopicSection| section.publish == Some(Publishers::Authenticated);
    if let Some(section) = config.topics.iter().find(is_closed) {
        let which = quote(section.pattern.as_str());
        let what = format!(
            "is not set, nor are other keys, and topics.{which}.publish is authenticated: nobody could publish"
        );
        wrongs.push(("auth.api_keys", Wrong::new(what, mend())));
    }
    wrongs
}

/// Topics that are to be durable without a place to write them down: neither a journal nor a cluster that they are shared in.
fn unwritten(config: &Config) -> Option<(&'static str, Wrong)> {
    if config.journal.dir.is_some() {
        return None;
    }
    let has_stream = |shared: bool| shared && config.cluster.is_set();
    let is_unwritten = |section: &&TopicSection| {
        section.durable.unwrap_or(config.durable) && !has_stream(section.shared.unwrap_or(config.shared))
    };
    let section = config.topics.iter().find(is_unwritten);
    let (which, value) = match section {
        _ if config.durable && !has_stream(config.shared) => ("topics.durable".to_owned(), true),
        Some(TopicSection { pattern, durable, .. }) => {
            let key = if *durable == Some(true) { "durable" } else { "shared" };
            (format!("topics.{}.{key}", quote(pattern.as_str())), *durable == Some(true))
        }
        None => return None,
    };
    let what = format!("is not set, and {which} is {value}: there is nowhere to write its messages down");
    let stream = if config.cluster.is_set() { ", or share its topics" } else { "" };
    let mend = format!("name a directory for the journal{stream}, or leave {which} out");
    Some(("journal.dir", Wrong::new(what, mend)))
}

/// A receiver of events that would hear nothing, or of which there would be two.
fn check_hooks(config: &Config) -> Vec<(&'static str, Wrong)> {
    let mut wrongs = Vec::new();
    if config.hooks.batch_delay > config.hooks.retry_max_age {
        let what = "is above hooks.retry_max_age, so that events would be too old before they are told";
        wrongs.push(("hooks.batch_delay", Wrong::new(what, "lower it or raise hooks.retry_max_age")));
    }
    if config.hooks.nats.is_some() && config.hooks.url.is_some() {
        let mend = "leave one of them out: events have one receiver";
        wrongs.push(("hooks.nats", Wrong::new("is set, and so is hooks.url", mend)));
    } else if config.hooks.nats.is_some() && !config.cluster.is_set() {
        wrongs.push(("hooks.nats", Wrong::new("is set, and there is no NATS", "name its servers in cluster.nats")));
    }
    wrongs
}

/// Listeners that are in each other's way.
fn crossed(config: &Config) -> Vec<(&'static str, Wrong)> {
    let mut wrongs = Vec::new();
    for (index, listen) in config.listeners.iter().enumerate() {
        if listen.proxy && config.proxies.0.is_empty() && listen.address.path().is_none() {
            let wrong = Wrong::new("has proxy=on, and no proxy is trusted", "name their networks in proxy.trusted");
            wrongs.push(("listen", wrong.of_item(index)));
        }
        let taken = config.listeners[..index].iter().any(|other| other.address == listen.address);
        if taken && !listen.address.is_any_port() {
            let its_own = if listen.address.path().is_some() { "path" } else { "port" };
            let wrong =
                Wrong::new(format!("has {} twice", listen.address), format!("give each listener its own {its_own}"));
            wrongs.push(("listen", wrong.of_item(index)));
        }
        if config.admin.is_some() && listen.address.ip() == config.admin && !listen.address.is_any_port() {
            let what = format!("is {}, where clients connect", listen.address);
            wrongs.push(("admin", Wrong::new(what, "give it its own port, or off")));
        }
    }
    let is_upgrade = |path: &&Path| config.listeners.iter().any(|listen| listen.address.path() == Some(*path));
    if let Some(path) = config.upgrade_socket.as_deref().filter(is_upgrade) {
        let what = format!("is {}, where clients connect", path.display());
        wrongs.push(("upgrade.socket", Wrong::new(what, "give it its own path")));
    }
    wrongs
}

/// Certificates, keys and listeners that do not fit together. What is in the files is looked at when they are served.
fn check_tls(config: &Config) -> Vec<(&'static str, Wrong)> {
    let tls = &config.tls;
    let mut wrongs = Vec::new();
    if tls.certificates.is_empty()
        && let Some(index) = config.listeners.iter().position(|listen| listen.tls)
    {
        let mend = "name files with tls.certificates and tls.keys, or --tls-certificate and --tls-key";
        wrongs.push(("listen", Wrong::new("speaks TLS, and there is no certificate", mend).of_item(index)));
    }
    if wrongs.is_empty() && !config.listeners.iter().any(|listen| listen.tls) {
        // What nobody uses is not looked at.
        return wrongs;
    }
    let (certificates, keys) = (tls.certificates.len(), tls.keys.len());
    if keys != 0 && keys != certificates {
        let mend = "name one key for each certificate, in their order, or none where they are in the same files";
        wrongs.push(("tls.keys", Wrong::new(format!("has {keys} files for {certificates} certificates"), mend)));
    }
    if tls.client_certificates != ClientCertificates::Off && tls.client_ca.is_none() {
        let what = format!("is {}, and nobody vouches for clients", tls.client_certificates.name());
        wrongs.push(("tls.client_certificates", Wrong::new(what, "name a file with tls.client_ca")));
    }
    wrongs
}

/// Listeners that whoever is on the network could use, where nobody is asked who they are.
fn exposed(config: &Config) -> Vec<(&'static str, Wrong)> {
    if config.insecure {
        return Vec::new();
    }
    let what = |address: &dyn std::fmt::Display| {
        format!("is {address}, open to other machines, and no authentication is configured")
    };
    let mut wrongs = Vec::new();
    let clients_are_asked = config.access.is_on();
    for (index, listen) in config.listeners.iter().enumerate() {
        if listen.address.is_remote() && !clients_are_asked {
            let mend = "configure [auth], listen on 127.0.0.1, or say --insecure (insecure = true) if all may come";
            wrongs.push(("listen", Wrong::new(what(&listen.address), mend).of_item(index)));
        }
    }
    let is_exposed = |address: &SocketAddr| !address.ip().is_loopback() && !config.access.guards_admin();
    if let Some(address) = config.admin.filter(is_exposed) {
        let what = format!("is {address}, open to other machines, and no API key with admin = true is configured");
        let mend = "add one to auth.api_keys, serve it on 127.0.0.1, or say --insecure (insecure = true)";
        wrongs.push(("admin", Wrong::new(what, mend)));
    }
    wrongs
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Loader;

    #[test]
    fn defaults_keep_the_rules_they_stand_beside() {
        assert!(check(&Config::default()).is_empty());
    }

    #[test]
    fn the_journal_keeps_messages_for_as_long_as_histories() {
        let said = |text: &str| {
            let mut loader = Loader::new();
            let journal = "[journal]\ndir = \"/tmp/journal\"\nage_max = \"1h\"\n";
            loader.text(Path::new("h.toml"), &format!("{journal}{text}"));
            loader.finish().map_or_else(|problems| problems.iter().map(ToString::to_string).collect(), |_| Vec::new())
        };
        assert_eq!(said("[topics.\"a/**\"]\ndurable = true\nhistory.age_max = \"1h\"\n"), [""; 0]);
        assert_eq!(said("[topics.\"a/**\"]\nhistory.age_max = \"2h\"\n"), [""; 0], "not durable");
        assert_eq!(
            said("[topics.\"a/**\"]\ndurable = true\nhistory.age_max = \"7d\"\n"),
            [
                "journal.age_max is below topics.\"a/**\".history.age_max, so that messages of durable topics would go before their \
              time, h.toml line 3: raise it, or keep those for less long"
            ]
        );
        let follows = said("[history]\nage_max = \"2h\"\n[topics.\"a/**\"]\ndurable = true\n");
        assert!(follows[0].contains("is below history.age_max, which topics.\"a/**\" follows, so"), "{follows:?}");
        let all = said("[history]\nage_max = \"2h\"\n[topics]\ndurable = true\n");
        assert!(all[0].contains("is below history.age_max, so"), "{all:?}");
    }

    #[test]
    fn what_is_said_of_those_who_show_something_needs_keys() {
        let load = |text: &str| {
            let mut loader = Loader::new();
            loader.text("h.toml".as_ref(), text);
            loader.finish().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let secret = "secret = \"a secret of thirty-two bytes or more\"\n";
        for (rest, said) in [
            ("[auth]\nissuers = [\"a\"]\n", "auth.issuers is set, and there is no key"),
            ("[auth]\naudiences = [\"a\"]\n", "auth.audiences is set, and there is no key"),
            ("[auth]\nsubscribe = [\"a\"]\n", "auth.subscribe is set, and there is no key"),
            ("[auth]\nsecret = \"\"\npublish = [\"a\"]\n", "auth.publish is set, and there is no key"),
            ("[topics]\npublish = \"authenticated\"\n[auth]\n", "topics.publish is authenticated, and there is no key"),
            (
                "[topics.\"a/*\"]\npublish = \"authenticated\"\n[auth]\n",
                "auth.api_keys is not set, nor are other keys, and topics.\"a/*\".publish is authenticated",
            ),
        ] {
            let wrongs = load(rest).unwrap_err();
            assert!(wrongs.len() == 1 && wrongs[0].starts_with(said), "{wrongs:?}");
            if !rest.contains("secret") {
                assert!(load(&format!("{rest}{secret}")).is_ok(), "{rest}");
            }
        }
        assert!(load("[auth]\nanonymous_subscribe = [\"public/*\"]\n").unwrap().access.is_on());
    }

    #[test]
    fn a_variable_that_should_have_a_key_is_not_empty() {
        let mut loader = Loader::new();
        loader.environment([("HOLDLINE_AUTH_SECRET".into(), "".into())]);
        let said = loader.finish().unwrap_err()[0].to_string();
        assert!(said.starts_with("auth.secret is empty, environment variable HOLDLINE_AUTH_SECRET"), "{said}");
    }

    #[test]
    fn nobody_is_let_in_from_the_network_unless_that_is_said() {
        let load = |admin: &str, insecure: &str| {
            let mut loader = Loader::new();
            loader.flags("--listen", "listen", &["http://127.0.0.1:1", "tcp://0.0.0.0:2"].map(str::to_owned));
            loader.flag("--admin", "admin", admin);
            loader.flag("--insecure", "insecure", insecure);
            loader.finish().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let said = load("[::]:3", "false").unwrap_err();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].contains("is 0.0.0.0:2, open to other machines") && said[0].contains("flag --listen"),
            "{said:?}"
        );
        assert!(said[1].contains("is [::]:3") && said[1].contains("--insecure"), "{said:?}");
        assert_eq!(load("off", "false").unwrap_err().len(), 1);
        assert!(load("[::]:3", "true").is_ok());
    }
}
