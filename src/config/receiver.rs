//! How hooks are written: who receives them, which secrets sign them, which events they are.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::credentials::{path_of, text_of};
use super::problem::{Wrong, quote};
use super::value::{Format, Raw, each_item};
use super::{Authorities, HookKind, HookKinds, HookSecrets, HookUrl};
use crate::access::FromFile;

/// A URL, or none.
pub(super) struct Receiver;

impl Format for Receiver {
    type Value = Option<HookUrl>;

    fn read(raw: &Raw<'_>) -> Result<Option<HookUrl>, Wrong> {
        let mend = "write a URL that takes POST requests, such as https://app.example/hooks";
        match raw.text(mend)? {
            "" => Ok(None),
            // It is not quoted: its query may be a secret.
            text => text.parse().map(Some).map_err(|what| Wrong::new(what, mend)),
        }
    }

    fn write(value: &Option<HookUrl>) -> String {
        quote(&value.as_ref().map_or_else(String::new, ToString::to_string))
    }
}

/// A subject of NATS, or none.
pub(super) struct Subject;

impl Format for Subject {
    type Value = Option<Box<str>>;

    fn read(raw: &Raw<'_>) -> Result<Option<Box<str>>, Wrong> {
        let mend = "write a subject without wildcards, such as events.edge";
        let text = raw.text(mend)?;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"*>\"\\".contains(&byte);
        let is_token = |token: &str| !token.is_empty() && token.bytes().all(is_plain);
        // Those that begin with a dollar sign are NATS' own.
        let is_subject = text.len() <= 255 && !text.starts_with('$') && text.split('.').all(is_token);
        match text {
            "" => Ok(None),
            text if is_subject => Ok(Some(text.into())),
            text => Err(Wrong::new(format!("is {}, which is no subject", quote(text)), mend)),
        }
    }

    fn write(value: &Option<Box<str>>) -> String {
        quote(value.as_deref().unwrap_or_default())
    }
}

/// Reads a file, or none, and what it holds.
fn from_file<T: Default>(
    raw: &Raw<'_>,
    read: impl FnOnce(&str) -> Result<T, String>,
    mend: &str,
) -> Result<FromFile<T>, Wrong> {
    let path = raw.text(mend)?;
    if path.is_empty() {
        return Ok(FromFile::default());
    }
    let content = text_of(Path::new(path)).and_then(|text| read(&text));
    let content = content.map_err(|what| Wrong::new(format!("is {}, which {what}", quote(path)), mend))?;
    Ok(FromFile { path: Some(path.into()), content: Arc::new(content) })
}

/// Secrets in a file, or none.
pub(super) struct SecretFile;

impl Format for SecretFile {
    type Value = FromFile<HookSecrets>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "name a file with a secret in a line of its own, such as `openssl rand -hex 32` prints";
        from_file(raw, HookSecrets::from_lines, mend)
    }

    fn write(value: &Self::Value) -> String {
        path_of(value)
    }
}

/// Certificates in a file, or none.
pub(super) struct CaFile;

impl CaFile {
    const MAX: usize = 1024;

    fn certificates(text: &str) -> Result<Authorities, String> {
        let mut all = Authorities::new();
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()).take(Self::MAX + 1) {
            let certificate = certificate.map_err(|error| format!("is no PEM: {error}"))?;
            all.push(certificate.as_ref().into());
        }
        match all.len() {
            0 => Err("has no certificate in it".to_owned()),
            count if count > Self::MAX => Err(format!("has more than {} certificates", Self::MAX)),
            _ => Ok(all),
        }
    }
}

impl Format for CaFile {
    type Value = FromFile<Authorities>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        from_file(raw, Self::certificates, "name a file with certificates of authorities in PEM")
    }

    fn write(value: &Self::Value) -> String {
        path_of(value)
    }
}

/// Kinds of events.
pub(super) struct Kinds;

impl Format for Kinds {
    type Value = HookKinds;

    fn read(raw: &Raw<'_>) -> Result<HookKinds, Wrong> {
        let mend = format!("write a list of some of {}", HookKind::NAMES.join(", "));
        let kinds = each_item(raw.list(&mend)?, |name| {
            HookKind::from_name(name).ok_or_else(|| Wrong::new(format!("has {}", quote(name)), mend.as_str()))
        })?;
        Ok(kinds.into_iter().fold(HookKinds::NONE, HookKinds::with))
    }

    fn write(value: &HookKinds) -> String {
        let names: Vec<_> = value.iter().map(|kind| quote(kind.name())).collect();
        format!("[{}]", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use crate::config::{Config, HookKind, Loader, effective};

    fn load(text: &str) -> Result<Config, String> {
        let mut loader = Loader::new();
        loader.text("h.toml".as_ref(), text);
        loader.finish().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn a_receiver_and_what_it_is_told() {
        let config = load(
            "[hooks]\nurl = \"https://app.example/in?key=secret-key\"\nevents = [\"publish\", \"vacated\"]\n\
             topics = [\"room/*\"]\npayload = true\nsecret_file = \"tests/keys/hook-secret\"\nca_file = \"tests/keys/hook-ca.pem\"\n",
        );
        let config = config.unwrap();
        assert_eq!(config.hooks.events.iter().collect::<Vec<_>>(), [HookKind::Publish, HookKind::Vacated]);
        assert!(config.hooks.payload && config.hooks.covers("room/7") && !config.hooks.covers("news"));
        assert_eq!((config.hooks.secrets.content.iter().count(), config.hooks.ca.content.len()), (1, 1));
        let secret = std::fs::read_to_string("tests/keys/hook-secret").unwrap();
        let shown: Vec<_> = effective(&config).filter(|(key, _)| key.starts_with("hooks.")).collect();
        let all = format!("{shown:?} {:?}", config.hooks);
        assert!(all.contains("https://app.example/in?(not shown)") && all.contains("hook-secret"), "{all}");
        assert!(!all.contains("secret-key") && !all.contains(secret.trim()), "{all}");
    }

    #[test]
    fn what_is_wrong_is_told_without_secrets() {
        for (line, said) in [
            (
                "url = \"ftp://x?key=7\"",
                "hooks.url begins with neither https:// nor http://, h.toml line 2: write a URL",
            ),
            ("events = [\"conect\"]", "hooks.events has \"conect\", h.toml line 2: write a list of some of connect, "),
            ("secret_file = \"/nowhere\"", "hooks.secret_file is \"/nowhere\", which cannot be read: "),
            (
                "secret_file = \"tests/keys/hook-ca.pem\"",
                "hooks.secret_file is \"tests/keys/hook-ca.pem\", which has 27 bytes in line 1",
            ),
            (
                "ca_file = \"tests/keys/hook-secret\"",
                "hooks.ca_file is \"tests/keys/hook-secret\", which has no certificate",
            ),
            ("batch_max = 0", "hooks.batch_max is 0, below 1"),
            ("nats = \"events.*\"", "hooks.nats is \"events.*\", which is no subject, h.toml line 2: write a subject"),
            (
                "nats = \"events\"",
                "hooks.nats is set, and there is no NATS, h.toml line 2: name its servers in cluster.nats",
            ),
            (
                "url = \"http://a\"\nnats = \"events\"\n[cluster]\nnats = \"nats://a:1\"",
                "hooks.nats is set, and so is hooks.url, h.toml line 3: leave one of them out",
            ),
            (
                "batch_delay = \"10s\"\nretry_max_age = \"5s\"",
                "hooks.batch_delay is above hooks.retry_max_age, so that events would be too old before they are told",
            ),
        ] {
            let text = load(&format!("[hooks]\n{line}\n")).unwrap_err();
            assert!(text.starts_with(said), "{text}");
        }
    }
}
