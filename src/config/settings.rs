//! All settings: what each is, and how they are printed. They stand in `table`.

mod table;

pub(super) use self::table::{GIB, SETTINGS, hours, ms};
use super::Config;
use super::problem::Wrong;
use super::sections::example_section;
use super::value::Raw;

/// One thing that can be set.
pub(super) struct Setting {
    /// Its path in a TOML file.
    pub(super) key: &'static str,
    doc: &'static [&'static str],
    /// Puts a value in its place, if it is one.
    pub(super) set: fn(&mut Config, &Raw<'_>) -> Result<(), Wrong>,
    show: fn(&Config) -> String,
    /// What it may be, where that is a range.
    range: fn() -> Option<String>,
    /// Whether two configurations have the same.
    pub(super) is_same: fn(&Config, &Config) -> bool,
    /// Puts the second one's into the first.
    pub(super) keep: fn(&mut Config, &Config),
}

impl Setting {
    /// What stands before the names of all environment variables.
    pub(super) const PREFIX: &str = "HOLDLINE_";

    /// The environment variable for it.
    pub(super) fn variable(&self) -> String {
        format!("{}{}", Self::PREFIX, self.key.to_ascii_uppercase().replace('.', "_"))
    }
}

/// The keys of all settings, in the order of the file.
#[cfg(test)]
pub(crate) fn keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.key)
}

pub(super) fn find(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.key == key)
}

/// The setting behind which sections for topics can stand.
const LAST_OF_TOPICS: &str = "topics.presence_members_max";

/// The whole configuration with its defaults and what each setting means: a TOML file that says what no file says.
#[must_use]
pub fn default_config() -> String {
    let config = Config::default();
    let mut text = String::from(
        "# Holdline's configuration. What is missing has the default, which is what stands here.\n\
         # The environment wins over this file (HOLDLINE_LIMITS_MESSAGE_BYTES_MAX=32MiB), flags win over both.\n\
         # Durations: 250ms, 30s, 5m, 1h. Sizes: bytes, 64KiB, 1MiB, 2GiB.\n",
    );
    let mut table = "";
    for setting in SETTINGS {
        let (of, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        text.push('\n');
        if of != table {
            text.push_str(&format!("[{of}]\n"));
            table = of;
        }
        for line in setting.doc {
            text.push_str(&format!("# {}\n", line.trim()));
        }
        if let Some(range) = (setting.range)() {
            text.push_str(&format!("# {range}.\n"));
        }
        text.push_str(&format!("{name} = {}\n", (setting.show)(&config)));
        if setting.key == LAST_OF_TOPICS {
            text.push_str(&example_section(&config));
        }
    }
    text
}

/// The settings that name what clients show.
pub(super) const KEYS_OF_CLIENTS: [&str; 4] = ["auth.jwks", "auth.public_keys", "auth.secret", "auth.api_keys"];

/// All settings as they are, by their keys.
pub fn effective(config: &Config) -> impl Iterator<Item = (String, serde_json::Value)> {
    SETTINGS.iter().map(|setting| {
        let shown = (setting.show)(config);
        // As it stands in the file: TOML. What is none is shown as it is.
        let value = toml::from_str::<toml::Table>(&format!("value = {shown}")).ok();
        let value =
            value.and_then(|mut table| table.remove("value")).and_then(|value| serde_json::to_value(value).ok());
        (setting.key.to_owned(), value.unwrap_or(serde_json::Value::String(shown)))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::config::Loader;
    use crate::rule::Limit;

    #[test]
    fn the_printed_configuration_is_the_default_one() {
        let mut loader = Loader::new();
        loader.text("default.toml".as_ref(), &default_config());
        assert_eq!(loader.finish(), Ok(Config::default()));
    }

    #[test]
    fn every_setting_is_printed_with_its_meaning_and_read_back_from_the_environment() {
        let text = default_config();
        for setting in SETTINGS {
            let name = setting.key.rsplit('.').next().unwrap_or_default();
            assert!(text.contains(&format!("\n{name} = ")), "{}", setting.key);
            assert!(!setting.doc.is_empty());
            assert!(setting.variable().starts_with("HOLDLINE_"));
        }
        assert!(text.lines().all(|line| line.len() <= 120), "{text}");
    }

    /// Each bound that can be set is counted when it strikes, under its own name, or is no refusal.
    #[test]
    fn limits_are_counted_by_their_names() {
        const NONE: [&str; 12] = [
            // They say whom, how or how fast others strike.
            "limits.exempt",
            "limits.message_rate_policy",
            "http2.resets_rate",
            "http2.frames_rate",
            "heartbeat.interval",
            // Whoever asks for more gets so much.
            "limits.poll_wait_max",
            // What is beyond goes, and is counted among the histories' own.
            "history.messages_max",
            "history.bytes_max",
            "history.age_max",
            "history.bytes_total_max",
            // Whoever sends beyond a window breaks a rule: http2_window_exceeded.
            "http2.stream_window",
            "http2.connection_window",
        ];
        let is_bound = |key: &&str| {
            ["limits.", "http2.", "history.", "heartbeat."].iter().any(|table| key.starts_with(table))
                || *key == "topics.rate"
        };
        let label = |key: &str| match key.split_once('.') {
            Some(("limits", name)) => name.to_owned(),
            Some((table, name)) => format!("{}_{name}", table.trim_end_matches('s')),
            None => key.to_owned(),
        };
        let named: Vec<String> = keys().filter(is_bound).filter(|key| !NONE.contains(key)).map(label).collect();
        let counted: Vec<&str> = Limit::ALL.iter().map(|limit| limit.label()).collect();
        assert!(named.iter().all(|name| counted.contains(&&**name)), "{named:?} {counted:?}");
        assert_eq!(named.len(), counted.len());
        assert!(NONE.iter().all(|key| find(key).is_some()));
    }

    #[test]
    fn the_documented_names_of_variables_hold() {
        let variable = |key| find(key).map(Setting::variable);
        assert_eq!(variable("limits.message_bytes_max").as_deref(), Some("HOLDLINE_LIMITS_MESSAGE_BYTES_MAX"));
        assert_eq!(variable("heartbeat.interval").as_deref(), Some("HOLDLINE_HEARTBEAT_INTERVAL"));
        assert_eq!(variable("log.format").as_deref(), Some("HOLDLINE_LOG_FORMAT"));
    }
}
