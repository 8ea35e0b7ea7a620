//! How keys, secrets and what they allow are written. Files are read with the configuration, so that one that cannot be
//! used is an error of its line, and a reload reads them again.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use super::Pattern;
use super::problem::{Wrong, quote};
use super::value::{Format, Raw, each_item};
use crate::access::{ApiKeys, BadKey, FromFile, Grant, Key, KeySet};

/// Bytes of such a file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads a file and what it holds.
fn load<T>(path: &str, read: impl Fn(&str) -> Result<T, BadKey>, mend: &str) -> Result<FromFile<T>, Wrong> {
    let wrong = |what: String| Wrong::new(format!("is {}, which {what}", quote(path)), mend);
    let text = text_of(Path::new(path)).map_err(wrong)?;
    let content = read(&text).map_err(|error| wrong(error.to_string()))?;
    Ok(FromFile { path: Some(path.into()), content: Arc::new(content) })
}

pub(super) fn text_of(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err("is over 1 MiB".to_owned());
    }
    Ok(text)
}

pub(super) fn path_of<T>(file: &FromFile<T>) -> String {
    quote(&file.path.as_deref().map_or_else(String::new, |path| path.display().to_string()))
}

/// A JSON Web Key Set in a file, or none.
pub(super) struct Jwks;

impl Format for Jwks {
    type Value = FromFile<KeySet>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "name a file with a JSON Web Key Set (RFC 7517)";
        let path = raw.text(mend)?;
        if path.is_empty() { Ok(FromFile::default()) } else { load(path, KeySet::from_jwks, mend) }
    }

    fn write(value: &Self::Value) -> String {
        path_of(value)
    }
}

/// Public keys in PEM files.
pub(super) struct PublicKeys;

impl PublicKeys {
    const FILES_MAX: usize = 64;
}

impl Format for PublicKeys {
    type Value = Vec<FromFile<KeySet>>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "write a list of PEM files with a PUBLIC KEY of RSA, P-256 or Ed25519";
        let paths = raw.list(mend)?;
        if paths.len() > Self::FILES_MAX {
            return Err(Wrong::new(format!("has {} files", paths.len()), format!("name {} at most", Self::FILES_MAX)));
        }
        each_item(paths, |path| load(path, KeySet::from_pem, mend))
    }

    fn write(value: &Self::Value) -> String {
        let paths: Vec<_> = value.iter().map(path_of).collect();
        format!("[{}]", paths.join(", "))
    }
}

/// A secret, which is not shown.
pub(super) struct Secret;

impl Format for Secret {
    type Value = Option<Key>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "write 32 random bytes or more, such as `openssl rand -hex 32` prints";
        match raw.text(mend)? {
            "" => Ok(None),
            secret => Key::secret(secret.as_bytes()).map(Some).map_err(|error| Wrong::new(error.to_string(), mend)),
        }
    }

    fn write(value: &Self::Value) -> String {
        quote(if value.is_some() { "(not shown)" } else { "" })
    }
}

/// API keys in a file, or none.
pub(super) struct ApiKeyFile;

impl Format for ApiKeyFile {
    type Value = FromFile<ApiKeys>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "name a TOML file of [[key]] tables with name, key or sha256, subscribe, publish and admin";
        let path = raw.text(mend)?;
        if path.is_empty() {
            return Ok(FromFile::default());
        }
        let file = load(path, ApiKeys::from_toml, mend)?;
        if file.content.is_empty() {
            // Its last key may have been revoked: that must not let in everybody.
            let mend = "leave one key in it, such as one that may do nothing, or leave auth.api_keys out";
            return Err(Wrong::new(format!("is {}, which has no key", quote(path)), mend));
        }
        Ok(file)
    }

    fn write(value: &Self::Value) -> String {
        path_of(value)
    }
}

/// Patterns of topics.
pub(super) struct Patterns;

impl Format for Patterns {
    type Value = Vec<Pattern>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "write a list of patterns, such as [\"news\", \"room/*\"]";
        let texts = raw.list(mend)?;
        if texts.len() > Grant::PATTERNS_MAX {
            let most = format!("write {} at most", Grant::PATTERNS_MAX);
            return Err(Wrong::new(format!("has {} patterns", texts.len()), most));
        }
        each_item(texts, |text| {
            Pattern::parse(text).map_err(|error| Wrong::new(format!("has a bad item: {error}"), mend))
        })
    }

    fn write(value: &Self::Value) -> String {
        let texts: Vec<_> = value.iter().map(|pattern| quote(pattern.as_str())).collect();
        format!("[{}]", texts.join(", "))
    }
}

/// Names of issuers and audiences.
pub(super) struct Names;

impl Format for Names {
    type Value = Vec<String>;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let names = raw.list("write a list of names, such as [\"https://login.example\"]")?;
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn write(value: &Self::Value) -> String {
        let names: Vec<_> = value.iter().map(|name| quote(name)).collect();
        format!("[{}]", names.join(", "))
    }
}

/// The name of a claim.
pub(super) struct Claim;

impl Format for Claim {
    type Value = String;

    fn read(raw: &Raw<'_>) -> Result<Self::Value, Wrong> {
        let mend = "write the name of a claim, such as holdline";
        match raw.text(mend)? {
            "" => Err(Wrong::new("is empty", mend)),
            name => Ok(name.to_owned()),
        }
    }

    fn write(value: &Self::Value) -> String {
        quote(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use crate::config::Loader;

    #[test]
    fn a_file_of_keys_has_one() {
        let file = std::env::temp_dir().join(format!("holdline-keys-{}.toml", std::process::id()));
        let load = |keys: &str| {
            std::fs::write(&file, keys).unwrap();
            let mut loader = Loader::new();
            loader.text("h.toml".as_ref(), &format!("[auth]\napi_keys = {file:?}\n"));
            loader.finish().map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert!(load("[[key]]\nname = \"a\"\nkey = \"an-example-of-a-key\"\n").unwrap().access.is_on());
        for none in ["", "# The last one is gone.\n", "key = []\n"] {
            let said = load(none).unwrap_err();
            let is_told =
                said[0].starts_with("auth.api_keys is ") && said[0].contains("which has no key, h.toml line 2");
            assert!(is_told, "{said:?}");
        }
        std::fs::remove_file(&file).unwrap();
    }
}
