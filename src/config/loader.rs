//! Fills the model from its sources and collects all that is wrong with them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::fitting;
use super::nearest::suggestion;
use super::problem::{Place, Problem, Wrong, quote};
use super::settings::{self, SETTINGS, Setting};
use super::value::Raw;

/// Takes the sources in the order of their precedence, the weakest first.
#[derive(Debug, Default)]
pub struct Loader {
    pub(super) config: Config,
    /// Where each key was set last; for a list, where each item stands.
    places: BTreeMap<&'static str, Vec<Place>>,
    /// Where each section for topics begins.
    pub(super) section_places: Vec<Place>,
    pub(super) problems: Vec<Problem>,
}

impl Loader {
    const FILE_BYTES_MAX: u64 = 1 << 20;

    /// Short names of variables, and the keys they set.
    const SHORT_VARIABLES: [(&str, &str); 1] = [("HOLDLINE_LOG", "log.level")];

    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a TOML file.
    pub fn file(&mut self, path: &Path) {
        match read(path) {
            Ok(text) => self.text(path, &text),
            Err((line, what, mend)) => {
                let path = path.to_owned();
                let place = line.map_or_else(|| Place::WholeFile(path.clone()), |line| Place::File(path.clone(), line));
                self.problems.push(Problem { what, place, mend: mend.to_owned() });
            }
        }
    }

    /// Takes a TOML file for a second time: what can be read only once, a pipe for one, would keep the reader waiting.
    pub fn file_again(&mut self, path: &Path) {
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            let (what, place) = ("cannot be read again: it is no file".to_owned(), Place::WholeFile(path.to_owned()));
            return self.problems.push(Problem { what, place, mend: "start the server with a file".to_owned() });
        }
        self.file(path);
    }

    /// Takes the text of a TOML file.
    pub fn text(&mut self, path: &Path, text: &str) {
        let (table, errors) = DeTable::parse_recoverable(text);
        let start = |error: &toml::de::Error| line(text, error.span().map_or(0, |span| span.start));
        // The first error of a line is the one that says what is wrong; the rest follow from it.
        let mut errors: Vec<_> = errors.into_iter().map(|error| (start(&error), error)).collect();
        errors.sort_by_key(|(line, _)| *line);
        errors.dedup_by_key(|(line, _)| *line);
        let broken: Vec<usize> = errors.iter().map(|(line, _)| *line).collect();
        let first = self.problems.len();
        self.table(&Source { path, text }, "", table.get_ref());
        // What is left of a line that is no TOML says nothing.
        let sound = |problem: &Problem| !matches!(&problem.place, Place::File(_, line) if broken.contains(line));
        let found = self.problems.split_off(first).into_iter().filter(sound);
        let syntax = errors.iter().map(|(line, error)| Problem {
            what: format!("not TOML: {}", error.message().replace('\n', " ")),
            place: Place::File(path.to_owned(), *line),
            mend: syntax_mend(error.message()).to_owned(),
        });
        let mut found: Vec<Problem> = found.chain(syntax).collect();
        found.sort_by_key(|problem| if let Place::File(_, line) = problem.place { line } else { 0 });
        self.problems.append(&mut found);
    }

    /// Takes the variables of the environment that begin with `HOLDLINE_`.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if !name.starts_with(Setting::PREFIX) {
                continue;
            }
            let place = Place::Environment(name.clone());
            let short = Self::SHORT_VARIABLES.iter().find(|(short, _)| *short == name);
            let named =
                |setting: &&Setting| short.is_some_and(|(_, key)| *key == setting.key) || setting.variable() == name;
            let Some(setting) = SETTINGS.iter().find(named) else {
                if is_of_a_service(&name) {
                    continue;
                }
                self.problems.push(unknown_variable(&name, place));
                continue;
            };
            match value.to_str() {
                Some(value) if value.trim().is_empty() && settings::KEYS_OF_CLIENTS.contains(&setting.key) => {
                    // Whoever sets it means that clients are asked, and what should be in it has not come.
                    let wrong = Wrong::new("is empty", "say it, or unset the variable");
                    self.problems.push(wrong.at(setting.key, place));
                }
                Some(value) => self.set(setting, &Raw::Text(value), vec![place]),
                None => {
                    let wrong = Wrong::new("is not UTF-8", "write plain text");
                    self.problems.push(wrong.at(setting.key, place));
                }
            }
        }
    }

    /// Takes a flag that sets `key`.
    pub fn flag(&mut self, flag: &'static str, key: &'static str, value: &str) {
        self.set_flag(flag, key, &Raw::Text(value));
    }

    /// Takes a flag that can be given more than once and sets the list `key`.
    pub fn flags(&mut self, flag: &'static str, key: &'static str, values: &[String]) {
        if !values.is_empty() {
            self.set_flag(flag, key, &Raw::List(values.iter().map(String::as_str).collect()));
        }
    }

    /// The configuration, or all that is wrong.
    ///
    /// # Errors
    /// When there is something wrong.
    pub fn finish(mut self) -> Result<Config, Vec<Problem>> {
        for (key, wrong) in fitting::check(&self.config) {
            let place = self.places.get(key).and_then(|places| at_item(places, wrong.item));
            self.problems.push(wrong.at(key, place.unwrap_or(Place::Default)));
        }
        self.check_sections();
        if self.problems.is_empty() { Ok(self.config) } else { Err(self.problems) }
    }

    fn set_flag(&mut self, flag: &'static str, key: &'static str, raw: &Raw<'_>) {
        let setting = settings::find(key).expect("a flag sets a key of the table; a test goes through them");
        self.set(setting, raw, vec![Place::Flag(flag)]);
    }

    fn set(&mut self, setting: &'static Setting, raw: &Raw<'_>, places: Vec<Place>) {
        let wrongs = (setting.set)(&mut self.config, raw).err().into_iter().flat_map(Wrong::each);
        for wrong in wrongs {
            let place = at_item(&places, wrong.item).unwrap_or(Place::Default);
            self.problems.push(wrong.at(setting.key, place));
        }
        self.places.insert(setting.key, places);
    }

    /// Goes through a table of a file. The parser bounds how deep they nest; settings are one table deep.
    fn table(&mut self, source: &Source<'_>, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in in_order(table) {
            let key =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let place = source.place(name);
            if let Some(setting) = settings::find(&key) {
                self.value(source, setting, value, place);
            } else if let (TOPICS, DeValue::Table(table)) = (prefix, value.get_ref()) {
                self.section(source, name.get_ref(), place, table);
            } else if SETTINGS.iter().any(|setting| setting.key.split_once('.').is_some_and(|(of, _)| of == key)) {
                match value.get_ref() {
                    DeValue::Table(table) => self.table(source, &key, table),
                    _ => self.problems.push(Problem {
                        what: format!("{key} is a table of settings, not a value"),
                        place,
                        mend: format!("write [{key}] on a line of its own, then its settings"),
                    }),
                }
            } else {
                self.problems.push(unknown_key(&key, matches!(value.get_ref(), DeValue::Table(_)), place));
            }
        }
    }

    fn value(&mut self, source: &Source<'_>, setting: &'static Setting, value: &Spanned<DeValue<'_>>, place: Place) {
        match value.get_ref() {
            DeValue::Array(items) => {
                let places = items.iter().map(|item| source.place(item)).collect();
                let texts: Option<Vec<&str>> = items.iter().map(|item| item.get_ref().as_str()).collect();
                let raw = texts.map_or(Raw::Other("an array with something else than text in it"), Raw::List);
                self.set(setting, &raw, if items.is_empty() { vec![place] } else { places });
            }
            _ => self.set(setting, &raw_of(value).as_raw(), vec![place]),
        }
    }
}

/// A value that is no array, as it stands in a file.
pub(super) enum Single<'a> {
    Text(Cow<'a, str>),
    Switch(bool),
    Other(&'static str),
}

impl Single<'_> {
    pub(super) fn as_raw(&self) -> Raw<'_> {
        match self {
            Self::Text(text) => Raw::Text(text),
            Self::Switch(on) => Raw::Switch(*on),
            Self::Other(what) => Raw::Other(what),
        }
    }
}

/// What a value is where no list can be.
pub(super) fn raw_of<'a>(value: &'a Spanned<DeValue<'_>>) -> Single<'a> {
    match value.get_ref() {
        DeValue::String(text) => Single::Text(Cow::Borrowed(text)),
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_or(Single::Other("a number that is too large"), |number| Single::Text(Cow::Owned(number.to_string()))),
        DeValue::Boolean(on) => Single::Switch(*on),
        other => Single::Other(article(other.type_str())),
    }
}

/// The entries of a table in the order of the file.
pub(super) fn in_order<'a, 'de>(table: &'a DeTable<'de>) -> Vec<(&'a Key<'de>, &'a Spanned<DeValue<'de>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

type Key<'de> = Spanned<Cow<'de, str>>;

/// The table in which sections for topics stand.
const TOPICS: &str = "topics";

pub(super) struct Source<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Source<'_> {
    pub(super) fn place<T>(&self, spanned: &Spanned<T>) -> Place {
        Place::File(self.path.to_owned(), line(self.text, spanned.span().start))
    }
}

fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

fn at_item(places: &[Place], item: Option<usize>) -> Option<Place> {
    item.and_then(|item| places.get(item)).or(places.first()).cloned()
}

fn syntax_mend(message: &str) -> &'static str {
    if message.starts_with("duplicate key") {
        "keep one of them"
    } else {
        "write KEY = VALUE; `holdline default-config` shows every key"
    }
}

fn article(type_name: &str) -> &'static str {
    match type_name {
        "float" => "a number with a fraction",
        "datetime" => "a date",
        "table" => "a table",
        "array" => "an array",
        _ => "something else",
    }
}

type ReadError = (Option<usize>, String, &'static str);

/// The text of a file, or at which line it went wrong if at one, and what, and how to mend it.
fn read(path: &Path) -> Result<String, ReadError> {
    let failed =
        |error: std::io::Error| (None, format!("cannot be read: {error}"), "name a file that exists and is readable");
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(Loader::FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > Loader::FILE_BYTES_MAX {
        return Err((None, "is over 1 MiB".to_owned(), "name a configuration file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = 1 + error.as_bytes().iter().take(good).filter(|byte| **byte == b'\n').count();
        (Some(line), "is not UTF-8".to_owned(), "write it in UTF-8")
    })
}

fn unknown_key(key: &str, is_table: bool, place: Place) -> Problem {
    let tables = SETTINGS.iter().filter_map(|setting| setting.key.split_once('.')).map(|(table, _)| table);
    let keys = SETTINGS.iter().map(|setting| setting.key);
    let mend = if is_table { suggestion("", key, tables) } else { suggestion("", key, keys) };
    let kind = if is_table { "table" } else { "key" };
    let what = format!("unknown {kind} {}", quote(key));
    Problem { what, place, mend }
}

/// Whether a variable is one that Kubernetes gives to every process beside a Service whose name begins with `holdline`, such as
/// `HOLDLINE_SERVICE_HOST` and `HOLDLINE_PORT_8080_TCP_ADDR`. Nobody has written them, and no setting is called so.
fn is_of_a_service(name: &str) -> bool {
    let after_port = name.split_once("_PORT_").map(|(_, rest)| rest.split('_').collect::<Vec<_>>());
    let is_link =
        matches!(after_port.as_deref(), Some([port, "TCP" | "UDP" | "SCTP", ..]) if port.parse::<u16>().is_ok());
    let is_service = name.contains("_SERVICE_PORT_")
        || ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|end| name.ends_with(end));
    is_link || is_service
}

fn unknown_variable(name: &str, place: Place) -> Problem {
    let variables: Vec<String> = SETTINGS.iter().map(Setting::variable).collect();
    let known = variables.iter().map(String::as_str).chain(Loader::SHORT_VARIABLES.map(|(name, _)| name));
    let bare = |name| str::strip_prefix(name, Setting::PREFIX).unwrap_or(name);
    let mut mend = suggestion(Setting::PREFIX, bare(name), known.map(bare));
    if name.starts_with("HOLDLINE_TOPICS_") {
        mend.push_str(" Rules for some topics can only stand in a file");
    }
    Problem { what: format!("unknown setting {}", quote(name)), place, mend }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use std::time::Duration;

    use super::*;
    use crate::config::{BackendChoice, Origins};

    fn from_file(text: &str) -> Result<Config, Vec<String>> {
        let mut loader = Loader::new();
        loader.text("h.toml".as_ref(), text);
        loader.finish().map_err(|problems| problems.iter().map(Problem::to_string).collect())
    }

    #[test]
    fn later_sources_win() {
        let mut loader = Loader::new();
        loader.text("h.toml".as_ref(), "shards = 1\nbackend = \"epoll\"\n[limits]\nmessage_bytes_max = \"2MiB\"\n");
        let variables =
            [("HOLDLINE_SHARDS", "2"), ("HOLDLINE_BACKEND", "uring"), ("HOLDLINE_LOG", "debug"), ("HOME", "/")];
        loader.environment(variables.map(|(name, value)| (name.into(), value.into())));
        loader.flag("--shards", "shards", "3");
        loader.flags("--listen", "listen", &["http://127.0.0.1:0".to_owned()]);
        loader.flags("--listen", "listen", &[]);
        let config = loader.finish().unwrap();
        assert_eq!((config.shards, config.backend), (3, BackendChoice::Uring));
        assert_eq!(config.limits.message_bytes_max, 2 << 20);
        assert_eq!(config.log_filter.as_str(), "debug");
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.drain, Duration::from_secs(30));
    }

    #[test]
    fn every_problem_is_told_with_its_line() {
        let text = "shards = 0x10\nshrads = 1\ndrain = 30\n[limits]\nmesage_bytes_max = 1\nhead_bytes_max = \"1TiB\"\n\
                    [limit]\na = 1\n[heartbeat]\ntimeout = \"0s\"\ninterval = true\n";
        assert_eq!(
            from_file(text).unwrap_err(),
            [
                "unknown key \"shrads\", h.toml line 2: did you mean shards?",
                "drain is \"30\", without a unit, h.toml line 3: write a time with its unit, such as 250ms, 30s, 5m or 1h",
                "unknown key \"limits.mesage_bytes_max\", h.toml line 5: did you mean limits.message_bytes_max?",
                "limits.head_bytes_max is 1TiB, above 1MiB, h.toml line 6: write 256 to 1MiB",
                "unknown table \"limit\", h.toml line 7: did you mean limits?",
                "heartbeat.timeout is 0s, below 10ms, h.toml line 10: write 10ms to 1h",
                "heartbeat.interval is a boolean, h.toml line 11: write a time with its unit, such as 250ms, 30s, 5m \
                 or 1h",
            ]
        );
    }

    #[test]
    fn broken_toml_is_told_with_its_line_and_the_rest_is_still_read() {
        let problems = from_file("shards = 1\ndrain = = 3\n\nbackend = \"kqueue\"\n").unwrap_err();
        assert!(problems[0].starts_with("not TOML: "), "{problems:?}");
        assert!(problems[0].contains("h.toml line 2: "), "{problems:?}");
        assert_eq!(
            problems.last().unwrap(),
            "backend is \"kqueue\", h.toml line 4: write auto or epoll or uring",
            "{problems:?}"
        );
        assert!(problems.iter().all(|problem| !problem.contains('\n')));
    }

    #[test]
    fn one_error_of_syntax_is_told_for_a_line() {
        let twice = "[limits]\nconnections_max = 5\n[limits]\nfragments_max = 6\n";
        assert_eq!(from_file(twice).unwrap_err(), ["not TOML: duplicate key, h.toml line 3: keep one of them"]);
        let deep = ["a = ", &"[".repeat(5000)].concat();
        assert_eq!(from_file(&deep).unwrap_err().len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_has_no_line() {
        let mut loader = Loader::new();
        loader.file("/nowhere/h.toml".as_ref());
        let problems = loader.finish().unwrap_err();
        assert!(problems[0].to_string().contains(", /nowhere/h.toml: name a file"), "{problems:?}");
    }

    #[test]
    fn all_bad_items_of_a_list_are_told() {
        let list = |key: &str, items: [&str; 3]| {
            format!("{key} = [\n  {:?},\n  {:?},\n  {:?},\n]\n", items[0], items[1], items[2])
        };
        for (table, key, items, what) in [
            ("", "listen", ["htp://127.0.0.1:1", "http://127.0.0.1:1", "http://a:b"], "listen "),
            ("[websocket]\n", "origins", ["a b", "https://a.example", "ftp://"], "websocket.origins has "),
            ("[websocket]\n", "subprotocols", ["a b", "a", "a"], "websocket.subprotocols has "),
            ("[proxy]\n", "trusted", ["10.0.0.0/99", "10.0.0.0/8", "x"], "proxy.trusted has "),
            ("[cluster]\n", "nats", ["nats://a:0", "nats://a:1", "http://a"], "cluster.nats "),
            ("[auth]\n", "public_keys", ["/none/1", "tests/keys/public.pem", "/none/3"], "auth.public_keys is "),
            ("[hooks]\n", "events", ["conect", "connect", "publsh"], "hooks.events has "),
            ("[hooks]\n", "topics", ["a b", "a", "c d"], "hooks.topics has a bad item: "),
        ] {
            let problems = from_file(&format!("{table}{}", list(key, items))).unwrap_err();
            let line = if table.is_empty() { 2 } else { 3 };
            let told: Vec<_> = [line, line + 2].map(|line| format!(", h.toml line {line}: ")).into();
            let all =
                problems.iter().zip(&told).all(|(problem, line)| problem.starts_with(what) && problem.contains(line));
            assert!(all && problems.len() == 2, "{problems:#?}");
        }
    }

    #[test]
    fn items_of_a_list_have_lines_of_their_own() {
        let problems = from_file("listen = [\n  \"http://127.0.0.1:1\",\n  \"htp://127.0.0.1:1\",\n]\n").unwrap_err();
        assert!(problems[0].contains("h.toml line 3: did you mean http://?"), "{problems:?}");
        let problems = from_file("listen = [\n  \"http://127.0.0.1:1\",\n  \"tcp://127.0.0.1:1\",\n]\n").unwrap_err();
        assert_eq!(problems, ["listen has 127.0.0.1:1 twice, h.toml line 3: give each listener its own port"]);
        let problems =
            from_file("listen = [\"unix:///a\", \"unix:///a?mode=0600\"]\nupgrade.socket = \"/a\"\n").unwrap_err();
        assert!(problems[0].ends_with("give each listener its own path"), "{problems:?}");
        assert!(problems[1].starts_with("upgrade.socket is /a, where clients connect"), "{problems:?}");
        // Other machines cannot come there, and the file says who may.
        let config = from_file("listen = [\"unix:///run/edge.sock?proxy=on\"]").unwrap();
        assert_eq!(config.listeners[0].to_string(), "unix:///run/edge.sock?proxy=on");
        assert!(from_file("listen = [1]").unwrap_err()[0].contains("something else than text"));
    }

    #[test]
    fn a_setting_where_a_table_belongs_is_told() {
        assert!(from_file("limits = 3").unwrap_err()[0].contains("is a table of settings"));
        assert!(from_file("[shards]\nx = 1").unwrap_err()[0].contains("shards is a table"));
    }

    #[test]
    fn unknown_variables_are_told_with_the_nearest() {
        let mut loader = Loader::new();
        loader.environment([("HOLDLINE_LIMITS_MESAGE_BYTES_MAX".into(), "1".into())]);
        let problems = loader.finish().unwrap_err();
        assert!(problems[0].to_string().ends_with("did you mean HOLDLINE_LIMITS_MESSAGE_BYTES_MAX?"), "{problems:?}");
    }

    #[test]
    fn variables_of_a_service_in_kubernetes_are_not_settings() {
        let mut loader = Loader::new();
        let of_a_service = [
            ("HOLDLINE_SERVICE_HOST", "10.0.0.1"),
            ("HOLDLINE_SERVICE_PORT", "8080"),
            ("HOLDLINE_SERVICE_PORT_HTTP", "8080"),
            ("HOLDLINE_PORT", "tcp://10.0.0.1:8080"),
            ("HOLDLINE_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
            ("HOLDLINE_PORT_8080_TCP_PROTO", "tcp"),
            ("HOLDLINE_ADMIN_PORT_9090_TCP_ADDR", "10.0.0.2"),
        ];
        loader.environment(of_a_service.map(|(name, value)| (name.into(), value.into())));
        loader.environment([("HOLDLINE_PROT".into(), "1".into())]);
        let problems = loader.finish().unwrap_err();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].to_string().starts_with("unknown setting \"HOLDLINE_PROT\""), "{problems:?}");
    }

    #[test]
    fn no_setting_is_named_as_a_service_in_kubernetes_is() {
        assert!(SETTINGS.iter().all(|setting| !is_of_a_service(&setting.variable())));
    }

    #[test]
    fn settings_that_do_not_fit_together_are_told() {
        let problems =
            from_file("admin = \"127.0.0.1:8080\"\n[limits]\nqueue_bytes_total_max = \"64KiB\"").unwrap_err();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("limits.queue_bytes_total_max is below") && problems[0].contains("line 3"));
        assert!(problems[1].contains("admin is 127.0.0.1:8080, where clients connect, h.toml line 1"));
    }

    #[test]
    fn origins_come_as_a_word_or_a_list() {
        assert!(from_file("[websocket]\norigins = \"*\"").unwrap().origins.any);
        let listed = from_file("[websocket]\norigins = [\"https://a.example\"]").unwrap().origins;
        assert_eq!(listed, Origins { any: false, same: false, list: vec!["https://a.example".to_owned()] });
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let mut loader = Loader::new();
        loader.file("/nowhere/h.toml".as_ref());
        assert!(loader.finish().unwrap_err()[0].to_string().starts_with("cannot be read: "));
    }
}
